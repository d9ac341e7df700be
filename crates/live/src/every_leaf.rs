//! One change of all leaves of a range, on a parked tree.

use core::ptr::NonNull;

use linmap_vmsa::{Descriptor, Level};

use crate::entry::{Entry, PAGE_BIT, entry};
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::protect::Seen;
use crate::step::{EveryLeaf, Step};
use crate::tree_context::TreeContext;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::cpu::Cpu;

/// In which address spaces a TLB may use a translation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Global {
    /// In every ASID: nG is clear.
    Global,
    /// In the ASID that it was walked for: nG is set.
    NonGlobal,
}

/// How many entries are changed together when all of them are pages.
const CHUNK: usize = 8;

/// nG of a leaf (Arm ARM D8.3.1).
pub(crate) const NOT_GLOBAL: u64 = 1 << 11;

impl Global {
    /// Returns the bits to clear and to set in a leaf.
    pub(crate) const fn masks(self) -> (u64, u64) {
        match self {
            Self::Global => (NOT_GLOBAL, 0),
            Self::NonGlobal => (0, NOT_GLOBAL),
        }
    }
}

impl EveryLeaf {
    /// What a leaf becomes.
    #[inline]
    pub(crate) const fn of(&self, bits: u64) -> u64 {
        bits & !self.clear | self.set
    }
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to change all leaves as `leaves` says. After the splits planned so far, no leaf that
    /// changes reaches over an end of the range.
    pub fn every_leaf(&mut self, leaves: EveryLeaf) -> Result<(), PlanError> {
        let top = self.top;
        // A leaf was split only because it changes.
        let changes = self.script.len() > 0;
        if self.any_changes(top, leaves)? || changes {
            self.unsynchronised = true;
            self.script.push(Step::EveryLeaf(leaves))?;
        }
        Ok(())
    }

    /// Returns whether a leaf in memory below `node` changes. It reads the whole range, to refuse
    /// foreign entries.
    fn any_changes(&mut self, node: Node, leaves: EveryLeaf) -> Result<bool, PlanError> {
        let (from, to) = self.indices(node, leaves.first.0, leaves.last.0);
        if node.level == Level::L3 {
            return self.any_page_changes(node, from, to, leaves);
        }
        let mut changes = false;
        for index in from..=to {
            let found = self.read(node, index);
            match (entry(self.context.geometry, node.level, found), node.level.next()) {
                (Entry::Empty, _) => {}
                (Entry::Leaf(_), _) => changes |= leaves.of(found.0) != found.0,
                (Entry::Table(table), Some(_)) => {
                    let below = self.context.below(node, index, table);
                    changes |= self.any_changes(below, leaves)?;
                }
                _ => return Err(self.foreign(node, index, found)),
            }
        }
        Ok(changes)
    }

    fn any_page_changes(
        &mut self,
        node: Node,
        from: usize,
        to: usize,
        leaves: EveryLeaf,
    ) -> Result<bool, PlanError> {
        let seen = self.look(node, from, to, Seen::of);
        // Every page has this bit set, valid or not.
        if seen.and & PAGE_BIT != 0 {
            return Ok(seen.changes(leaves.clear, leaves.set));
        }
        let mut changes = false;
        for index in from..=to {
            let found = self.read(node, index);
            if found.0 != 0 && found.0 & PAGE_BIT == 0 {
                return Err(self.foreign(node, index, found));
            }
            changes |= found.0 != 0 && leaves.of(found.0) != found.0;
        }
        Ok(changes)
    }
}

/// Changes every leaf as `leaves` says and returns how many were stored.
///
/// # Safety
/// `leaves` names addresses of the tree that `context` describes, and no leaf that changes reaches
/// over its ends. Until the call returns, no CPU walks the tree and nothing else changes it.
/// `window` reaches its tables.
pub(crate) unsafe fn store_every_leaf<W: TableWindow, C: Cpu>(
    context: &TreeContext,
    leaves: &EveryLeaf,
    window: &mut W,
    cpu: &mut C,
) -> u64 {
    // SAFETY: the caller's.
    unsafe { store_below(context, context.top, leaves, window, cpu) }
}

/// What [`store_every_leaf`] does, from the table `node` on.
///
/// # Safety
/// As there. `node` is a table of the tree.
unsafe fn store_below<W: TableWindow, C: Cpu>(
    context: &TreeContext,
    node: Node,
    leaves: &EveryLeaf,
    window: &mut W,
    cpu: &mut C,
) -> u64 {
    let (from, to) = context.indices(node, leaves.first.0, leaves.last.0);
    // SAFETY: the caller's: the window reaches the tables of the tree.
    let table = unsafe { window.open(node.level, node.table) };
    let mut stored = 0;
    if node.level == Level::L3 {
        // SAFETY: an open table is valid for reads and writes of a whole granule, and these are
        // some of its entries.
        stored = unsafe { store_pages(table.add(from), to - from + 1, leaves, cpu) };
        window.close(node.level);
        return stored;
    }
    for index in from..=to {
        // SAFETY: as above; the table stays open while deeper levels are. No other code writes
        // between the read and the store.
        let (slot, found) = unsafe {
            let slot = table.add(index);
            (slot, Descriptor(slot.read()))
        };
        match (entry(context.geometry, node.level, found), node.level.next()) {
            (Entry::Leaf(_), _) if leaves.of(found.0) != found.0 => {
                // SAFETY: as above; what the leaf maps stays.
                unsafe { cpu.store(slot, Descriptor(leaves.of(found.0))) };
                stored += 1;
            }
            (Entry::Table(table), Some(_)) => {
                let below = context.below(node, index, table);
                // SAFETY: the caller's; the entry leads to the table.
                stored += unsafe { store_below(context, below, leaves, window, cpu) };
            }
            _ => {}
        }
    }
    window.close(node.level);
    stored
}

/// Changes `count` entries of a table of pages: nearly all of the work of a large map made of
/// pages.
///
/// # Safety
/// The entries are valid for reads and writes, and nothing else writes to them.
unsafe fn store_pages<C: Cpu>(first: NonNull<u64>, count: usize, leaves: &EveryLeaf, cpu: &mut C) -> u64 {
    let mut stored = 0u64;
    let mut nth = 0;
    while nth < count {
        // SAFETY: the caller's.
        unsafe {
            let slot = first.add(nth);
            if count - nth >= CHUNK {
                let found: [u64; CHUNK] = slot.cast().read();
                let pages = found.iter().fold(u64::MAX, |pages, bits| pages & bits) & PAGE_BIT != 0;
                let changed = found.iter().fold(0, |changed, bits| changed | (leaves.of(*bits) ^ bits));
                if pages && changed != 0 {
                    for (at, bits) in found.into_iter().enumerate() {
                        cpu.store(slot.add(at), Descriptor(leaves.of(bits)));
                    }
                    stored = stored.wrapping_add(CHUNK as u64);
                }
                if pages {
                    nth += CHUNK;
                    continue;
                }
            }
            let found = slot.read();
            if leaves.of(found) != found && found & PAGE_BIT != 0 {
                cpu.store(slot, Descriptor(leaves.of(found)));
                stored = stored.wrapping_add(1);
            }
        }
        nth += 1;
    }
    stored
}

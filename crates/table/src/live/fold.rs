//! Making leaves larger: tables that say one thing become blocks, leaves side by side become contiguous runs.

use core::slice;

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va};

use super::PlanError;
use super::entry::{CONTIGUOUS, Entry, VALID_BIT, attributes_of, entry, leaf};
use super::plan::{Edit, Step};
use super::planner::{Node, Planner};
use crate::frames::FrameSource;
use crate::walk::read;
use crate::window::TableWindow;

/// What a walk that folds does with what it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Stores blocks over tables.
    Blocks,
    /// Sets the contiguous bit over runs, when the blocks in them are all that TLBs hold.
    Runs,
    /// Makes invalid what will be larger.
    Break,
    /// Stores the larger leaves where the smaller ones were made invalid.
    Make,
    /// Frees the tables.
    Free,
}

/// Entries that are compared by one turn of a loop; a divisor of the entries of every table of pages below a root.
const CHUNK: usize = 16;

/// The longest contiguous run there is: 128 pages of 16 KiB.
const LONGEST_RUN: usize = 128;

/// The entries that become one run, or stand alone.
#[derive(Clone, Copy, Debug)]
struct Group {
    index: usize,
    count: usize,
    /// What each entry is when tables have become blocks, without the contiguous bit; 0 where there is no leaf then.
    folded: [u64; LONGEST_RUN],
    /// Whether the entries become a contiguous run, and are none yet.
    becomes_run: bool,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to fold what lies in `first..=last`.
    pub fn fold(&mut self, first: u64, last: u64) -> Result<(), PlanError> {
        let root = self.root();
        let breaks = self.quiescent && matches!(self.regime.bbm, BbmLevel::L0 | BbmLevel::L1);
        // The blocks are in force everywhere before they are said to be a run.
        let phases = if breaks { [Phase::Break, Phase::Make] } else { [Phase::Blocks, Phase::Runs] };
        for phase in phases {
            self.fold_below(root, first, last, phase)?;
            self.settle()?;
        }
        self.finish()?;
        self.fold_below(root, first, last, Phase::Free)
    }

    fn fold_below(&mut self, node: Node, first: u64, last: u64, phase: Phase) -> Result<(), PlanError> {
        if node.level == Level::L3 && matches!(phase, Phase::Blocks | Phase::Free) {
            return Ok(());
        }
        let (from, to) = self.indices(node, first, last);
        let run = self.regime.run(node.level).unwrap_or(1).min(LONGEST_RUN);
        let mut start = from & !(run - 1);
        while start <= to {
            let group = self.group(node, start, run, first, last);
            self.fold_group(node, &group, phase)?;
            if node.level != Level::L3 {
                for index in start.max(from)..=(start + run - 1).min(to) {
                    self.fold_child(node, index, &group, first, last, phase)?;
                }
            }
            start += run;
        }
        Ok(())
    }

    /// Folds below a table that stays one.
    fn fold_child(
        &mut self,
        node: Node,
        index: usize,
        group: &Group,
        first: u64,
        last: u64,
        phase: Phase,
    ) -> Result<(), PlanError> {
        if group.folded.get(index - group.index).is_some_and(|folded| *folded != 0) {
            return Ok(());
        }
        let found = self.read(node, index);
        if let (Entry::Table(table), Some(level)) =
            (entry(self.regime.geometry, node.level, found), node.level.next())
        {
            let below = Node { table, level, base: self.va(node, index) };
            self.fold_below(below, first, last, phase)?;
        }
        Ok(())
    }

    /// What becomes of `count` entries from `index` on, of which those are looked at that lie in `first..=last` whole.
    fn group(&mut self, node: Node, index: usize, count: usize, first: u64, last: u64) -> Group {
        let geometry = self.regime.geometry;
        let shift = geometry.shift(node.level);
        let mut group = Group { index, count, folded: [0; LONGEST_RUN], becomes_run: false };
        let mut contiguous = true;
        for (nth, folded) in group.folded.iter_mut().enumerate().take(count) {
            let (va, end) = (self.va(node, index + nth), self.last(node, index + nth));
            if va < first || end > last {
                continue;
            }
            let found = self.read(node, index + nth);
            contiguous &= found.is_contiguous();
            *folded = match (entry(geometry, node.level, found), node.level.next()) {
                (Entry::Leaf(_), _) => found.0 & !CONTIGUOUS,
                (Entry::Table(table), Some(next)) if geometry.has_leaf(node.level) => {
                    match uniform(geometry, self.window, table, next) {
                        Some((attributes, pa)) => leaf(geometry, node.level, attributes, pa).0,
                        None => 0,
                    }
                }
                _ => 0,
            };
        }
        let lead = Descriptor(group.folded[0]);
        if let (true, Entry::Leaf(pa)) = (count > 1, entry(geometry, node.level, lead)) {
            let consecutive =
                |(nth, bits): (usize, &u64)| *bits == lead.0.wrapping_add((nth as u64) << shift);
            let aligned = pa.0 & (((count as u64) << shift) - 1) == 0;
            let alike = group.folded.iter().take(count).enumerate().all(consecutive);
            group.becomes_run = !contiguous && aligned && alike;
        }
        group
    }

    fn fold_group(&mut self, node: Node, group: &Group, phase: Phase) -> Result<(), PlanError> {
        if phase == Phase::Runs {
            return self.fold_run(node, group);
        }
        let geometry = self.regime.geometry;
        for (nth, folded) in group.folded.iter().enumerate().take(group.count) {
            let (index, folded) = (group.index + nth, Descriptor(*folded));
            if folded.0 == 0 {
                continue;
            }
            let found = self.read(node, index);
            let table = match (entry(geometry, node.level, found), node.level.next()) {
                (Entry::Table(table), Some(level)) => Some((table, level)),
                _ if group.becomes_run => None,
                _ => continue,
            };
            let common = if group.becomes_run { CONTIGUOUS } else { 0 };
            match (phase, table) {
                (Phase::Blocks, Some(_)) => {
                    self.may_resize(node, index, folded)?;
                    self.store(node, index, 1, Edit::Write { first: folded, step: 0 })?;
                    self.invalidate_table(node, index);
                }
                (Phase::Break, Some(_)) => {
                    self.store(node, index, 1, Edit::Write { first: Descriptor::INVALID, step: 0 })?;
                    self.invalidate_table(node, index);
                }
                (Phase::Break, None) if found.is_valid() => {
                    self.store(node, index, 1, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                    self.invalidate_leaves(node, index, 1);
                }
                (Phase::Make, _) => {
                    let first = Descriptor(folded.0 | common);
                    self.store(node, index, 1, Edit::Write { first, step: 0 })?;
                }
                (Phase::Free, Some((table, level))) => {
                    let va = Va(self.va(node, index));
                    self.script.push(Step::Free { va, table, level })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn fold_run(&mut self, node: Node, group: &Group) -> Result<(), PlanError> {
        if !group.becomes_run {
            return Ok(());
        }
        let lead = Descriptor(group.folded[0]);
        self.may_resize(node, group.index, lead)?;
        self.store(node, group.index, group.count, Edit::Bits { clear: 0, set: CONTIGUOUS })?;
        if lead.is_valid() && self.regime.bbm != BbmLevel::L3 {
            self.invalidate_leaves(node, group.index, group.count);
        }
        Ok(())
    }

    /// Refuses to change the size of leaves in use where the CPUs can't.
    fn may_resize(&self, node: Node, index: usize, folded: Descriptor) -> Result<(), PlanError> {
        let bbm = self.regime.bbm;
        if folded.is_valid() && !self.quiescent && bbm != BbmLevel::L3 {
            return Err(PlanError::NeedsLevel3 { va: Va(self.va(node, index)), bbm });
        }
        Ok(())
    }
}

/// The attributes and the address of the one larger leaf that says what the table in frame `table` at `level` says, with
/// all below it, or `None` when no leaf could.
pub(super) fn uniform<W: TableWindow>(
    geometry: Geometry,
    window: &mut W,
    table: Pa,
    level: Level,
) -> Option<(u64, Pa)> {
    let shift = geometry.shift(level);
    let count = geometry.entries(level);
    let mut of = |index: usize| {
        let found = read(window, level, table, index);
        match (entry(geometry, level, found), level.next()) {
            (Entry::Leaf(pa), _) => Some((attributes_of(geometry, found), pa)),
            (Entry::Table(below), Some(next)) => uniform(geometry, window, below, next),
            _ => None,
        }
    };
    let (attributes, start) = of(0)?;
    if start.0 & (((count as u64) << shift) - 1) != 0 {
        return None;
    }
    if level != Level::L3 {
        let alike = |index| of(index) == Some((attributes, Pa(start.0 + ((index as u64) << shift))));
        return (1..count).all(alike).then_some((attributes, start));
    }
    let lead = leaf(geometry, level, attributes, start).0;
    let pointer = window.open(level, table);
    // SAFETY: an open table has `count` entries, which are initialised in every tree, and nothing writes to them
    // meanwhile: a live tree is changed by its one `LiveTree` alone, and a new table by nobody any more.
    let entries = unsafe { slice::from_raw_parts(pointer.as_ptr(), count) };
    let offsets: [u64; CHUNK] = core::array::from_fn(|nth| (nth as u64) << shift);
    let mut odd = 0;
    let mut expected = lead;
    let (chunks, _) = entries.as_chunks::<CHUNK>();
    for chunk in chunks {
        for (found, offset) in chunk.iter().zip(offsets) {
            odd |= (found & !CONTIGUOUS) ^ expected.wrapping_add(offset);
        }
        expected += (CHUNK as u64) << shift;
    }
    window.close(level);
    (odd == 0).then_some((attributes, start))
}

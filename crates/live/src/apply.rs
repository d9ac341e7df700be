//! Applying a checked plan: the only code that changes live tables.

use core::ptr::NonNull;

use linmap_vmsa::tlbi::{RangeOperand, VaOperand};
use linmap_vmsa::{Descriptor, Geometry, Va};

use crate::every_leaf::store_every_leaf;
use crate::step::{Edit, Invalidation, Reach, Step, Store};
use crate::tree_context::TreeContext;
use crate::update::Update;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::cpu::{Cpu, Tlbi};
use linmap_table::release_below;

/// What a plan did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EditCounts {
    /// Entries stored.
    pub entries: u64,
    /// TLBI instructions.
    pub invalidations: u64,
    /// Subtrees freed.
    pub freed: u64,
}

impl EditCounts {
    /// What both did.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self {
            entries: self.entries + more.entries,
            invalidations: self.invalidations + more.invalidations,
            freed: self.freed + more.freed,
        }
    }
}

/// How the atomic updates of a plan are made.
pub(crate) trait Updates<W, C> {
    /// Makes one update.
    ///
    /// # Safety
    /// As for [`CheckedPlan::apply`](crate::CheckedPlan::apply), and the check has accepted `store`,
    /// whose edit is `update`. Its table is open, and `entries` is the first entry there. Entries
    /// are reached as [`Cpu::compare_exchange`] asks.
    unsafe fn apply(
        &mut self,
        store: &Store,
        update: Update,
        entries: NonNull<u64>,
        window: &mut W,
        cpu: &mut C,
    );
}

/// Of a tree that hardware leaves alone, no plan has any.
pub(crate) struct NoUpdates;

impl<W, C> Updates<W, C> for NoUpdates {
    #[inline(always)]
    unsafe fn apply(&mut self, _: &Store, _: Update, _: NonNull<u64>, _: &mut W, _: &mut C) {}
}

/// Executes the steps of a plan in order, except those that free tables.
///
/// # Safety
/// As for [`CheckedPlan::apply`](crate::CheckedPlan::apply), and the check has accepted the plan.
#[inline(always)]
pub(crate) unsafe fn apply_all<W: TableWindow, C: Cpu, U: Updates<W, C>>(
    context: &TreeContext,
    steps: &[Step],
    window: &mut W,
    cpu: &mut C,
    updates: &mut U,
) -> EditCounts {
    let (mut entries, mut invalidations) = (0, 0);
    for step in steps {
        match step {
            Step::Store(store) => {
                // SAFETY: the check found that `store` names entries of a table of this tree; the
                // caller promises what they map.
                unsafe { apply_store(store, window, cpu, updates) };
                entries += u64::from(store.count);
            }
            Step::EveryLeaf(leaves) => {
                // SAFETY: the check found that the range lies in this tree and that no leaf that
                // changes reaches over its ends; the caller promises that no CPU walks it.
                entries += unsafe { store_every_leaf(context, leaves, window, cpu) };
            }
            Step::Dsb(dsb) => cpu.dsb(*dsb),
            Step::Isb => cpu.isb(),
            Step::Invalidate(invalidation) => {
                invalidations += invalidate(context.geometry, invalidation, cpu);
            }
            // SAFETY: the caller promises that this CPU reaches the range by the tree, or by the
            // alias that it named.
            Step::CleanInvalidate { va, len } => unsafe { cpu.clean_and_invalidate(*va, *len) },
            Step::Free { .. } => {}
        }
    }
    EditCounts { entries, invalidations, freed: 0 }
}

/// Frees the tables that the last of `steps` name, and returns how many steps those are.
#[inline(never)]
pub(crate) fn free_all<W: TableWindow, F: FrameSource>(
    geometry: Geometry,
    steps: &[Step],
    window: &mut W,
    frames: &mut F,
) -> u64 {
    let mut freed = 0;
    for step in steps.iter().rev() {
        let Step::Free { table, level, .. } = *step else { break };
        // SAFETY: the plan was applied. The check found that its stores unlink each table returned,
        // and that its invalidations remove the table from every TLB and walk cache. By the promise
        // of `LiveTree::new` the window reaches it, and its frame is one of the source's.
        unsafe {
            release_below(geometry, table, level, window, frames);
            frames.free(table);
        }
        freed += 1;
    }
    freed
}

/// Stores the entries of one run.
///
/// # Safety
/// `store` must name entries of a table that `window` reaches, and what they map must be memory
/// that may be accessed as their attributes say.
#[inline]
unsafe fn apply_store<W: TableWindow, C: Cpu, U: Updates<W, C>>(
    store: &Store,
    window: &mut W,
    cpu: &mut C,
    updates: &mut U,
) {
    let count = usize::from(store.count);
    // SAFETY: the caller's: the window reaches the table, in which the run lies.
    let entries = unsafe { window.open(store.level, store.table).add(usize::from(store.index)) };
    match store.edit {
        // SAFETY: an open table is valid for writes and aligned; the rest is the caller's.
        Edit::Write { first, .. } if count == 1 => unsafe { cpu.store(entries, first) },
        // SAFETY: likewise.
        Edit::Write { first, step } => unsafe { cpu.store_run(entries, count, first, step) },
        Edit::Bits { clear, set } => {
            for nth in 0..count {
                // SAFETY: as above. No other code writes between the read and the store: only
                // this tree's one `LiveTree`, or the one editor of a part, changes the entry, and
                // hardware updates nothing that a plan changes by this edit.
                unsafe {
                    let entry = entries.add(nth);
                    cpu.store(entry, Descriptor(entry.read() & !clear | set));
                }
            }
        }
        // SAFETY: as above. `LiveTree::with_hardware_updates` has the promise of how entries are
        // reached.
        Edit::Update(update) => unsafe { updates.apply(store, update, entries, window, cpu) },
    }
    window.close(store.level);
}

/// Issues the instructions of one invalidation and returns their number.
#[inline(always)]
fn invalidate<C: Cpu>(geometry: Geometry, invalidation: &Invalidation, cpu: &mut C) -> u64 {
    match *invalidation {
        Invalidation::ByVa { va, count, shift, reach } => {
            for nth in 0..u64::from(count) {
                let operand = VaOperand::any_asid(Va(va.0.wrapping_add(nth.wrapping_shl(shift))));
                cpu.tlbi(match reach {
                    Reach::LastLevel => Tlbi::LastLevelByVa(operand),
                    Reach::AllLevels => Tlbi::ByVa(operand),
                });
            }
            u64::from(count)
        }
        Invalidation::ByRange { va, pages, reach } => {
            cpu.tlbi(by_range(geometry, va, pages, reach));
            1
        }
        Invalidation::All => {
            cpu.tlbi(Tlbi::All);
            1
        }
        Invalidation::Stage1 => {
            cpu.tlbi(Tlbi::Stage1);
            1
        }
    }
}

/// The invalidation of `pages` pages from `va` on.
// Out of line: otherwise the compiler computes the geometry values of the operand for every plan,
// before the loop over its steps.
#[inline(never)]
fn by_range(geometry: Geometry, va: Va, pages: u64, reach: Reach) -> Tlbi {
    match (RangeOperand::any_asid(geometry, va, pages), reach) {
        (Some((operand, _)), Reach::LastLevel) => Tlbi::LastLevelByRange(operand),
        (Some((operand, _)), Reach::AllLevels) => Tlbi::ByRange(operand),
        // The check refuses ranges that no operand can encode. An invalidation of everything would
        // cover them too.
        (None, _) => Tlbi::All,
    }
}

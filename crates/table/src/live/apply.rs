//! Applying a checked plan: the only code that changes live tables.

use linmap_vmsa::tlbi::{RangeOperand, VaOperand};
use linmap_vmsa::{Descriptor, Geometry, Va};

use super::plan::{Edit, Invalidation, Plan, Reach, Step, Store};
use crate::cpu::{Cpu, Tlbi};
use crate::detached::release_below;
use crate::frames::FrameSource;
use crate::window::TableWindow;

/// A plan that may be applied.
///
/// Dropping one leaks the frames of its new tables: apply or [`abandon`](Self::abandon) it.
#[must_use = "a plan that is neither applied nor abandoned leaks its frames"]
#[derive(Debug)]
pub struct CheckedPlan<'b> {
    plan: Plan<'b>,
}

/// What applying a plan did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Entries stored.
    pub entries: u64,
    /// TLBI instructions.
    pub invalidations: u64,
    /// Subtrees whose frames went back.
    pub freed: u64,
}

impl<'b> CheckedPlan<'b> {
    pub(super) fn new(plan: Plan<'b>) -> Self {
        Self { plan }
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        self.plan.steps()
    }

    /// Gives back the frames of the new tables.
    pub fn abandon<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) {
        self.plan.abandon(window, frames);
    }

    /// Executes the steps. Cannot fail.
    ///
    /// # Safety
    /// `window` must reach the same tables as when the plan was made, and nothing may have written to them since. What
    /// becomes mapped must be memory that may be accessed as its attributes say; nobody may use what becomes unmapped or
    /// loses a permission, except to fault; and for a [`Quiescent`](super::Quiescent) target its promise must still hold.
    pub unsafe fn apply<W: TableWindow, C: Cpu, F: FrameSource>(
        self,
        window: &mut W,
        cpu: &mut C,
        frames: &mut F,
    ) -> Applied {
        let geometry = self.plan.regime().geometry;
        let mut applied = Applied::default();
        for step in self.plan.steps() {
            match *step {
                Step::Store(store) => {
                    // SAFETY: the check has found `store` to name entries of a table of this tree, and the caller vouches
                    // for what they map.
                    unsafe { apply_store(store, window, cpu) };
                    applied.entries += u64::from(store.count);
                }
                Step::Dsb(dsb) => cpu.dsb(dsb),
                Step::Isb => cpu.isb(),
                Step::Invalidate(invalidation) => {
                    applied.invalidations += invalidate(geometry, invalidation, cpu);
                }
                Step::Free { table, level, .. } => {
                    release_below(geometry, table, level, window, frames);
                    frames.free(table);
                    applied.freed += 1;
                }
            }
        }
        applied
    }
}

/// Stores the entries of one run.
///
/// # Safety
/// `store` must name entries of a table that `window` reaches, and what they map must be memory that may be accessed as
/// their attributes say.
unsafe fn apply_store<W: TableWindow, C: Cpu>(store: Store, window: &mut W, cpu: &mut C) {
    let count = usize::from(store.count);
    let table = window.open(store.level, store.table);
    // SAFETY: the run lies in the table.
    let entries = unsafe { table.add(usize::from(store.index)) };
    match store.edit {
        // SAFETY: an open table is valid for writes and aligned; the rest is the caller's.
        Edit::Write { first, step } => unsafe { cpu.store_run(entries, count, first, step) },
        Edit::Bits { clear, set } => {
            for nth in 0..count {
                // SAFETY: as above. Nobody else writes between the read and the store: only this tree's one `LiveTree`
                // changes it, and hardware updates are off.
                unsafe {
                    let entry = entries.add(nth);
                    cpu.store(entry, Descriptor(entry.read() & !clear | set));
                }
            }
        }
    }
    window.close(store.level);
}

/// Issues the instructions of one invalidation and returns how many they were.
fn invalidate<C: Cpu>(geometry: Geometry, invalidation: Invalidation, cpu: &mut C) -> u64 {
    match invalidation {
        Invalidation::ByVa { va, count, shift, reach } => {
            for nth in 0..u64::from(count) {
                let operand = VaOperand::any_asid(Va(va.0.wrapping_add(nth << shift)));
                cpu.tlbi(match reach {
                    Reach::LastLevel => Tlbi::LastLevelByVa(operand),
                    Reach::AllLevels => Tlbi::ByVa(operand),
                });
            }
            u64::from(count)
        }
        Invalidation::ByRange { va, pages, reach } => {
            cpu.tlbi(match (RangeOperand::any_asid(geometry, va, pages), reach) {
                (Some((operand, _)), Reach::LastLevel) => Tlbi::LastLevelByRange(operand),
                (Some((operand, _)), Reach::AllLevels) => Tlbi::ByRange(operand),
                // The check refuses ranges that no operand can say; everything would hold them all the same.
                (None, _) => Tlbi::All,
            });
            1
        }
        Invalidation::All => {
            cpu.tlbi(Tlbi::All);
            1
        }
    }
}

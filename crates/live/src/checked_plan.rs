//! A plan that was checked, and then one that was applied.

use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, TableWindow};

use crate::apply::{EditCounts, apply_all, free_all};
use crate::check::{Author, check};
use crate::plan::Plan;
use crate::refused::Refused;
use crate::step::Step;

impl<'b> Plan<'b> {
    /// Checks that every step is legal on the tree as it is, on CPUs with its BBM level.
    ///
    /// A table that the planner has just written for a block, or has just compared to make one of
    /// it, is not compared once more: the plan borrows the tree, so that nothing can have changed
    /// it. With debug assertions it is, as [`LiveTree::check`] does for steps from anywhere.
    ///
    /// # Errors
    /// The first rule broken, with the plan, which can only be abandoned then.
    #[inline(always)]
    pub fn check<W: TableWindow>(self, window: &mut W) -> Result<CheckedPlan<'b>, (Self, Refused)> {
        match check(self.context(), self.exclusivity(), Author::Planner, self.steps(), window) {
            Ok(()) => Ok(CheckedPlan::new(self)),
            Err(refused) => Err((self, refused)),
        }
    }
}

/// A plan that may be applied.
///
/// Dropping one leaks the frames of its new tables: apply or [`abandon`](Self::abandon) it.
#[must_use = "a plan that is neither applied nor abandoned leaks its frames"]
#[derive(Debug)]
pub struct CheckedPlan<'b> {
    plan: Plan<'b>,
}

/// A plan that was applied. Everything it changes is in force; the tables that it removed still
/// wait to be given back.
///
/// It keeps the tree borrowed. Dropping one leaks the frames of the tables that were removed:
/// [`free`](Self::free) it.
#[must_use = "a plan that was applied and not freed leaks the frames of the tables it removed"]
#[derive(Debug)]
pub struct Applied<'b> {
    plan: Plan<'b>,
    counts: EditCounts,
    removes_tables: bool,
}

impl<'b> CheckedPlan<'b> {
    #[inline(always)]
    pub(crate) fn new(plan: Plan<'b>) -> Self {
        Self { plan }
    }

    /// The steps, in order.
    #[inline]
    pub fn steps(&self) -> &[Step] {
        self.plan.steps()
    }

    /// Gives back the frames of the new tables.
    pub fn abandon<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) {
        self.plan.abandon(window, frames);
    }

    /// Executes all steps but those that return frames. Cannot fail. On a parked tree this is the
    /// pause.
    ///
    /// # Safety
    /// `window` must reach the same tables as when the plan was made, at other addresses perhaps,
    /// and nothing may have written to them since. What becomes mapped must be memory that may be
    /// accessed as its attributes say; nobody may use what becomes unmapped or loses a permission,
    /// except to fault; for a [`Quiescent`](crate::Quiescent) target its promise must still hold,
    /// and for a [`Parked`](crate::Parked) one it must hold now.
    #[inline(always)]
    pub unsafe fn apply<W: TableWindow, C: Cpu>(self, window: &mut W, cpu: &mut C) -> Applied<'b> {
        let (context, steps) = (self.plan.context(), self.plan.steps());
        // SAFETY: the caller's, and the check has accepted the plan.
        let counts = unsafe { apply_all(context, steps, window, cpu) };
        // Planners end their plans with them.
        let removes_tables = matches!(steps.last(), Some(Step::Free { .. }));
        Applied { plan: self.plan, counts, removes_tables }
    }
}

impl Applied<'_> {
    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        self.plan.steps()
    }

    /// Gives back the frames of the tables that the plan removed. `window` need not be the one that
    /// the plan was applied through: after a parked edit it is the one of the running kernel, when
    /// all CPUs are back.
    #[inline(always)]
    pub fn free<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) -> EditCounts {
        let mut counts = self.counts;
        if self.removes_tables {
            counts.freed = free_all(self.plan.context().geometry, self.plan.steps(), window, frames);
        }
        counts
    }

    /// Whether the plan removed tables: if not, [`free`](Self::free) has nothing to do.
    #[inline(always)]
    pub fn removes_tables(&self) -> bool {
        self.removes_tables
    }

    /// What the plan did until now.
    #[inline(always)]
    pub fn counts(&self) -> EditCounts {
        self.counts
    }
}

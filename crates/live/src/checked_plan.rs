//! Plans that were checked, and plans that were applied.

use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::VaRange;

use crate::apply::{EditCounts, NoUpdates, apply_all, free_all};
use crate::apply_update::{Atomically, report_removed};
use crate::check::{Author, check};
use crate::in_asid::InAsid;
use crate::plan::Plan;
use crate::refused::Refused;
use crate::report::{Report, Reported, Unreported};
use crate::scope::Scope;
use crate::step::Step;
use crate::tree_context::TreeContext;

impl<'b> Plan<'b> {
    /// Checks that every step is legal on the tree as it is, on CPUs with its BBM level.
    ///
    /// A table that replaces a block, or the reverse, is compared with it only with debug
    /// assertions: the planner wrote or compared the table, and the plan has borrowed the tree
    /// since. [`LiveTree::check`](crate::LiveTree::check) always compares.
    ///
    /// # Errors
    /// The plan and the first rule that it breaks. Such a plan can only be abandoned.
    #[inline(always)]
    pub fn check<W: TableWindow>(self, window: &mut W) -> Result<CheckedPlan<'b>, (Self, Refused)> {
        let author = Author::Planner(self.outcome());
        match check(self.context(), self.exclusivity(), author, self.steps(), window) {
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

/// A plan that was applied. Its changes are in force. The tables that it removed are not freed yet.
///
/// It keeps the tree borrowed. Dropping one leaks the tables that were removed:
/// [`free`](Self::free) it.
///
/// ```
/// use linmap_live::{Applied, CheckedPlan, EditCounts};
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{FrameSource, TableWindow};
///
/// /// Applies a plan, and frees the tables that it removed.
/// ///
/// /// # Safety
/// /// As [`CheckedPlan::apply`].
/// unsafe fn carry_out(
///     plan: CheckedPlan<'_>,
///     window: &mut impl TableWindow,
///     frames: &mut impl FrameSource,
///     cpu: &mut impl Cpu,
/// ) -> EditCounts {
///     // SAFETY: the caller's.
///     let applied: Applied<'_> = unsafe { plan.apply(window, cpu) };
///     applied.free(window, frames)
/// }
/// ```
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

    /// Returns the steps, in order.
    #[inline]
    pub fn steps(&self) -> &[Step] {
        self.plan.steps()
    }

    /// Frees the new tables.
    pub fn abandon<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) {
        self.plan.abandon(window, frames);
    }

    /// Executes all steps except those that free tables. It can't fail. On a parked tree, this call
    /// is the pause.
    ///
    /// # Safety
    /// `window` reaches the tables that the plan was made for, at the same addresses or at others,
    /// and nothing but hardware, as the tree says, has written to them since. `cpu` acts on the
    /// regime of the tree. What becomes mapped is memory that may be accessed as its attributes
    /// say. Accesses to what becomes unmapped or loses a permission do nothing but fault. The
    /// promise of a [`Quiescent`](crate::Quiescent) target still holds, and that of a
    /// [`Parked`](crate::Parked) one holds now.
    #[inline(always)]
    pub unsafe fn apply<W: TableWindow, C: Cpu>(self, window: &mut W, cpu: &mut C) -> Applied<'b> {
        let (context, steps) = (self.plan.context(), self.plan.steps());
        // SAFETY: the caller's, and the check has accepted the plan.
        let counts = unsafe {
            if context.is_applied_plainly {
                apply_all(context, steps, window, cpu, &mut NoUpdates)
            } else {
                apply_unusual(context, steps, window, cpu)
            }
        };
        // Planners write these steps last.
        let removes_tables = matches!(steps.last(), Some(Step::Free { .. }));
        Applied { plan: self.plan, counts, removes_tables }
    }

    /// As [`apply`](Self::apply), for a tree
    /// [with hardware updates](crate::LiveTree::with_hardware_updates): calls `written` for each
    /// leaf, or contiguous run, that may have been written and that the plan makes clean,
    /// read-only or unmapped. It may be called more than once for a range. What a CPU writes by a
    /// translation that is not invalidated yet is covered: read the memory after this call returns.
    ///
    /// What stays mapped and may be written, tracked or not, is not reported. Nothing is reported
    /// of other trees.
    ///
    /// `written` runs in the middle of the edit, on a parked target while the other CPUs stand
    /// still: it should note the range and nothing else. It must not wait for what a CPU that
    /// faults in the range holds. If it panics, the program aborts: TLBs may still hold what the
    /// edit has removed.
    ///
    /// # Safety
    /// As for [`apply`](Self::apply).
    pub unsafe fn apply_reporting<W: TableWindow, C: Cpu>(
        self,
        window: &mut W,
        cpu: &mut C,
        written: impl FnMut(VaRange),
    ) -> Applied<'b> {
        let (context, steps) = (self.plan.context(), self.plan.steps());
        let mut updates = Atomically { context, report: Reported(written) };
        // SAFETY: the caller's, and the check has accepted the plan.
        let counts = unsafe { apply_updating(context, steps, window, cpu, &mut updates) };
        if context.updates.is_on() {
            // SAFETY: the plan is applied, and nothing is freed.
            unsafe { report_removed(context, steps, window, &mut updates.report) };
        }
        let removes_tables = matches!(steps.last(), Some(Step::Free { .. }));
        Applied { plan: self.plan, counts, removes_tables }
    }
}

/// Executes the steps for the tree of one ASID, or one that hardware updates.
///
/// # Safety
/// As for [`apply_all`].
#[inline(never)]
unsafe fn apply_unusual<W: TableWindow, C: Cpu>(
    context: &TreeContext,
    steps: &[Step],
    window: &mut W,
    cpu: &mut C,
) -> EditCounts {
    // SAFETY: the caller's.
    unsafe {
        match context.scope {
            Scope::Asid(asid) if !context.updates.is_on() => {
                apply_all(context, steps, window, &mut InAsid { cpu, asid }, &mut NoUpdates)
            }
            _ => {
                let mut updates = Atomically { context, report: Unreported };
                apply_updating(context, steps, window, cpu, &mut updates)
            }
        }
    }
}

/// Executes the steps for a tree that hardware updates.
///
/// # Safety
/// As for [`apply_all`].
#[cold]
#[inline(never)]
unsafe fn apply_updating<W: TableWindow, C: Cpu, R: Report>(
    context: &TreeContext,
    steps: &[Step],
    window: &mut W,
    cpu: &mut C,
    updates: &mut Atomically<'_, R>,
) -> EditCounts {
    // SAFETY: the caller's.
    unsafe {
        match context.scope {
            Scope::Asid(asid) => apply_all(context, steps, window, &mut InAsid { cpu, asid }, updates),
            Scope::Every | Scope::Vmid => apply_all(context, steps, window, cpu, updates),
        }
    }
}

impl Applied<'_> {
    /// Returns the steps, in order.
    pub fn steps(&self) -> &[Step] {
        self.plan.steps()
    }

    /// Frees the tables that the plan removed. `window` may differ from the one that the plan was
    /// applied through. After a parked edit, call this when all CPUs have returned.
    #[inline(always)]
    pub fn free<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) -> EditCounts {
        let mut counts = self.counts;
        if self.removes_tables {
            counts.freed = free_all(self.plan.context().geometry, self.plan.steps(), window, frames);
        }
        counts
    }

    /// Returns whether the plan removed tables. If not, [`free`](Self::free) has nothing to do.
    #[inline(always)]
    pub fn removes_tables(&self) -> bool {
        self.removes_tables
    }

    /// Returns what the plan did so far.
    #[inline(always)]
    pub fn counts(&self) -> EditCounts {
        self.counts
    }
}

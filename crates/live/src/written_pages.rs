//! Changes of a space that report which pages were written: dirty state by hardware.

use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::{HardwareUpdates, Pa, VaRange};

use crate::address_space::{AddressSpace, SpaceError, Tools, retried};
use crate::apply::EditCounts;
use crate::change::Change;
use crate::checked_plan::Applied;
use crate::plan::Plan;
use crate::space_part::SpacePart;

impl AddressSpace {
    /// Returns the same space for CPUs that update its leaves.
    ///
    /// # Safety
    /// As for [`LiveTree::with_hardware_updates`](crate::LiveTree::with_hardware_updates).
    pub const unsafe fn with_hardware_updates(self, updates: HardwareUpdates) -> Self {
        // SAFETY: the caller's.
        Self { tree: unsafe { self.tree.with_hardware_updates(updates) } }
    }

    /// As [`protect`](Self::protect), in a space
    /// [with hardware updates](Self::with_hardware_updates), and calls `written` for what may have
    /// been written and is clean or read-only now: see
    /// [`CheckedPlan::apply_reporting`](crate::CheckedPlan::apply_reporting). Read the memory, or
    /// write it back, after the call returns.
    ///
    /// To log writes, give the range a tracked access that is clean, as
    /// [`Access::GuestReadWriteClean`](linmap_vmsa::Access::GuestReadWriteClean), again and again:
    /// each call reports what was written since the one before. No write faults.
    ///
    /// # Errors
    /// As for [`protect`](Self::protect). What was reported before an error is clean now.
    ///
    /// # Safety
    /// As for [`protect`](Self::protect).
    pub unsafe fn protect_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
        mut written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        self.in_pieces(range, tools, |tree, range, tools| {
            let Tools { window, frames, cpu, steps } = tools;
            let plan = tree.plan_protect(retried(range), change, steps, *window, *frames)?;
            finish_reporting(plan, *window, *frames, *cpu, &mut written)
        })
    }

    /// As [`unmap`](Self::unmap), in a space [with hardware updates](Self::with_hardware_updates),
    /// and calls `written` for what may have been written.
    ///
    /// # Errors
    /// As for [`unmap`](Self::unmap).
    pub fn unmap_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
        mut written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        let Tools { window, frames, cpu, steps } = tools;
        let plan = self.tree.plan_unmap(retried(range), steps, *window, *frames)?;
        finish_reporting(plan, *window, *frames, *cpu, &mut written)
    }

    /// As [`remap`](Self::remap), in a space [with hardware updates](Self::with_hardware_updates),
    /// and calls `written` for what may have been written to the old memory and is read-only now.
    ///
    /// A tracked leaf that stays tracked keeps its dirty state, as the state of its addresses, and
    /// is not reported: [`protect_reporting`](Self::protect_reporting) reports it later.
    ///
    /// # Errors
    /// As for [`remap`](Self::remap).
    ///
    /// # Safety
    /// As for [`remap`](Self::remap).
    pub unsafe fn remap_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Pa,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
        mut written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        self.of_whole_leaves(range, tools, |tree, Tools { window, frames, cpu, steps }| {
            let plan = tree.plan_remap(retried(range), to, change, steps, *window, *frames)?;
            finish_reporting(plan, *window, *frames, *cpu, &mut written)
        })
    }
}

impl SpacePart<'_> {
    /// Changes the attributes of a range, as [`AddressSpace::protect_reporting`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn protect_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
        written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        // SAFETY: the caller's.
        unsafe { self.space.protect_reporting(range, change, tools, written) }
    }

    /// Unmaps a range, as [`AddressSpace::unmap_reporting`] does.
    ///
    /// # Errors
    /// As there.
    pub fn unmap_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
        written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        self.space.unmap_reporting(range, tools, written)
    }

    /// Makes a mapped range translate to other memory, as [`AddressSpace::remap_reporting`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn remap_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Pa,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
        written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        // SAFETY: the caller's.
        unsafe { self.space.remap_reporting(range, to, change, tools, written) }
    }
}

/// Checks and applies a plan, and reports what was written.
pub(crate) fn apply_reporting<'b, W: TableWindow, F: FrameSource, C: Cpu>(
    plan: Plan<'b>,
    window: &mut W,
    frames: &mut F,
    cpu: &mut C,
    written: &mut impl FnMut(VaRange),
) -> Result<Applied<'b>, SpaceError> {
    match plan.check(window) {
        // SAFETY: as in `address_space::apply`.
        Ok(checked) => Ok(unsafe { checked.apply_reporting(window, cpu, written) }),
        Err((plan, refused)) => {
            plan.abandon(window, frames);
            Err(refused.into())
        }
    }
}

/// As [`apply_reporting`], and frees the tables that the plan removed.
fn finish_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
    plan: Plan<'_>,
    window: &mut W,
    frames: &mut F,
    cpu: &mut C,
    written: &mut impl FnMut(VaRange),
) -> Result<EditCounts, SpaceError> {
    Ok(apply_reporting(plan, window, frames, cpu, written)?.free(window, frames))
}

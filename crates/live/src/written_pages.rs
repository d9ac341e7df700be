//! Changes of a space that report which pages were written: dirty state by hardware.

use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::{HardwareUpdates, VaRange};

use crate::address_space::{AddressSpace, SpaceError, Tools, retried};
use crate::apply::EditCounts;
use crate::change::Change;
use crate::plan::Plan;

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
}

/// Checks and applies a plan, reports what was written, and frees the tables that it removed.
fn finish_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
    plan: Plan<'_>,
    window: &mut W,
    frames: &mut F,
    cpu: &mut C,
    written: &mut impl FnMut(VaRange),
) -> Result<EditCounts, SpaceError> {
    match plan.check(window) {
        Ok(checked) => {
            // SAFETY: as in `address_space::apply`.
            let applied = unsafe { checked.apply_reporting(window, cpu, written) };
            Ok(applied.free(window, frames))
        }
        Err((plan, refused)) => {
            plan.abandon(window, frames);
            Err(refused.into())
        }
    }
}

//! Unmapping all of a space.

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{FrameSource, Leaf, LeafIter, TableWindow};
use linmap_vmsa::VaRange;

use crate::address_space::{AddressSpace, SpaceError, Tools, apply};
use crate::apply::EditCounts;
use crate::checked_plan::Applied;
use crate::plan::Plan;
use crate::step::Step;
use crate::written_pages::apply_reporting;

impl AddressSpace {
    /// Unmaps everything with one invalidation of the ASID or VMID. After the invalidation, and
    /// before the tables are freed, calls `each` for every leaf below the root's entries: its frame
    /// can be reused. It is not called for blocks in the root itself. The ASID or VMID is
    /// invalidated even if nothing is mapped, so the root can be freed once no register holds it.
    ///
    /// # Errors
    /// As for [`LiveTree::plan_clear`](crate::LiveTree::plan_clear).
    pub fn clear<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        tools: &mut Tools<'_, W, F, C>,
        each: impl FnMut(Leaf),
    ) -> Result<EditCounts, SpaceError> {
        self.clear_by(tools, each, apply)
    }

    /// As [`clear`](Self::clear), in a space [with hardware updates](Self::with_hardware_updates),
    /// and calls `written` for what may have been written, blocks in the root included.
    ///
    /// # Errors
    /// As for [`clear`](Self::clear).
    pub fn clear_reporting<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        tools: &mut Tools<'_, W, F, C>,
        each: impl FnMut(Leaf),
        mut written: impl FnMut(VaRange),
    ) -> Result<EditCounts, SpaceError> {
        self.clear_by(tools, each, |plan, window, frames, cpu| {
            apply_reporting(plan, window, frames, cpu, &mut written)
        })
    }

    fn clear_by<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        tools: &mut Tools<'_, W, F, C>,
        mut each: impl FnMut(Leaf),
        apply: impl for<'b> FnOnce(Plan<'b>, &mut W, &mut F, &mut C) -> Result<Applied<'b>, SpaceError>,
    ) -> Result<EditCounts, SpaceError> {
        let geometry = self.geometry();
        let Tools { window, frames, cpu, steps } = tools;
        let plan = self.tree.plan_clear(steps, *window, *frames)?;
        let applied = apply(plan, *window, *frames, *cpu)?;
        for step in applied.steps() {
            if let Step::Free { va, table, level } = *step {
                // SAFETY: the plan removed the table from the tree and has not freed it. The window
                // reaches it, by the promise of the constructor.
                unsafe { LeafIter::new(geometry, table, level, va, *window) }.for_each(&mut each);
            }
        }
        let was_empty = applied.steps().is_empty();
        let mut counts = applied.free(*window, *frames);
        if was_empty {
            self.flush(*cpu);
            counts.invalidations += 1;
        }
        Ok(counts)
    }

    /// Removes all entries of the space from TLBs.
    pub fn flush<C: Cpu>(&self, cpu: &mut C) {
        cpu.dsb(Dsb::Ishst);
        cpu.tlbi(self.tree.asid().map_or(Tlbi::All, Tlbi::Asid));
        cpu.dsb(Dsb::Ish);
        cpu.isb();
    }
}

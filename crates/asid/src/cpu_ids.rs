//! One CPU's handle to an allocator: what the CPU runs by, and the switch to another space.

use crate::allocator::IdAllocator;
use crate::claims::Claim;
use crate::id_error::CpuError;
use crate::maintenance::Maintenance;
use crate::space_id::{SpaceId, Tag};

/// One CPU's handle to an [`IdAllocator`]. Dropping it allows a new one for the CPU.
#[derive(Debug)]
pub struct CpuIds<'a, const CPUS: usize> {
    ids: &'a IdAllocator<CPUS>,
    claim: &'a Claim,
}

impl<'a, const CPUS: usize> CpuIds<'a, CPUS> {
    /// Returns the handle of CPU `cpu`. Only that CPU may use it.
    ///
    /// # Errors
    /// [`CpuError::NoSuchCpu`], and [`CpuError::Claimed`] while the CPU's handle exists.
    pub fn new(ids: &'a IdAllocator<CPUS>, cpu: usize) -> Result<Self, CpuError> {
        Ok(Self { ids, claim: ids.claim(cpu)? })
    }

    /// Returns the identifier by which this CPU runs `space` from now on: write it to TTBR or VTTBR
    /// together with the root, with CnP = 0, then execute an ISB.
    ///
    /// `execute` must execute the requested maintenance on this CPU before it returns. While the
    /// generation holds, the switch does not call it: it takes no lock and costs one
    /// compare-and-swap.
    ///
    /// Mask interrupts from this call until the register is written: no other switch may run on
    /// this CPU in between.
    #[must_use = "the CPU counts as running by this identifier"]
    pub fn switch_to(&mut self, space: &SpaceId, execute: impl FnOnce(Maintenance)) -> u16 {
        let (active, tag) = (self.claim.active(), space.tag());
        // The order of these loads does not matter. Only this CPU stores anything but NONE in
        // `active`. So if the replacement succeeds, no rollover has come to this CPU since it ran
        // the last space, and the next one finds the new tag there and reserves it.
        if active != Tag::NONE && tag.generation() == self.ids.generation() && self.claim.replace(active, tag)
        {
            return tag.id();
        }
        let (tag, is_stale) = self.ids.run(self.claim, space);
        // A rollover may come here, or before the register is written. It reserves `tag` and not
        // what the register still holds, by which this CPU may fill its TLB until the write. So the
        // TLB is stale again, and the next switch invalidates it once more.
        execute(if is_stale { Maintenance::Invalidation } else { Maintenance::Barrier });
        tag.id()
    }

    /// Records that this CPU has left its space. Call it after TTBR or VTTBR names a root with a
    /// reserved identifier, and after an ISB. From the next rollover on, another space may get the
    /// identifier of the space that the CPU left.
    ///
    /// Without this call the CPU reserves the identifier of the space that it ran last. Call it
    /// before a CPU goes offline.
    pub fn leave(&mut self) {
        self.ids.leave(self.claim);
    }
}

impl<const CPUS: usize> Drop for CpuIds<'_, CPUS> {
    fn drop(&mut self) {
        self.claim.give_back();
    }
}

//! One CPU's part of an allocator: what it runs with, and the switch to another space.

use crate::allocator::IdAllocator;
use crate::claims::Claim;
use crate::id_error::CpuError;
use crate::maintenance::Maintenance;
use crate::space_id::{SpaceId, Tag};

/// One CPU's part of an [`IdAllocator`]. Dropping it gives it back.
#[derive(Debug)]
pub struct CpuIds<'a, const CPUS: usize> {
    ids: &'a IdAllocator<CPUS>,
    claim: &'a Claim,
}

impl<'a, const CPUS: usize> CpuIds<'a, CPUS> {
    /// Returns the part of CPU `cpu`, which only that CPU uses.
    ///
    /// # Errors
    /// [`CpuError::NoSuchCpu`], and [`CpuError::Claimed`] while the part is in use.
    pub fn new(ids: &'a IdAllocator<CPUS>, cpu: usize) -> Result<Self, CpuError> {
        Ok(Self { ids, claim: ids.claim(cpu)? })
    }

    /// Returns the identifier by which this CPU runs `space` from now on: write it to TTBR or VTTBR
    /// together with the root, with CnP = 0, then execute an ISB.
    ///
    /// `execute` executes what it is asked to, on this CPU, before this function returns. It is not
    /// called if the generation still holds, which costs one compare-and-swap and takes no lock.
    ///
    /// Nothing else that switches may run on this CPU from this call until the register is written:
    /// mask interrupts.
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

    /// This CPU has left its space: TTBR or VTTBR names a root with a reserved identifier, and an
    /// ISB has followed. From the next rollover on another space may have the identifier.
    ///
    /// Without it the CPU keeps the identifier of the space that it ran last, which costs nothing
    /// but that identifier. A CPU that goes offline leaves.
    pub fn leave(&mut self) {
        self.ids.leave(self.claim);
    }
}

impl<const CPUS: usize> Drop for CpuIds<'_, CPUS> {
    fn drop(&mut self) {
        self.claim.give_back();
    }
}

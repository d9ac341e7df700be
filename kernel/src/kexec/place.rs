//! Choosing the destinations of a payload, so that as little as possible has to be moved.

use linmap_kexec::{
    BOUNCE_MAX, Image, Initrd, PayloadPlacement, PlacementError, SEGMENT_ALIGN, fill_with_usable,
};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

use crate::kexec::allocations::{PayloadMemory, Pool};
use crate::kexec::error::KexecError;
use crate::kexec::options::LoadOptions;
use crate::kexec::payload::InMemory;
use crate::memory::long_lists::{REGIONS, with_scratch};
use crate::memory::physical::Memory;
use crate::memory::preserved::PreservedMemory;

/// Where destinations may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// In free memory of the pool.
    Free,
    /// In all memory that the payload may use. The move overwrites what the running kernel uses.
    Usable,
}

/// The destinations that were chosen.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The destination of each part.
    pub placed: PayloadPlacement,
    /// Where they are.
    pub domain: Domain,
    /// Whether the initrd stays where the boot loader loaded it.
    pub initrd_stays: bool,
}

/// What destinations are chosen for.
pub struct Request<'r> {
    /// The payload's image.
    pub image: &'r Image,
    /// Its initrd, if it has one.
    pub initrd: Option<InMemory>,
    /// The length of its device tree.
    pub dtb_len: u64,
    /// Its control frames, which can't be a destination.
    pub control: PaRange,
    /// Preserved memory, which can't be a destination.
    pub preserved: &'r PreservedMemory,
    /// How it is loaded.
    pub options: LoadOptions,
}

impl Request<'_> {
    /// Chooses destinations in free memory with the initrd in place, else with a copy of the
    /// initrd, else anywhere.
    ///
    /// # Errors
    /// [`KexecError::Placement`], of the first attempt.
    pub fn place(&self, memory: &mut PayloadMemory<'_>) -> Result<Place, KexecError> {
        let copied = self.initrd.map_or(Initrd::Absent, |initrd| Initrd::Len(initrd.at.len()));
        let may_stay = memory.pool == Pool::Machine && !self.options.scattered;
        let stays = self
            .initrd
            .filter(|initrd| may_stay && initrd.at.start.0.is_multiple_of(SEGMENT_ALIGN))
            .map(|initrd| Initrd::At(initrd.at));
        let mut first_error = None;
        for domain in [Domain::Free, Domain::Usable] {
            if domain == Domain::Usable && (self.options.scattered || memory.pool == Pool::CrashKernel) {
                break;
            }
            for initrd in [stays, Some(copied)].into_iter().flatten() {
                match self.lowest(memory, domain, initrd)? {
                    Ok(placed) => {
                        let initrd_stays = matches!(initrd, Initrd::At(_));
                        return Ok(Place { placed, domain, initrd_stays });
                    }
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
        }
        // There was at least one attempt.
        Err(first_error.map_or(KexecError::NoPayload("it was not placed"), KexecError::Placement))
    }

    /// Places the payload in the free ranges of `domain`.
    fn lowest(
        &self,
        memory: &mut PayloadMemory<'_>,
        domain: Domain,
        initrd: Initrd,
    ) -> Result<Result<PayloadPlacement, PlacementError>, KexecError> {
        let everywhere = memory.memory.everywhere();
        let place = |memblock: &Memblock<REGIONS>| {
            PayloadPlacement::lowest(memblock.free_ranges(everywhere), self.image, initrd, self.dtb_len)
        };
        if domain == Domain::Free {
            return Ok(place(memory.memblock()));
        }
        let Memory { memblock, firmware, .. } = &mut *memory.memory;
        let firmware = firmware.as_slice().iter().copied();
        let excluded = firmware.chain(self.preserved.ranges()).chain([self.control, memory.crash.range]);
        with_scratch(memblock, |usable, memblock| {
            fill_with_usable(usable, memblock, excluded)?;
            Ok(place(usable))
        })
    }
}

/// Allocates the buffer for moves that form circles: at most a quarter of free memory, at least a
/// page. `None` if not even a page is free.
pub fn allocate_bounce(memory: &mut PayloadMemory<'_>) -> Option<PaRange> {
    let everywhere = memory.memory.everywhere();
    let free: u64 = memory.memory.memblock.free_ranges(everywhere).map(PaRange::len).sum();
    let mut len = BOUNCE_MAX;
    while len * 4 > free && len > SEGMENT_ALIGN {
        len /= 2;
    }
    while len >= SEGMENT_ALIGN {
        if let Ok(start) = memory.alloc(len, SEGMENT_ALIGN) {
            return Some(PaRange::new(start, Pa(start.0 + len)));
        }
        len /= 2;
    }
    None
}

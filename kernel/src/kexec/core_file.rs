//! The core file that a crash kernel gets of this kernel: its header, and memory for its notes.

use arrayvec::ArrayVec;
use linmap_kexec::{CoreNotes, ElfCore, SEGMENT_ALIGN, VmcoreInfo};
use linmap_memblock::RegionError;
use linmap_vmsa::{Pa, PaRange, Va};

use crate::arch::cpu;
use crate::arch::geometry::geometry;
use crate::arch::image::{self, Image};
use crate::arch::per_cpu;
use crate::kexec::allocations::PayloadMemory;
use crate::kexec::error::KexecError;
use crate::kexec::segment::{Segment, Staged, whole_pages};
use crate::memory::long_lists::REGIONS;
use crate::memory::physical::Memory;

/// The core file of this kernel.
pub struct CoreFile {
    /// Where its header is in the crash kernel's memory, without the rest of the last page.
    pub header: PaRange,
    /// Where its notes will be, in this kernel's memory.
    notes: PaRange,
    /// The memory that it shows.
    memory: ArrayVec<PaRange, REGIONS>,
}

/// Allocates memory for the notes of all CPUs.
///
/// # Errors
/// [`KexecError::Memory`].
pub fn allocate_notes(memory: &mut Memory, image: Image) -> Result<PaRange, KexecError> {
    let cpus = per_cpu::known().count();
    let len = CoreNotes { info: info(memory, image) }.measure(cpus) as u64;
    let len = len.next_multiple_of(SEGMENT_ALIGN);
    let everywhere = memory.everywhere();
    let start = memory.memblock.alloc(len, SEGMENT_ALIGN, everywhere)?;
    Ok(PaRange::new(start, Pa(start.0 + len)))
}

impl CoreFile {
    /// Allocates memory for the header of a core file with its notes at `notes`.
    ///
    /// # Errors
    /// [`KexecError::CoreFile`], [`KexecError::Memory`], [`KexecError::Region`].
    pub fn allocate(
        memory: &mut PayloadMemory<'_>,
        image: Image,
        notes: PaRange,
    ) -> Result<Self, KexecError> {
        let crash = memory.crash.range;
        let without_crash = |range: PaRange| {
            [
                PaRange::new(range.start, range.end.min(crash.start)),
                PaRange::new(range.start.max(crash.end), range.end),
            ]
        };
        let mut shown = ArrayVec::new();
        for range in memory.memory.mapped().flat_map(without_crash).filter(|range| range.start < range.end) {
            let full = |_| RegionError::Full { list: "core file", range, capacity: REGIONS };
            shown.try_push(range).map_err(full)?;
        }
        let mut core = Self { header: PaRange::default(), notes, memory: shown };
        let len = core.elf(memory.memory, image).measure()? as u64;
        let start = memory.alloc(len.next_multiple_of(SEGMENT_ALIGN), SEGMENT_ALIGN)?;
        core.header = PaRange::new(start, Pa(start.0 + len));
        Ok(core)
    }

    /// Writes the header and clears the notes, which are written in a crash.
    ///
    /// # Errors
    /// [`KexecError::CoreFile`].
    pub fn write(&self, memory: &Memory, image: Image) -> Result<Segment, KexecError> {
        // SAFETY: memory that was allocated for the notes, and that nothing else refers to.
        unsafe { memory.owned_bytes(self.notes) }.as_mut().fill(0);
        let pages = whole_pages(self.header);
        // SAFETY: memory that was allocated for the header, and that nothing else refers to.
        let mut buffer = unsafe { memory.owned_bytes(pages) };
        let buffer = buffer.as_mut();
        buffer.fill(0);
        self.elf(memory, image).write(buffer)?;
        cpu::clean_and_invalidate(memory.layout.linear(pages.start), pages.len());
        Ok(Segment {
            name: "elfcorehdr",
            destination: pages,
            staged: Staged::InPlace,
            len: self.header.len(),
            zero: 0,
        })
    }

    fn elf(&self, memory: &Memory, image: Image) -> ElfCore<'_> {
        ElfCore {
            memory: &self.memory,
            linear_offset: memory.layout.offset(),
            image: image.range(),
            image_va: image.va(),
            notes: self.notes,
        }
    }
}

/// What a debugger has to know of this kernel.
pub fn info(memory: &Memory, image: Image) -> VmcoreInfo<'static> {
    VmcoreInfo {
        release: concat!("linmap-", env!("CARGO_PKG_VERSION")),
        granule: geometry().granule(),
        va_bits: geometry().va_bits().into(),
        root: Va(image.swapper().0.wrapping_add(image.offset())),
        memstart: memory.layout.region_memstart(),
        image_offset: image.offset(),
        kaslr_offset: image::offset_from_link(),
    }
}

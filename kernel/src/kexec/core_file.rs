//! What a crash kernel is shown of this one: the header of its core file, and room for the notes.

use arrayvec::ArrayVec;
use linmap_kexec::{CoreNotes, ElfCore, SEGMENT_ALIGN, VmcoreInfo};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

use super::command::KexecError;
use super::load::Loader;
use super::loaded::{self, Segment, Source};
use super::put::whole_pages;
use crate::arch::cpu;
use crate::arch::percpu;
use crate::memory::layout::{GEOMETRY, IMAGE};
use crate::memory::machine::{Machine, REGIONS};

/// The core file of this kernel.
pub struct CoreFile {
    /// Where its header is, in the crash kernel's memory, exactly as long as it is.
    pub header: PaRange,
    /// Where its notes are going to be, in this kernel's memory.
    pub notes: PaRange,
    memory: ArrayVec<PaRange, REGIONS>,
}

impl CoreFile {
    /// Takes memory for header and notes.
    ///
    /// # Errors
    /// [`KexecError::CoreFile`], [`KexecError::Memory`], [`KexecError::Region`].
    pub fn take(loader: &mut Loader<'_, '_>) -> Result<Self, KexecError> {
        let mut memory = Memblock::<REGIONS>::new();
        for range in loader.machine.mapped() {
            memory.add(range)?;
        }
        memory.reserve(loader.machine.crash.range)?;
        let everywhere = PaRange::new(Pa(0), memory.memory_end());
        let memory = memory.free_ranges(everywhere).take(REGIONS).collect();

        let cpus = percpu::known().count();
        let notes_len = CoreNotes { info: info(loader.machine) }.measure(cpus) as u64;
        let notes_len = notes_len.next_multiple_of(SEGMENT_ALIGN);
        let everywhere = PaRange::new(Pa(0), loader.machine.memblock.memory_end());
        let notes = loader.machine.memblock.alloc(notes_len, SEGMENT_ALIGN, everywhere)?;
        loader.notes = PaRange::new(notes, Pa(notes.0 + notes_len));
        let mut core = Self { header: PaRange::default(), notes: loader.notes, memory };
        let len = core.elf(loader.machine).measure()? as u64;
        let start = loader.pool.alloc(loader.machine, len.next_multiple_of(SEGMENT_ALIGN), SEGMENT_ALIGN)?;
        core.header = PaRange::new(start, Pa(start.0 + len));
        Ok(core)
    }

    /// Writes the header, and empty notes: those of a crash are written when it comes.
    ///
    /// # Errors
    /// [`KexecError::CoreFile`].
    pub fn write(&self, loader: &Loader<'_, '_>) -> Result<Segment, KexecError> {
        let machine = &*loader.machine;
        // SAFETY: memory that was taken for the notes, which nothing else refers to.
        unsafe { machine.bytes_mut(self.notes) }.fill(0);
        let pages = whole_pages(self.header);
        // SAFETY: memory that was taken for the header, which nothing else refers to.
        let buffer = unsafe { machine.bytes_mut(pages) };
        buffer.fill(0);
        self.elf(machine).write(buffer)?;
        cpu::clean_and_invalidate(machine.layout.linear(pages.start), pages.len());
        Ok(Segment {
            name: "elfcorehdr",
            destination: pages,
            source: Source::InPlace,
            len: self.header.len(),
            zero: 0,
            digest: loaded::digest(machine, pages),
        })
    }

    fn elf(&self, machine: &Machine<'_>) -> ElfCore<'_> {
        ElfCore {
            memory: &self.memory,
            linear_offset: machine.layout.offset(),
            image: machine.image.range(),
            image_va: IMAGE,
            notes: self.notes,
        }
    }
}

/// What a debugger has to know of this kernel.
pub fn info(machine: &Machine<'_>) -> VmcoreInfo<'static> {
    VmcoreInfo {
        release: concat!("linmap-", env!("CARGO_PKG_VERSION")),
        granule: GEOMETRY.granule(),
        va_bits: GEOMETRY.va_bits().into(),
        memstart: machine.layout.memstart(),
        image_offset: IMAGE.0.wrapping_sub(machine.image.range().start.0),
    }
}

//! What the kernel knows of the machine it runs on.

use core::slice;

use arrayvec::ArrayVec;
use linmap::Layout;
use linmap::features::Features;
use linmap_kexec::{Archive, ArchiveError};
use linmap_memblock::Memblock;
use linmap_table::{Fixmap, OffsetWindow, Reserved};
use linmap_vmsa::{Geometry, Level, Pa, PaRange};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::psci::Psci;
use crate::boot::entry::{Entered, Image};
use crate::kexec::command::{Loaded, TakenRanges};
use crate::kexec::crash::CrashKernel;
use crate::memory::kept::KeptRanges;
use crate::memory::layout::MAX_MAPPINGS;
use crate::memory::live::Live;
use crate::smp::cpus::Cpus;

/// Regions that memblock has room for, in each of its lists.
pub const REGIONS: usize = 256;

/// Why there is no archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MachineError {
    /// The initrd's memory is not mapped.
    #[error("the initrd at {initrd} does not lie in one mapped range of memory")]
    InitrdNotMapped {
        /// Where /chosen has it.
        initrd: PaRange,
    },
    /// The initrd and the running kernel claim the same memory.
    #[error("the initrd at {initrd} overlaps the kernel image at {image}")]
    InitrdOverImage {
        /// Where /chosen has it.
        initrd: PaRange,
        /// Where the image is.
        image: PaRange,
    },
    /// The initrd is no archive.
    #[error("archive: {0}")]
    Archive(#[from] ArchiveError),
}

impl MachineError {
    /// The error's kind in a line for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InitrdNotMapped { .. } | Self::InitrdOverImage { .. } => "initrd",
            Self::Archive(_) => "archive",
        }
    }
}

/// The machine once its linear map is live.
pub struct Machine<'m> {
    /// How we were entered.
    pub entered: Entered,
    /// How many kexecs of linmap into itself led here.
    pub generation: u64,
    /// The boot CPU.
    pub features: Features,
    /// The running image.
    pub image: Image,
    /// What TTBR0 and TCR hold.
    pub reserved: Reserved,
    /// How to switch off.
    pub psci: Option<Psci>,
    /// The device tree blob as the boot loader gave it.
    pub dtb: &'static [u8],
    /// The boot command line.
    pub command_line: &'static str,
    /// The boot loader's initrd, which is our archive.
    pub initrd: Option<PaRange>,
    /// Memory.
    pub memblock: &'m mut Memblock<REGIONS>,
    /// Single frames, for a moment.
    pub fixmap: &'m mut Fixmap,
    /// All CPUs.
    pub cpus: Cpus,
    /// Where memory is mapped.
    pub layout: Layout,
    /// The memory that there was at boot and that may be mapped.
    pub hardware: ArrayVec<PaRange, MAX_MAPPINGS>,
    /// The linear map in use.
    pub live: Live,
    /// Memory that no payload may have: what the firmware reserves.
    pub firmware: ArrayVec<PaRange, REGIONS>,
    /// The console's first register.
    pub uart: Option<Pa>,
    /// The payload that waits to be entered.
    pub loaded: Option<Loaded>,
    /// What was taken from memblock for that.
    pub taken: TakenRanges,
    /// The memory for a crash kernel, and what waits there.
    pub crash: CrashKernel,
    /// Memory that goes through hand-overs untouched.
    pub kept: KeptRanges,
}

impl Machine<'_> {
    /// The shape of the kernel's own half.
    pub fn geometry(&self) -> Geometry {
        self.layout.geometry()
    }

    /// Tables by their linear addresses, for reading: all of them lie in memory that the linear map has.
    pub fn tables(&self) -> OffsetWindow {
        // SAFETY: every table frame is in mapped memory, and nothing holds a Rust reference to one.
        unsafe { OffsetWindow::new(self.layout.offset()) }
    }

    /// Memory that is mapped, ascending.
    pub fn mapped(&self) -> impl DoubleEndedIterator<Item = PaRange> {
        self.memblock.mappable(self.geometry().entry_bytes(Level::L3))
    }

    /// The first page of `range`, memory that is mapped, that the MMU does not let this kernel read just now: the user may
    /// have made it invalid.
    pub fn first_unreadable(&self, range: PaRange) -> Option<Pa> {
        self.pages(range).find(|page| cpu::translate(self.layout.linear(*page)).is_err())
    }

    /// The same for writing: the user may have made it read-only too.
    pub fn first_unwritable(&self, range: PaRange) -> Option<Pa> {
        self.pages(range).find(|page| cpu::translate_write(self.layout.linear(*page)).is_err())
    }

    fn pages(&self, range: PaRange) -> impl Iterator<Item = Pa> {
        let page = self.geometry().granule().bytes();
        (range.start.0..range.end.0).step_by(page as usize).map(Pa)
    }

    /// The bytes of `range`.
    ///
    /// # Safety
    /// The linear map has all of it, and nothing writes to it as long as they are used.
    pub unsafe fn bytes(&self, range: PaRange) -> &[u8] {
        // SAFETY: the caller's.
        unsafe { self.bytes_for_ever(range) }
    }

    /// The bytes of `range`, which stay.
    ///
    /// # Safety
    /// The linear map has all of it, and nothing ever writes to it.
    pub unsafe fn bytes_for_ever(&self, range: PaRange) -> &'static [u8] {
        let start = self.layout.linear(range.start).0 as *const u8;
        // SAFETY: the caller's.
        unsafe { slice::from_raw_parts(start, range.len() as usize) }
    }

    /// The bytes of `range`, to be written.
    ///
    /// # Safety
    /// The linear map has all of it, writable, and nothing else refers to it as long as they are used.
    pub unsafe fn bytes_mut<'b>(&self, range: PaRange) -> &'b mut [u8] {
        let start = self.layout.linear(range.start).0 as *mut u8;
        // SAFETY: the caller's.
        unsafe { slice::from_raw_parts_mut(start, range.len() as usize) }
    }

    /// The archive that the boot loader passed as initrd.
    ///
    /// # Errors
    /// [`MachineError`] when it does not lie in mapped memory, or is no archive.
    pub fn archive(&self) -> Result<Option<Archive<'static>>, MachineError> {
        let Some(range) = self.initrd else { return Ok(None) };
        if !self.mapped().any(|mapped| mapped.covers(range)) {
            return Err(MachineError::InitrdNotMapped { initrd: range });
        }
        if range.overlaps(self.image.range()) {
            return Err(MachineError::InitrdOverImage { initrd: range, image: self.image.range() });
        }
        let start = self.layout.linear(range.start).0 as *const u8;
        // SAFETY: the linear map has all of it, memblock reserved it from the start, and nothing writes to it: it shares
        // no byte with the image.
        let bytes = unsafe { slice::from_raw_parts(start, range.len() as usize) };
        Ok(Some(Archive::parse(bytes)?))
    }

    /// Switches the machine off.
    pub fn power_off(&self) -> ! {
        power_off(self.psci)
    }
}

/// Switches the machine off, or stops when there is no way to.
pub fn power_off(psci: Option<Psci>) -> ! {
    if let Some(psci) = psci {
        psci.system_off();
    }
    cpu::halt()
}

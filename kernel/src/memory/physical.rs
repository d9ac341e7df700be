//! Physical memory: which memory exists, who owns it, and how the kernel reaches it.

use core::ptr::{self, NonNull};
use core::slice;

use linmap::{ChangedRanges, Layout};
use linmap_memblock::Memblock;
use linmap_table::Fixmap;
use linmap_vmsa::{Geometry, Level, Pa, PaRange};

use crate::arch::cpu;
use crate::arch::image::Image;
use crate::memory::long_lists::{REGIONS, RangeList};
use crate::memory::owned_bytes::OwnedBytes;
use crate::memory::table_window::LiveTables;

/// How many boundaries between ranges of different protection the record of changes has room for.
pub const CHANGED: usize = 512;

/// The memory of the machine, once its linear map is live.
#[derive(Debug)]
pub struct Memory {
    /// Which memory exists, and who owns it.
    pub memblock: Memblock<REGIONS>,
    /// Slots for single frames.
    pub fixmap: Fixmap,
    /// Where memory is mapped.
    pub layout: Layout,
    /// The kernel image. The linear map has its text, read-only, and not its data.
    pub image: Image,
    /// Protections that differ from those that the map was built with.
    pub changed: ChangedRanges<CHANGED>,
    /// The memory at boot that may be mapped.
    pub hardware: RangeList,
    /// Memory that the firmware reserves, where no payload may be.
    pub firmware: RangeList,
}

impl Memory {
    /// The geometry of the kernel's half.
    pub fn geometry(&self) -> Geometry {
        self.layout.geometry()
    }

    /// All physical addresses up to the end of memory.
    pub fn everywhere(&self) -> PaRange {
        PaRange::new(Pa(0), self.memblock.memory_end())
    }

    /// All tables, for reading.
    pub fn tables(&self) -> LiveTables {
        // SAFETY: the layout is that of the live map, and the image is where it says.
        unsafe { LiveTables::new(self.layout, self.image) }
    }

    /// Memory that is mapped, ascending.
    pub fn mapped(&self) -> impl DoubleEndedIterator<Item = PaRange> {
        self.memblock.mappable(self.geometry().entry_bytes(Level::L3))
    }

    /// Whether one mapped range covers `range`.
    pub fn is_mapped(&self, range: PaRange) -> bool {
        self.mapped().any(|mapped| mapped.covers(range))
    }

    /// The first page of `range`, mapped memory, that the MMU does not let the kernel read: the
    /// user may have made it invalid.
    pub fn first_unreadable(&self, range: PaRange) -> Option<Pa> {
        self.pages(range).find(|page| cpu::translate(self.layout.linear(*page)).is_err())
    }

    /// The first page of `range`, mapped memory, that the MMU does not let the kernel write: the
    /// user may have made it invalid or read-only.
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
    /// The linear map has all of it, and nothing writes to it as long as the bytes are used.
    pub unsafe fn bytes(&self, range: PaRange) -> &[u8] {
        // SAFETY: the caller's promise.
        unsafe { self.constant_bytes(range) }
    }

    /// The bytes of `range`, which never change.
    ///
    /// # Safety
    /// The linear map has all of it, and nothing ever writes to it.
    pub unsafe fn constant_bytes(&self, range: PaRange) -> &'static [u8] {
        let start = ptr::with_exposed_provenance(self.layout.linear(range.start).0 as usize);
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(start, range.len() as usize) }
    }

    /// The bytes of `range`, with the caller as their owner.
    ///
    /// # Safety
    /// The linear map has all of it, writable, and nothing else refers to it as long as the bytes
    /// are used.
    pub unsafe fn owned_bytes(&self, range: PaRange) -> OwnedBytes {
        let start = ptr::with_exposed_provenance_mut(self.layout.linear(range.start).0 as usize);
        // SAFETY: the linear map is in the upper half of the address space, far from address 0. The
        // rest is the caller's promise; memory always has a value.
        unsafe { OwnedBytes::new(NonNull::new_unchecked(start), range.len() as usize) }
    }
}

//! Where the kernel reaches the tables of its half.

use core::ptr::NonNull;

use linmap::Layout;
use linmap_table::TableWindow;
use linmap_table::cpu::Cpu;
use linmap_vmsa::{Level, Pa, PaRange, Va};

use crate::arch::cpu::ThisCpu;
use crate::arch::image::Image;

/// Tables by the addresses at which they are writable: those in the image by the image's own
/// mapping, the only one that its data has; all others by the linear map.
#[derive(Clone, Copy, Debug)]
pub struct LiveTables {
    linear: u64,
    image: PaRange,
    /// VA − PA of the image.
    image_offset: u64,
}

impl LiveTables {
    /// The tables of a kernel whose memory is mapped at `layout`, and whose image is `image`.
    ///
    /// # Safety
    /// It is so.
    pub unsafe fn new(layout: Layout, image: Image) -> Self {
        Self { linear: layout.offset(), image: image.range(), image_offset: image.offset() }
    }
}

// SAFETY: every table lies in the image's data or in memory that is reserved for tables. Neither is
// ever made invalid or read-only, so that the frame is writable at one of the two addresses, always
// the same. No Rust reference leads to a table.
unsafe impl TableWindow for LiveTables {
    #[inline]
    unsafe fn open(&mut self, _level: Level, table: Pa) -> NonNull<u64> {
        let offset = if self.image.contains(table) { self.image_offset } else { self.linear };
        // SAFETY: the caller's: a table of the image or in memory, which is mapped at this address.
        unsafe { ThisCpu.reach(Va(table.0.wrapping_add(offset))) }
    }

    #[inline]
    fn close(&mut self, _level: Level) {}
}

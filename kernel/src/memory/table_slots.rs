//! Tables as they are verified: through the fixmap, which does not depend on what is verified.

use core::ptr::NonNull;

use linmap_table::cpu::Cpu;
use linmap_table::{Fixmap, TableWindow};
use linmap_vmsa::{Attributes, Level, Pa, Va};

use crate::arch::cpu::ThisCpu;
use crate::arch::image::Image;
use crate::arch::layout::slot;

/// Tables through one fixmap slot a level. Tables in the image, of which the fixmap's own is one,
/// are read in the image's mapping, so that no slot is in use while that table is read.
#[derive(Debug)]
pub struct TableSlots<'f> {
    fixmap: &'f mut Fixmap,
    image: Image,
}

/// The slot for tables at `level`.
fn slot_of(level: Level) -> usize {
    slot::TABLES + level.above_pages() as usize
}

impl<'f> TableSlots<'f> {
    /// Returns the window, or the number of a slot that is in use. None of them is unless the table
    /// was damaged.
    pub fn new(fixmap: &'f mut Fixmap, image: Image) -> Result<Self, usize> {
        match (slot::TABLES..slot::TABLES + slot::TABLE_LEVELS).find(|slot| !fixmap.is_free(*slot)) {
            Some(slot) => Err(slot),
            None => Ok(Self { fixmap, image }),
        }
    }
}

// SAFETY: a slot maps its frame until it is closed. The image's mapping has the tables in the image
// readable and writable for good. No Rust reference leads to a table.
unsafe impl TableWindow for TableSlots<'_> {
    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        if self.image.range().contains(table) {
            return ThisCpu.reach(Va(table.0.wrapping_add(self.image.offset())));
        }
        self.fixmap.map(&mut ThisCpu, slot_of(level), table, Attributes::KERNEL_DATA)
    }

    fn close(&mut self, level: Level) {
        if !self.fixmap.is_free(slot_of(level)) {
            self.fixmap.clear(&mut ThisCpu, slot_of(level));
        }
    }
}

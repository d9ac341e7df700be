//! Where the tables of the live tree may be, by what memblock and the owners of memory say.

use core::cell::Cell;

use arrayvec::ArrayVec;
use linmap_kexec::MAX_PRESERVED;
use linmap_memblock::Memblock;
use linmap_vmsa::{Level, Pa, PaRange, Va};

use crate::arch::image::Image;
use crate::arch::layout::GRANULE;
use crate::memory::long_lists::REGIONS;
use crate::memory::reservations::RESERVATIONS;

const PAGE: u64 = GRANULE.bytes();

/// Reserved memory whose owner is known and keeps no tables there: what the user has reserved or
/// preserved, and the memory of a crash kernel.
pub type OwnedRanges = ArrayVec<PaRange, { RESERVATIONS + MAX_PRESERVED + 1 }>;

/// The frames that may be tables of the live tree: those of the image that `entry.S` used, and
/// frames that memblock has reserved and that no other owner has.
#[derive(Debug)]
pub struct TableMemory<'t> {
    image: Image,
    memblock: &'t Memblock<REGIONS>,
    owned: &'t [PaRange],
    /// Frames in stock for tables to come.
    stock: &'t [Pa],
    /// The range around the last frame that was looked up, in which all frames may be tables.
    /// Tables are allocated side by side.
    around: Cell<PaRange>,
}

impl<'t> TableMemory<'t> {
    /// Returns the frames for tables of `memblock`, apart from `owned` memory and `stock`.
    pub fn new(image: Image, memblock: &'t Memblock<REGIONS>, owned: &'t [PaRange], stock: &'t [Pa]) -> Self {
        Self { image, memblock, owned, stock, around: Cell::new(PaRange::default()) }
    }

    /// Whether `frame` may be the live table at `level` that translates from `va` on.
    pub fn has(&self, va: Va, level: Level, frame: Pa) -> bool {
        if let Some(table) = self.image.early_table(va, level) {
            return frame == table;
        }
        if self.around.get().contains(frame) {
            return true;
        }
        match self.look_up(frame) {
            Some(around) => {
                self.around.set(around);
                true
            }
            None => false,
        }
    }

    /// Returns the range around `frame` in which all frames may be tables.
    fn look_up(&self, frame: Pa) -> Option<PaRange> {
        let holds = |range: &PaRange| range.contains(frame);
        let reserved = *self.memblock.reserved().iter().find(|range| holds(range))?;
        let mapped = self.memblock.mappable(PAGE).find(holds)?;
        let mut around = reserved.intersection(mapped).align_inward(PAGE);
        let page = |frame: &Pa| PaRange::new(*frame, Pa(frame.0 + PAGE));
        let others = self.owned.iter().copied().chain(self.stock.iter().map(page));
        for other in others
            .chain([self.image.range(), self.memblock.storage().unwrap_or_default()])
            .filter(|other| !other.is_empty())
        {
            if other.end <= frame {
                around.start = around.start.max(other.end);
            } else {
                around.end = around.end.min(other.start);
            }
        }
        holds(&around).then_some(around)
    }
}

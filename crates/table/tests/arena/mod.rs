//! Memory of the host for the trees of the tests.

use std::collections::BTreeSet;
use std::ptr::NonNull;

use linmap_table::{FrameSource, OffsetWindow, OutOfFrames, TableWindow};
use linmap_vmsa::{Granule, Level, Pa};

/// Host memory that stands for RAM from physical address `RAM` on, every byte poisoned.
pub struct Arena {
    memory: Vec<u64>,
    granule: u64,
    pub free: BTreeSet<u64>,
    pub allowed: usize,
}

pub const RAM: u64 = 0x4000_0000;

impl Arena {
    pub fn new(granule: Granule, frames: u64) -> Self {
        let granule = granule.bytes();
        let memory = vec![0xdead_beef_dead_beef; (frames * granule / 8) as usize];
        let free = (0..frames).map(|i| RAM + i * granule).collect();
        Self { memory, granule, free, allowed: usize::MAX }
    }

    pub fn window(&mut self) -> OffsetWindow {
        let address = self.memory.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: every frame the arena hands out lies in `memory` at this offset, and `memory`
        // lives and is not touched otherwise as long as the arena.
        unsafe { OffsetWindow::new(address.wrapping_sub(RAM)) }
    }
}

// SAFETY: frames leave the set when handed out and come back when freed; all are multiples of the
// granule from `RAM`.
unsafe impl FrameSource for Arena {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let none = OutOfFrames { wanted: self.granule, largest_free: 0 };
        self.allowed = self.allowed.checked_sub(1).ok_or(none)?;
        self.free.pop_last().map(Pa).ok_or(none)
    }

    fn free(&mut self, frame: Pa) {
        assert!(self.free.insert(frame.0), "frame {frame} was freed twice");
    }
}

/// A window with one slot a level, as a fixmap has it.
pub struct OneSlotALevel {
    window: OffsetWindow,
    pub open: [bool; 5],
}

impl OneSlotALevel {
    pub fn new(window: OffsetWindow) -> Self {
        Self { window, open: [false; 5] }
    }
}

// SAFETY: the pointers are those of the inner window.
unsafe impl TableWindow for OneSlotALevel {
    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let open = &mut self.open[level.above_pages() as usize];
        assert!(!std::mem::replace(open, true), "a table is open at {level:?}");
        self.window.open(level, table)
    }

    fn close(&mut self, level: Level) {
        assert!(
            std::mem::take(&mut self.open[level.above_pages() as usize]),
            "no table is open at {level:?}"
        );
        self.window.close(level);
    }
}

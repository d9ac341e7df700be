//! Host memory that holds the tables.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

use linmap_table::{FrameSource, OffsetWindow, OutOfFrames};
use linmap_vmsa::{Granule, Pa};

/// The physical address of the arena's first frame. No memory that a map covers reaches it.
const FIRST: u64 = 1 << 41;

/// Frames for tables, in host memory.
pub struct Arena {
    memory: *mut u8,
    layout: Layout,
    granule: u64,
    free: Vec<Pa>,
    frames: u64,
    /// How many frames may still be allocated.
    pub left: u64,
}

impl Arena {
    pub fn new(granule: Granule, frames: u64) -> Self {
        let granule = granule.bytes();
        let layout = Layout::from_size_align((frames * granule) as usize, granule as usize)
            .expect("an arena of some megabytes");
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        memory.expose_provenance();
        let free = (0..frames).map(|nth| Pa(FIRST + nth * granule)).collect();
        Self { memory, layout, granule, free, frames, left: u64::MAX }
    }

    pub fn window(&self) -> OffsetWindow {
        let address = self.memory.addr() as u64;
        // SAFETY: every frame that the arena hands out lies in its memory at this offset, and
        // nothing else accesses that memory as long as the arena lives.
        unsafe { OffsetWindow::new(address.wrapping_sub(FIRST)) }
    }

    /// How many frames are handed out.
    pub fn out(&self) -> u64 {
        self.frames - self.free.len() as u64
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and windows are not used any more.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

// SAFETY: a frame leaves the list when it is handed out and returns when it is freed.
unsafe impl FrameSource for Arena {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let none = OutOfFrames { wanted: self.granule, largest_free: 0 };
        self.left = self.left.checked_sub(1).ok_or(none)?;
        self.free.pop().ok_or(none)
    }

    unsafe fn free(&mut self, frame: Pa) {
        assert!(frame.0 >= FIRST && frame.0.is_multiple_of(self.granule), "{frame} is not a frame");
        assert!(!self.free.contains(&frame), "{frame} is freed twice");
        self.free.push(frame);
    }
}

//! Frames for tables, handed out and taken back.

use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Geometry, Pa};

use super::frames::{BYTES, Frames};

/// Frames for tables. Their content is what the map before left in them.
pub struct Host {
    pub frames: Frames,
    granule: u64,
    free: Vec<Pa>,
    next: u64,
    /// How many frames were handed out at once since they were counted anew.
    most: u64,
}

impl Host {
    pub fn new() -> Self {
        Self { frames: Frames::new(), granule: 0, free: Vec::new(), next: 0, most: 0 }
    }

    /// Takes all frames back. From now on they have the size of `geometry`, and lie as high as its
    /// descriptors reach. What a map covers does not matter to the tables.
    pub fn reset(&mut self, geometry: Geometry) {
        self.granule = geometry.granule().bytes();
        self.free.clear();
        self.frames.first = if geometry.pa_bits() == 52 { 0xb_4002 << 32 } else { 1 << 33 };
        self.next = self.frames.first;
    }

    /// A frame whose entries are all invalid.
    pub fn cleared(&mut self) -> Pa {
        let frame = self.alloc().expect("room for a frame");
        // SAFETY: the frame lies in the memory, and nothing refers to it.
        unsafe { self.frames.pointer(frame).cast::<u8>().write_bytes(0, self.granule as usize) };
        frame
    }

    /// Begins to count anew how many frames are handed out at once.
    pub fn forget_most(&mut self) {
        self.most = self.out();
    }

    /// How many frames were handed out at once since then.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// How many frames are handed out.
    pub fn out(&self) -> u64 {
        (self.next - self.frames.first) / self.granule - self.free.len() as u64
    }
}

// SAFETY: a frame is new, or returns from the list when it is handed out again.
unsafe impl FrameSource for Host {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        if let Some(frame) = self.free.pop() {
            self.most = self.most.max(self.out());
            return Ok(frame);
        }
        let frame = Pa(self.next);
        if frame.0 + self.granule > self.frames.first + BYTES {
            return Err(OutOfFrames { wanted: self.granule, largest_free: 0 });
        }
        self.next += self.granule;
        self.most = self.most.max(self.out());
        Ok(frame)
    }

    unsafe fn free(&mut self, frame: Pa) {
        assert!(!self.free.contains(&frame), "{frame} is freed twice");
        self.free.push(frame);
    }
}

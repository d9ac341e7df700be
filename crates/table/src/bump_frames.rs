//! Frames one after the other, for the time before there is an allocator.

use linmap_vmsa::{Geometry, Pa, PaRange};

use crate::frames::{FrameSource, OutOfFrames};

/// The frames of a range of memory, handed out one after the other.
///
/// A frame that is given back is used again only if it was the last one handed out: a failed build
/// gives its frames back in that order.
#[derive(Debug)]
pub struct BumpFrames {
    left: PaRange,
    /// What was passed over to align consecutive frames, just below them.
    passed_over: PaRange,
    frame: u64,
}

impl BumpFrames {
    /// Returns the whole frames of `memory`, each one granule of `geometry`, without frame 0.
    ///
    /// # Safety
    /// The memory is free, and only this value hands it out.
    pub const unsafe fn new(memory: PaRange, geometry: Geometry) -> Self {
        let frame = geometry.page_bytes();
        let mut left = memory.align_inward(frame);
        // No table is in frame 0: by an identity map its address is the null pointer.
        if left.start.0 == 0 && left.end.0 > 0 {
            left.start.0 = frame;
        }
        Self { left, passed_over: PaRange::new(left.start, left.start), frame }
    }

    /// Returns what is left.
    pub const fn left(&self) -> PaRange {
        self.left
    }
}

// SAFETY: by the promise of `new` the frames are free and nobody else's. Each is handed out once,
// aligned, unless it was given back.
unsafe impl FrameSource for BumpFrames {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let Self { left, frame, .. } = self;
        if left.len() < *frame {
            return Err(OutOfFrames { wanted: *frame, largest_free: left.len() });
        }
        let first = left.start;
        left.start.0 += *frame;
        Ok(first)
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        let left = self.left;
        let first = left.start.0.checked_next_multiple_of(bytes).map(Pa);
        let end = first.and_then(|first| first.0.checked_add(bytes)).filter(|end| *end <= left.end.0);
        let (Some(first), Some(end)) = (first, end) else {
            return Err(OutOfFrames { wanted: bytes, largest_free: left.len() });
        };
        self.passed_over = PaRange::new(left.start, first);
        self.left.start = Pa(end);
        Ok(first)
    }

    unsafe fn free(&mut self, frame: Pa) {
        if frame.0.wrapping_add(self.frame) == self.left.start.0 {
            self.left.start = frame;
            if frame == self.passed_over.end {
                self.left.start = self.passed_over.start;
            }
        }
    }
}

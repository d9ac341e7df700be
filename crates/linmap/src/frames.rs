//! Table frames from memblock.

use linmap_memblock::{AllocError, Memblock};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Geometry, Pa, PaRange};

/// Memblock as a source of table frames: one granule each, from the top of memory down.
#[derive(Debug)]
pub struct MemblockFrames<'m, const N: usize> {
    memblock: &'m mut Memblock<N>,
    bytes: u64,
    limit: PaRange,
}

impl<'m, const N: usize> MemblockFrames<'m, N> {
    /// Frames for tables of shape `geometry`, anywhere in `memblock`.
    pub fn new(memblock: &'m mut Memblock<N>, geometry: Geometry) -> Self {
        let limit = PaRange::new(Pa(0), memblock.memory_end());
        Self { memblock, bytes: geometry.granule().bytes(), limit }
    }
}

// SAFETY: memblock reserves what it hands out, aligned as asked, and never hands out frame 0.
unsafe impl<const N: usize> FrameSource for MemblockFrames<'_, N> {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.memblock.alloc(self.bytes, self.bytes, self.limit).map_err(|error| OutOfFrames {
            wanted: self.bytes,
            largest_free: match error {
                AllocError::NoSpace { largest, .. } => largest,
                AllocError::Invalid { .. } | AllocError::Regions(_) => 0,
            },
        })
    }

    fn free(&mut self, frame: Pa) {
        let range = PaRange::new(frame, Pa(frame.0 + self.bytes));
        // Memblock refuses only a frame it did not hand out, or one whose return would need one more region than it has
        // room for; such a frame stays reserved, which harms nobody.
        let _ = self.memblock.free(range);
    }
}

//! Table frames from memblock.

use arrayvec::ArrayVec;
use linmap_memblock::{AllocError, Memblock};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Geometry, Pa, PaRange};

/// Memblock as a source of table frames: one granule each, from the top of memory down.
#[derive(Debug)]
pub struct MemblockFrames<'m, const N: usize> {
    memblock: &'m mut Memblock<N>,
    bytes: u64,
}

impl<'m, const N: usize> MemblockFrames<'m, N> {
    /// Frames for tables of shape `geometry`, anywhere in `memblock`.
    #[inline]
    pub fn new(memblock: &'m mut Memblock<N>, geometry: Geometry) -> Self {
        Self { memblock, bytes: geometry.granule().bytes() }
    }
}

// SAFETY: memblock reserves what it hands out, aligned as asked, and never hands out frame 0.
unsafe impl<const N: usize> FrameSource for MemblockFrames<'_, N> {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let limit = PaRange::new(Pa(0), self.memblock.memory_end());
        self.memblock.alloc(self.bytes, self.bytes, limit).map_err(|error| OutOfFrames {
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

/// Frames that a pool holds at most.
const POOL: usize = 64;

/// Frames taken from memblock in advance, for edits that come one at a time: to hand one out or take one back is a few
/// instructions, and memblock's list of ranges is not cut to pieces by single frames.
#[derive(Debug, Default)]
pub struct FramePool {
    frames: ArrayVec<Pa, POOL>,
}

impl FramePool {
    /// A pool that holds nothing yet.
    pub const fn new() -> Self {
        Self { frames: ArrayVec::new_const() }
    }

    /// How many frames are in it: reserved in memblock, and no table.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The pool as a source of frames, with memblock behind it where it runs out or over.
    pub fn frames<'m, const N: usize>(
        &'m mut self,
        memblock: &'m mut Memblock<N>,
        geometry: Geometry,
    ) -> PooledFrames<'m, N> {
        PooledFrames { pool: &mut self.frames, behind: MemblockFrames::new(memblock, geometry) }
    }
}

/// A [`FramePool`] with memblock behind it.
#[derive(Debug)]
pub struct PooledFrames<'m, const N: usize> {
    pool: &'m mut ArrayVec<Pa, POOL>,
    behind: MemblockFrames<'m, N>,
}

impl<const N: usize> PooledFrames<'_, N> {
    /// Fills half of the pool, so that as many can come back; the last frame goes to the caller.
    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> Result<Pa, OutOfFrames> {
        while self.pool.len() < POOL / 2
            && let Ok(frame) = self.behind.alloc()
        {
            self.pool.push(frame);
        }
        match self.pool.pop() {
            Some(frame) => Ok(frame),
            None => self.behind.alloc(),
        }
    }
}

// SAFETY: every frame comes from memblock, which has it reserved until it goes back there; a frame is in the pool or with
// the caller, never both.
unsafe impl<const N: usize> FrameSource for PooledFrames<'_, N> {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        match self.pool.pop() {
            Some(frame) => Ok(frame),
            None => self.refill(),
        }
    }

    #[inline]
    fn free(&mut self, frame: Pa) {
        if self.pool.try_push(frame).is_err() {
            self.behind.free(frame);
        }
    }
}

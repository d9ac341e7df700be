//! A small stock of table frames.

use arrayvec::ArrayVec;
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::Pa;

/// Up to `N` frames in stock, for edits that come one at a time. To hand one out or take one back
/// takes a few instructions. An empty pool allocates `N` / 2 frames at once.
///
/// ```
/// use linmap::{FramePool, PooledFrames};
/// use linmap_table::{FrameSource, OutOfFrames};
/// use linmap_vmsa::Pa;
///
/// /// Frames of memory that nothing else uses.
/// struct Frames(u64);
/// // SAFETY: each frame is handed out once.
/// unsafe impl FrameSource for Frames {
///     fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
///         self.0 += 0x1000;
///         Ok(Pa(self.0))
///     }
///     unsafe fn free(&mut self, _frame: Pa) {}
/// }
///
/// let (mut pool, mut frames) = (FramePool::<8>::new(), Frames(0x4000_0000));
/// // SAFETY: there is one allocator.
/// let mut pooled: PooledFrames<'_, _, 8> = unsafe { pool.over(&mut frames) };
/// let frame = pooled.alloc()?;
/// assert_eq!(pool.len(), 3, "half of the pool was filled, and one frame handed out");
/// # let _ = frame;
/// # Ok::<(), OutOfFrames>(())
/// ```
#[derive(Debug, Default)]
pub struct FramePool<const N: usize = 64> {
    frames: ArrayVec<Pa, N>,
}

impl<const N: usize> FramePool<N> {
    /// Returns an empty pool.
    pub const fn new() -> Self {
        Self { frames: ArrayVec::new_const() }
    }

    /// Returns how many frames are in stock: allocated, and not a table.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Returns the frames in stock.
    pub fn frames(&self) -> &[Pa] {
        &self.frames
    }

    /// Returns whether no frame is in stock.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the pool as a source of frames. It allocates from `source` when it is empty, and
    /// frees to `source` when it is full.
    ///
    /// # Safety
    /// Every call passes the same allocator.
    #[inline]
    pub unsafe fn over<F: FrameSource>(&mut self, source: F) -> PooledFrames<'_, F, N> {
        PooledFrames { pool: &mut self.frames, source }
    }
}

/// A [`FramePool`] with the allocator behind it.
#[derive(Debug)]
pub struct PooledFrames<'p, F, const N: usize = 64> {
    pool: &'p mut ArrayVec<Pa, N>,
    source: F,
}

impl<F: FrameSource, const N: usize> PooledFrames<'_, F, N> {
    /// Fills half of the pool, so that as many frames can be freed into it, and hands out the last
    /// frame.
    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> Result<Pa, OutOfFrames> {
        let mut frames = [Pa(0); N];
        let count = self.source.alloc_many(&mut frames[..N / 2]);
        self.pool.extend(frames[..count].iter().copied());
        match self.pool.pop() {
            Some(frame) => Ok(frame),
            None => self.source.alloc(),
        }
    }
}

// SAFETY: every frame is the source's, allocated until it is returned there; it is in the pool or
// with the caller, never both.
unsafe impl<F: FrameSource, const N: usize> FrameSource for PooledFrames<'_, F, N> {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        match self.pool.pop() {
            Some(frame) => Ok(frame),
            None => self.refill(),
        }
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        self.source.alloc_consecutive(bytes)
    }

    #[inline]
    unsafe fn free(&mut self, frame: Pa) {
        if self.pool.try_push(frame).is_err() {
            // SAFETY: the caller's: the frame came from the pool, so from the source.
            unsafe { self.source.free(frame) };
        }
    }
}

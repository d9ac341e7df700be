//! Where table frames come from.

use linmap_vmsa::Pa;
use thiserror::Error;

/// No frame is left for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "no frame for a translation table: {wanted:#x} bytes are needed, the largest free range has \
     {largest_free:#x}"
)]
pub struct OutOfFrames {
    /// Bytes of one table.
    pub wanted: u64,
    /// Bytes of the largest free range that the source has.
    pub largest_free: u64,
}

/// A source of frames for tables, each one granule.
///
/// # Safety
/// A frame that was handed out belongs to the caller alone until it is returned. It is aligned to
/// the granule and is not frame 0.
pub unsafe trait FrameSource {
    /// Hands out a frame. What it holds is undefined.
    ///
    /// # Errors
    /// [`OutOfFrames`] when no frame is free.
    fn alloc(&mut self) -> Result<Pa, OutOfFrames>;

    /// Hands out a frame for each element of `frames`, or fewer when not all are free. Returns how
    /// many elements, from the first, now hold a frame. A source that can allocate frames side by
    /// side in one step does so here.
    #[inline]
    fn alloc_many(&mut self, frames: &mut [Pa]) -> usize {
        for (count, frame) in frames.iter_mut().enumerate() {
            let Ok(free) = self.alloc() else { return count };
            *frame = free;
        }
        frames.len()
    }

    /// Allocates consecutive frames, `bytes` in all, a power of two, aligned to `bytes`: the tables
    /// of a root of stage 2 ([`Geometry::root_tables`](linmap_vmsa::Geometry::root_tables)).
    /// Returns the first. [`free`](Self::free) takes them back one by one.
    ///
    /// # Errors
    /// [`OutOfFrames`] if no such frames are free. The provided body always returns it.
    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        Err(OutOfFrames { wanted: bytes, largest_free: 0 })
    }

    /// Takes back a frame.
    ///
    /// Safe code can't return a frame that hardware may still walk:
    ///
    /// ```compile_fail,E0133
    /// # use linmap_table::FrameSource;
    /// # use linmap_vmsa::Pa;
    /// fn free(frames: &mut impl FrameSource, live_root: Pa) {
    ///     frames.free(live_root);
    /// }
    /// ```
    ///
    /// # Safety
    /// This source handed the frame out and has not got it back since. Nothing reaches it any more:
    /// no walker, no TLB or walk cache, and no pointer that is still used.
    unsafe fn free(&mut self, frame: Pa);
}

// SAFETY: passes on what the source does.
unsafe impl<F: FrameSource + ?Sized> FrameSource for &mut F {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        (**self).alloc()
    }

    #[inline]
    fn alloc_many(&mut self, frames: &mut [Pa]) -> usize {
        (**self).alloc_many(frames)
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        (**self).alloc_consecutive(bytes)
    }

    #[inline]
    unsafe fn free(&mut self, frame: Pa) {
        // SAFETY: the caller's.
        unsafe { (**self).free(frame) };
    }
}

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
    /// Bytes of the largest free run that the source has.
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

    /// Takes back a frame that this source handed out.
    fn free(&mut self, frame: Pa);
}

// SAFETY: passes on what the source does.
unsafe impl<F: FrameSource + ?Sized> FrameSource for &mut F {
    #[inline]
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        (**self).alloc()
    }

    #[inline]
    fn free(&mut self, frame: Pa) {
        (**self).free(frame);
    }
}

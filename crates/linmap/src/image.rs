//! The kernel image as the linear map has to know it: memory that is mapped twice.

use linmap_vmsa::{Pa, PaRange, Va};

/// Where the kernel image lies and where it has a mapping of its own.
///
/// The linear map has its read-only part once more, read-only and never executable. It has no
/// second mapping of its data: writable memory of the kernel would be at an address that can be
/// guessed. Whoever wants to read an image by physical addresses reads its data at `va`.
///
/// A kernel whose image lies outside of all memory that the linear map covers gives empty ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImageParts {
    /// Text and read-only data, whole pages. No call changes them.
    pub read_only: PaRange,
    /// Everything that is written, whole pages, right after.
    pub data: PaRange,
    /// The address of the image's own mapping.
    pub va: Va,
}

impl ImageParts {
    /// Returns all of the image.
    pub fn range(&self) -> PaRange {
        PaRange { start: self.read_only.start, end: self.data.end }
    }

    /// Returns where the image's own mapping has `pa`.
    pub(crate) fn own(&self, pa: Pa) -> Va {
        Va(self.va.0 + (pa.0 - self.read_only.start.0))
    }
}

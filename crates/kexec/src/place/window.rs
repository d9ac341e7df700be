//! The memory in which a kernel finds its initrd.

use linmap_vmsa::{Pa, PaRange};

pub(super) const GIB: u64 = 0x4000_0000;
/// The longest window that holds image and initrd.
pub(super) const WINDOW_LEN: u64 = 32 * GIB;

/// Returns the memory in which a kernel at `image` finds an initrd: the union of the 1 GiB aligned
/// windows of 32 GiB that hold all of the image. Any initrd inside lies in one window with the
/// image. It is empty if the image is longer than a window.
pub fn initrd_window(image: PaRange) -> PaRange {
    let end = floor_gib(image.start).saturating_add(WINDOW_LEN);
    if end < image.end.0 {
        return PaRange::new(image.start, image.start);
    }
    let start = image.end.0.checked_next_multiple_of(GIB).unwrap_or(u64::MAX).saturating_sub(WINDOW_LEN);
    PaRange::new(Pa(start), Pa(end))
}

/// Returns the start of the GiB that holds the byte at `pa`.
pub(super) fn floor_gib(pa: Pa) -> u64 {
    pa.0 & !(GIB - 1)
}

//! Limits of what linmap writes into a device tree.

use linmap_vmsa::{Granule, PaRange};

/// The most preserved ranges of a device tree. Each needs a region of the next kernel's memory map.
pub const MAX_PRESERVED: usize = 32;

/// The most CPUs in a pen.
pub const MAX_PENNED: usize = 256;

/// Preserved memory and pens are whole pages of this size in bytes.
pub(super) const PAGE: u64 = Granule::K4.bytes();

/// Returns whether `range` is whole pages, and not empty.
pub(super) fn is_whole_pages(range: PaRange) -> bool {
    !range.is_empty() && range.align_inward(PAGE) == range
}

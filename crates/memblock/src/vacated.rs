//! Reservations that end with the kernel that was booted with them.

use linmap_vmsa::PaRange;

/// Ranges are compared in pages of this size: boot loaders reserve whole pages or exact bytes.
const PAGE: u64 = 0x1000;

/// Returns whether the reservation `entry` covers only what one of `vacated` occupied, to the page:
/// the tree blob or the initrd with which a kernel was booted. U-Boot lists both in the memory
/// reservation block. A kernel that is entered later has a tree and an initrd of its own, so the
/// reservation would withhold the memory for good.
///
/// An entry that covers more, or less, is the firmware's.
pub fn covers_only(entry: PaRange, vacated: &[PaRange]) -> bool {
    let pages = |range: PaRange| range.align_outward(PAGE).filter(|pages| !pages.is_empty());
    let Some(entry) = pages(entry) else { return false };
    vacated.iter().any(|range| pages(*range) == Some(entry))
}

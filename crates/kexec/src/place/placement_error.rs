//! Why a payload is not placed.

use linmap_vmsa::PaRange;
use thiserror::Error;

use super::part::Part;

/// Why a payload cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// No free range is large enough.
    #[error(
        "no room for the {part}: {len:#x} bytes aligned to {align:#x} in {within}, where the \
         largest free range has {largest:#x} bytes"
    )]
    NoRoom {
        /// The part that does not fit.
        part: Part,
        /// Its length in bytes, with the padding that the rules demand.
        len: u64,
        /// The alignment of its start (of its base, for an image) in bytes.
        align: u64,
        /// The range that was searched.
        within: PaRange,
        /// Length in bytes of the largest range in it that is free and that no other part occupies.
        largest: u64,
    },
    /// The device tree is longer than 2 MiB.
    #[error("the device tree has {len:#x} bytes, the boot protocol allows 0x200000")]
    DtbTooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// A part has no bytes.
    #[error("the {part} is empty")]
    Empty {
        /// Which part.
        part: Part,
    },
    /// The initrd stays at an address that the kernel cannot reach.
    #[error(
        "the initrd at {initrd} lies outside {window}, the 1 GiB aligned windows of 32 GiB that \
         hold the image at {image}"
    )]
    InitrdOutsideWindow {
        /// The range of the initrd.
        initrd: PaRange,
        /// The range of the image.
        image: PaRange,
        /// Where the kernel can reach an initrd: [`initrd_window`](crate::initrd_window), for an
        /// old kernel only the part above its base.
        window: PaRange,
    },
}

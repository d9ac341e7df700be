//! Why a move cannot be planned.

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::place::SegmentError;

use super::extent::Extent;

/// Why no plan can be made, or why an extent cannot be part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MoveError {
    /// An address or the length is not a multiple of 4 KiB, or the length is 0.
    #[error("cannot move {extent}: not whole pages of 0x1000 bytes")]
    Unaligned {
        /// The extent.
        extent: Extent,
    },
    /// The extent ends above 2^64.
    #[error("cannot move {extent}: it ends beyond the last physical address")]
    Overflow {
        /// The extent.
        extent: Extent,
    },
    /// No segment holds the whole destination.
    #[error("cannot move {extent}: no segment holds the whole destination")]
    NotInSegment {
        /// The extent.
        extent: Extent,
    },
    /// The destination lies below the filled part of its segment, so that a page could get two
    /// contents.
    #[error("cannot move {extent}: its segment is filled up to {filled}, and can only be filled upwards")]
    Backwards {
        /// The extent.
        extent: Extent,
        /// The end of the filled part.
        filled: Pa,
    },
    /// The move would overwrite the source, because it overlaps the bounce buffer.
    #[error("cannot move {extent}: its source overlaps the bounce buffer {bounce}")]
    BounceInSource {
        /// The extent.
        extent: Extent,
        /// The bounce buffer.
        bounce: PaRange,
    },
    /// The bounce buffer is empty, or an end is not aligned to 4 KiB.
    #[error("the bounce buffer {bounce} is not whole pages of 0x1000 bytes")]
    BounceUnaligned {
        /// The bounce buffer.
        bounce: PaRange,
    },
    /// The bounce buffer overlaps a destination.
    #[error("bounce buffer: {0}")]
    BounceOverwritten(SegmentError),
    /// Extents overwrite each other's sources in a circle, and there is no bounce buffer. One of 4
    /// KiB is enough.
    #[error(
        "{pending:#x} bytes overwrite each other in a circle: a bounce buffer of at least 0x1000 \
         bytes is needed"
    )]
    NoBounce {
        /// The number of bytes that cannot be moved.
        pending: u64,
    },
    /// Too many extents have their source in a destination.
    #[error("the workspace of {capacity} extents is full: too many sources overlap destinations")]
    WorkspaceFull {
        /// The number of elements of the workspace.
        capacity: usize,
    },
    /// No frame is left for the lists.
    #[error("no memory for a frame of the move list")]
    NoFrame,
    /// A list frame is not aligned to 4 KiB.
    #[error("move list frame {frame} is not aligned to 0x1000")]
    FrameUnaligned {
        /// The frame.
        frame: Pa,
    },
    /// A list frame overlaps a destination.
    #[error("move list frame: {0}")]
    FrameOverwritten(SegmentError),
    /// A list frame overlaps the bounce buffer.
    #[error("move list frame {frame} lies in the bounce buffer {bounce}")]
    FrameInBounce {
        /// The frame.
        frame: Pa,
        /// The bounce buffer.
        bounce: PaRange,
    },
}

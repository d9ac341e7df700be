//! What is wrong with a list in memory.

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use super::record::RECORD_WORDS;

/// Why a list in memory cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// A link leads to an address without memory.
    #[error("the move list links to a frame at {frame}, where there is no memory")]
    NoFrame {
        /// The address.
        frame: Pa,
    },
    /// The list has more frames than when it was finished; they may be linked in a circle.
    #[error("the move list links to {frame} after its last frame")]
    TooManyFrames {
        /// The address in the link.
        frame: Pa,
    },
    /// The last record of a frame is neither a link nor the end.
    #[error("the move list frame at {frame} neither ends nor links to another")]
    NotEnded {
        /// The frame.
        frame: Pa,
    },
    /// No plan has such a record.
    #[error("the move list frame at {frame} has a bad record {index}: {words:#x?}")]
    BadRecord {
        /// The frame.
        frame: Pa,
        /// The index of the record.
        index: usize,
        /// Its words.
        words: [u64; RECORD_WORDS],
    },
    /// A list frame has overwritten the source of a copy.
    #[error("the move list frame at {frame} lies in the memory {source_range} that the list copies")]
    FrameInSource {
        /// The frame.
        frame: Pa,
        /// The source.
        source_range: PaRange,
    },
    /// The list writes another number of bytes than when it was finished.
    #[error("the move list writes {bytes:#x} bytes; it wrote {expected:#x} when it was finished")]
    Len {
        /// The number of bytes.
        bytes: u64,
        /// The number when it was finished.
        expected: u64,
    },
    /// No record fills this address, or not in ascending order.
    #[error("the move list does not fill {destination} in ascending order")]
    NotFilled {
        /// The address.
        destination: Pa,
    },
}

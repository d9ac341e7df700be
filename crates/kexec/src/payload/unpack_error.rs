//! Why a kernel is not unpacked.

use thiserror::Error;

use super::image::ImageError;
use super::packing::Packing;

/// Why a kernel can't be unpacked. Offsets are in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The file ends too early.
    #[error("the {packing} stream is cut short: the file ends at offset {at:#x}, within {within}")]
    Truncated {
        /// What it is packed with.
        packing: Packing,
        /// What is incomplete.
        within: &'static str,
        /// Where the stream ends.
        at: u64,
    },
    /// The stream breaks a rule of its format.
    #[error("the {packing} stream is corrupt at offset {at:#x}: {what}")]
    Corrupt {
        /// What it is packed with.
        packing: Packing,
        /// The rule that is broken.
        what: &'static str,
        /// Where; for packed data, at or before the bytes that break it.
        at: u64,
    },
    /// The unpacked bytes aren't those that were packed.
    #[error(
        "the {packing} stream is corrupt: its checksum at offset {at:#x} is {expected:#x}, its content has {found:#x}"
    )]
    Checksum {
        /// What it is packed with.
        packing: Packing,
        /// Where the checksum is.
        at: u64,
        /// The checksum there.
        expected: u32,
        /// The checksum of what was unpacked.
        found: u32,
    },
    /// The unpacked bytes aren't as many as were packed.
    #[error(
        "the {packing} stream is corrupt: offset {at:#x} says that its content has {expected:#x} bytes, it has {found:#x}"
    )]
    Length {
        /// What it is packed with.
        packing: Packing,
        /// Where the length is.
        at: u64,
        /// The length there.
        expected: u64,
        /// How many bytes were unpacked; for gzip modulo 2^32.
        found: u64,
    },
    /// Something follows the stream that is no part of it.
    #[error("{len:#x} bytes follow the {packing} stream from offset {at:#x} and are no part of it")]
    TrailingData {
        /// What it is packed with.
        packing: Packing,
        /// Where they begin.
        at: u64,
        /// How many they are.
        len: u64,
    },
    /// The image goes on behind the memory that its header asks for: a wrong file, or a decompression bomb.
    #[error("the image's header asks for {image_size:#x} bytes, but its {packing} stream has more")]
    LargerThanImage {
        /// What it is packed with.
        packing: Packing,
        /// `image_size` of the header, in bytes.
        image_size: u64,
    },
    /// A zstd frame needs too long a window.
    #[error(
        "the zstd frame at offset {at:#x} needs a window of {window:#x} bytes, at most {max:#x} are allowed"
    )]
    Window {
        /// Where the frame begins.
        at: u64,
        /// The window in bytes: the shorter of what the frame says and what it can hold.
        window: u64,
        /// `ZSTD_WINDOW_MAX`, 128 MiB.
        max: u64,
    },
    /// The heap is too small.
    #[error("unpacking takes {needed:#x} bytes of heap, which there are not")]
    NoMemory {
        /// How many bytes it takes.
        needed: u64,
    },
    /// What is packed is no usable image.
    #[error("the unpacked file: {0}")]
    Image(#[from] ImageError),
    /// An earlier call failed: the rest of the stream means nothing.
    #[error("unpacking failed before")]
    Failed,
}

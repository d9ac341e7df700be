//! Why a kernel is not unpacked.

use thiserror::Error;

use super::image::ImageError;
use super::packing::Packing;

/// Why a kernel cannot be unpacked. Offsets are in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The file ends too early.
    #[error("the {packing} stream is cut short: the file ends at offset {at:#x}, within {within}")]
    Truncated {
        /// The packing.
        packing: Packing,
        /// The incomplete part.
        within: &'static str,
        /// The offset of the stream's end.
        at: u64,
    },
    /// The stream breaks a rule of its format.
    #[error("the {packing} stream is corrupt at offset {at:#x}: {what}")]
    Corrupt {
        /// The packing.
        packing: Packing,
        /// The rule.
        what: &'static str,
        /// The offset of the bytes that break it; in compressed data, at or before them.
        at: u64,
    },
    /// The unpacked bytes do not have the checksum of the packed file.
    #[error(
        "the {packing} stream is corrupt: its checksum at offset {at:#x} is {expected:#x}, its \
         content has {found:#x}"
    )]
    Checksum {
        /// The packing.
        packing: Packing,
        /// The offset of the checksum.
        at: u64,
        /// The checksum in the stream.
        expected: u32,
        /// The checksum of the unpacked bytes.
        found: u32,
    },
    /// The number of unpacked bytes is not that of the packed file.
    #[error(
        "the {packing} stream is corrupt: its content has {found:#x} bytes, not the {expected:#x} \
         given at offset {at:#x}"
    )]
    Length {
        /// The packing.
        packing: Packing,
        /// The offset of the length.
        at: u64,
        /// The length in the stream.
        expected: u64,
        /// The number of unpacked bytes; for gzip modulo 2^32.
        found: u64,
    },
    /// Bytes that are not part of the stream follow it.
    #[error("{len:#x} bytes at offset {at:#x} follow the {packing} stream and are not part of it")]
    TrailingData {
        /// The packing.
        packing: Packing,
        /// The offset of the first.
        at: u64,
        /// The number of bytes.
        len: u64,
    },
    /// The image is longer than its headers announce. A gzip stream and a zstd frame without its
    /// length announce no more than `image_size`: see
    /// [`KernelFile::counted`](crate::KernelFile::counted).
    #[error("the image's {packing} stream has more than {announced:#x} bytes")]
    LongerThanAnnounced {
        /// The packing.
        packing: Packing,
        /// The larger of the image's `image_size` and the announced length of its file, in bytes.
        announced: u64,
    },
    /// A zstd frame needs a window that is too long.
    #[error(
        "the zstd frame at offset {at:#x} needs a window of {window:#x} bytes, at most {max:#x} are allowed"
    )]
    Window {
        /// The offset of the frame.
        at: u64,
        /// The window in bytes: the shorter of the window in its header and its possible content.
        window: u64,
        /// `ZSTD_WINDOW_MAX`, 128 MiB.
        max: u64,
    },
    /// The heap is too small.
    #[error("unpacking needs {needed:#x} bytes of heap, more than are available")]
    NoMemory {
        /// The heap that is needed, in bytes.
        needed: u64,
    },
    /// The unpacked file is not a usable image.
    #[error("the kernel: {0}")]
    Image(#[from] ImageError),
    /// An earlier call failed, so the rest of the stream is meaningless.
    #[error("unpacking failed before")]
    Failed,
}

//! Why a file is not a kernel.

use core::fmt;

use thiserror::Error;

use super::file_format::FileFormat;
use super::packing::Packing;

/// Why a file is not a kernel that can be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelFileError {
    /// The file has another format.
    #[error("the file is not an arm64 Image, raw or in gzip, zstd or EFI zboot; it looks like {format}")]
    NoKernel {
        /// Its format.
        format: FileFormat,
    },
    /// The kernel is packed with zstd, and the crate was built without its feature `zstd`.
    #[error("the file is packed with zstd, which this build cannot unpack")]
    NoZstd,
    /// The header of an EFI zboot image is cut short or not Linux's.
    #[error("the file looks like an EFI zboot image, but its header lacks the {what} at offset {at:#x}")]
    ZbootHeader {
        /// The missing part.
        what: &'static str,
        /// Its offset in bytes from the start of the file.
        at: u64,
    },
    /// The payload of an EFI zboot image is empty, reaches beyond the file or overlaps the header.
    #[error(
        "the EFI zboot image has {len:#x} bytes, its header has a payload of {payload_len:#x} from \
         offset {offset:#x}"
    )]
    ZbootPayload {
        /// The offset of the payload in the header, in bytes from the start of the file.
        offset: u32,
        /// Length of the payload in bytes.
        payload_len: u32,
        /// Length of the file in bytes.
        len: u64,
    },
    /// The payload of an EFI zboot image has an unknown compression.
    #[error("the EFI zboot image is packed with \"{}\"; only gzip and zstd are supported", text(.name))]
    ZbootCompression {
        /// The compression in its header: at most 8 bytes, padded with NULs.
        name: [u8; 8],
    },
    /// The payload of an EFI zboot image does not have the compression in its header.
    #[error("the EFI zboot image's header says {named}, its payload at offset {at:#x} looks like {found}")]
    ZbootMismatch {
        /// The compression in the header.
        named: Packing,
        /// The format of the payload.
        found: FileFormat,
        /// The offset of the payload in bytes from the start of the file.
        at: u64,
    },
}

/// Returns a name without the NULs after it.
fn text(name: &[u8]) -> impl fmt::Display {
    name.split(|&byte| byte == 0).next().unwrap_or_default().escape_ascii()
}

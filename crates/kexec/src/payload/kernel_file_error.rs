//! Why a file is not a kernel.

use core::fmt;

use thiserror::Error;

use super::file_format::FileFormat;
use super::packing::Packing;

/// Why a file can't be taken for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelFileError {
    /// It is a file of some other kind.
    #[error("the file is no arm64 Image, raw or in gzip, zstd or EFI zboot; it looks like {format}")]
    NoKernel {
        /// What it looks like.
        format: FileFormat,
    },
    /// It is a zstd stream, or an EFI zboot image with one, and the feature `zstd` is not built in.
    #[error("the file is packed with zstd, which this build cannot unpack")]
    NoZstd,
    /// The header of an EFI zboot image is cut short or isn't one of Linux's.
    #[error("the file looks like an EFI zboot image, but at offset {at:#x} of its header there is no {what}")]
    ZbootHeader {
        /// What isn't there.
        what: &'static str,
        /// Where it should be, in bytes from the start of the file.
        at: u64,
    },
    /// The payload of an EFI zboot image is empty, not within the file, or over its header.
    #[error(
        "the EFI zboot image has {len:#x} bytes, its header has a payload of {payload_len:#x} from offset {offset:#x}"
    )]
    ZbootPayload {
        /// Where the header has the payload, in bytes from the start of the file.
        offset: u32,
        /// Length of the payload in bytes.
        payload_len: u32,
        /// Length of the file in bytes.
        len: u64,
    },
    /// The payload of an EFI zboot image is packed in some other way.
    #[error("the EFI zboot image is packed with \"{}\"; only gzip and zstd are known", text(.name))]
    ZbootCompression {
        /// What its header says: at most 8 bytes, padded with NULs.
        name: [u8; 8],
    },
    /// The payload of an EFI zboot image isn't what its header says.
    #[error("the EFI zboot image's header says {named}, its payload at offset {at:#x} looks like {found}")]
    ZbootMismatch {
        /// What the header says.
        named: Packing,
        /// What the payload begins with.
        found: FileFormat,
        /// Where the payload is, in bytes from the start of the file.
        at: u64,
    },
}

/// A name without the NULs behind it.
fn text(name: &[u8]) -> impl fmt::Display {
    name.split(|&byte| byte == 0).next().unwrap_or_default().escape_ascii()
}

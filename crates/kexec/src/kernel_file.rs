//! A file that holds an arm64 kernel, as it is or packed: `Image`, `Image.gz`, `Image.zst` and `vmlinuz.efi` (EFI zboot),
//! told by what is in it and not by its name.

use core::fmt;

use thiserror::Error;

use crate::image::{Content, HEADER_LEN, MAGIC};
use crate::unpack::{UnpackError, Unpacker};
use crate::zboot::Zboot;
#[cfg(feature = "zstd")]
use crate::zstd_survey::Survey;

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Raw,
    /// As gzip members (RFC 1952), one after the other.
    Gzip,
    /// As zstd frames (RFC 8878), one after the other.
    Zstd,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Why a file can't be taken for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelFileError {
    /// It is a file of some other kind.
    #[error("the file is no arm64 Image, raw or in gzip, zstd or EFI zboot; it looks like {content}")]
    NoKernel {
        /// What it looks like.
        content: Content,
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
        found: Content,
        /// Where the payload is, in bytes from the start of the file.
        at: u64,
    },
}

/// A name without the NULs behind it.
fn text(name: &[u8]) -> impl fmt::Display {
    name.split(|&byte| byte == 0).next().unwrap_or_default().escape_ascii()
}

/// A file that holds an arm64 kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelFile<'a> {
    packed: Packed<'a>,
    zboot: bool,
}

/// Packed bytes and where they are from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'a> {
    pub packing: Packing,
    pub bytes: &'a [u8],
    /// Where they are in the file, in bytes from its start.
    pub offset: usize,
}

impl<'a> KernelFile<'a> {
    /// Tells what `file` is. Only one level of packing is undone, besides that of EFI zboot: whether there is an image
    /// below it is seen when it is unpacked.
    ///
    /// # Errors
    ///
    /// - [`KernelFileError::NoKernel`]: it is something else, such as an ELF file.
    /// - [`KernelFileError::NoZstd`]: it needs the feature `zstd`.
    /// - [`KernelFileError::ZbootHeader`], [`KernelFileError::ZbootPayload`], [`KernelFileError::ZbootCompression`],
    ///   [`KernelFileError::ZbootMismatch`]: it is an EFI zboot image that is damaged or packed in an unknown way.
    pub fn recognise(file: &'a [u8]) -> Result<Self, KernelFileError> {
        let content = Content::of(file);
        let is_image = file.get(HEADER_LEN - 8..).is_some_and(|rest| rest.starts_with(&MAGIC));
        let (packed, zboot) = match content {
            Content::EfiZboot => {
                let Zboot { payload, packing } = Zboot::parse(file)?;
                let offset = payload.start;
                let bytes = file.get(payload).unwrap_or_default();
                let found = Content::of(bytes);
                if !matches!(
                    (packing, found),
                    (Packing::Gzip, Content::Gzip) | (Packing::Zstd, Content::Zstd)
                ) {
                    return Err(KernelFileError::ZbootMismatch { named: packing, found, at: offset as u64 });
                }
                (Packed { packing, bytes, offset }, true)
            }
            _ if is_image => (Packed { packing: Packing::Raw, bytes: file, offset: 0 }, false),
            Content::Gzip => (Packed { packing: Packing::Gzip, bytes: file, offset: 0 }, false),
            Content::Zstd => (Packed { packing: Packing::Zstd, bytes: file, offset: 0 }, false),
            _ => return Err(KernelFileError::NoKernel { content }),
        };
        if packed.packing == Packing::Zstd && !cfg!(feature = "zstd") {
            return Err(KernelFileError::NoZstd);
        }
        Ok(Self { packed, zboot })
    }

    /// How the kernel is packed.
    pub fn packing(&self) -> Packing {
        self.packed.packing
    }

    /// Whether the file is an EFI zboot image.
    pub fn is_zboot(&self) -> bool {
        self.zboot
    }

    /// How many bytes of heap unpacking takes at most, a multiple of 4096: 0 but for zstd. A heap of this length, aligned
    /// to 4096 bytes and used for nothing else, is enough whatever the file holds.
    ///
    /// # Errors
    ///
    /// - [`UnpackError::Truncated`], [`UnpackError::Corrupt`], [`UnpackError::TrailingData`]: the stream's outline is
    ///   damaged.
    /// - [`UnpackError::Window`]: it needs a longer window than `ZSTD_WINDOW_MAX`, 128 MiB.
    pub fn memory_needed(&self) -> Result<usize, UnpackError> {
        match self.packed.packing {
            Packing::Raw | Packing::Gzip => Ok(0),
            #[cfg(feature = "zstd")]
            Packing::Zstd => Ok(Survey::of(self.packed)?.memory_needed()),
            #[cfg(not(feature = "zstd"))]
            Packing::Zstd => Ok(0),
        }
    }

    /// Unpacks as far as the image's header.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::read`], and:
    ///
    /// - [`UnpackError::Window`]: as for [`KernelFile::memory_needed`].
    /// - [`UnpackError::NoMemory`]: the heap has less than [`KernelFile::memory_needed`].
    /// - [`UnpackError::Image`]: what was packed is no usable image.
    pub fn unpack(&self) -> Result<Unpacker<'a>, UnpackError> {
        Unpacker::new(self.packed)
    }
}

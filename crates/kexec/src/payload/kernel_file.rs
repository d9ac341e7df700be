//! A file with an arm64 kernel, raw or packed: `Image`, `Image.gz`, `Image.zst` or `vmlinuz.efi`
//! (EFI zboot). Its content tells which, not its name.

use super::file_format::FileFormat;
use super::image::{HEADER_LEN, MAGIC};
use super::kernel_file_error::KernelFileError;
use super::packing::{Packed, Packing};
use super::unpack_error::UnpackError;
use super::unpacker::Unpacker;
use super::zboot::Zboot;
#[cfg(feature = "zstd")]
use super::zstd_survey::Survey;

/// A file with an arm64 kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelFile<'a> {
    packed: Packed<'a>,
    zboot: bool,
    /// The length of the unpacked file, if it was counted.
    len: Option<u64>,
}

impl<'a> KernelFile<'a> {
    /// Recognises the packing of `file`. Only one level of packing is undone, besides EFI zboot.
    /// Whether the packed file is an image is checked when it is unpacked.
    ///
    /// # Errors
    ///
    /// - [`KernelFileError::NoKernel`]: the file has another format, such as ELF.
    /// - [`KernelFileError::NoZstd`]: unpacking needs the feature `zstd`.
    /// - [`KernelFileError::ZbootHeader`], [`KernelFileError::ZbootPayload`],
    ///   [`KernelFileError::ZbootCompression`],
    ///   [`KernelFileError::ZbootMismatch`]: an EFI zboot image is damaged or has an unknown compression.
    pub fn recognise(file: &'a [u8]) -> Result<Self, KernelFileError> {
        let format = FileFormat::of(file);
        let is_image = file.get(HEADER_LEN - 8..).is_some_and(|rest| rest.starts_with(&MAGIC));
        let (packed, zboot) = match format {
            FileFormat::EfiZboot => {
                let Zboot { payload, packing } = Zboot::parse(file)?;
                let offset = payload.start;
                let bytes = file.get(payload).unwrap_or_default();
                let found = FileFormat::of(bytes);
                if !matches!(
                    (packing, found),
                    (Packing::Gzip, FileFormat::Gzip) | (Packing::Zstd, FileFormat::Zstd)
                ) {
                    return Err(KernelFileError::ZbootMismatch { named: packing, found, at: offset as u64 });
                }
                (Packed { packing, bytes, offset }, true)
            }
            _ if is_image => (Packed { packing: Packing::Raw, bytes: file, offset: 0 }, false),
            FileFormat::Gzip => (Packed { packing: Packing::Gzip, bytes: file, offset: 0 }, false),
            FileFormat::Zstd => (Packed { packing: Packing::Zstd, bytes: file, offset: 0 }, false),
            _ => return Err(KernelFileError::NoKernel { format }),
        };
        if packed.packing == Packing::Zstd && !cfg!(feature = "zstd") {
            return Err(KernelFileError::NoZstd);
        }
        Ok(Self { packed, zboot, len: None })
    }

    /// Returns how the kernel is packed.
    pub fn packing(&self) -> Packing {
        self.packed.packing
    }

    /// Returns whether the file is an EFI zboot image.
    pub fn is_zboot(&self) -> bool {
        self.zboot
    }

    /// Returns the heap that unpacking needs in bytes, a multiple of 4096. It is 0 unless the
    /// packing is zstd. A heap of this length, aligned to 4096 bytes and used for nothing else, is
    /// enough whatever the file contains.
    ///
    /// # Errors
    ///
    /// - [`UnpackError::Truncated`], [`UnpackError::Corrupt`], [`UnpackError::TrailingData`]: the
    ///   headers of the stream are damaged.
    /// - [`UnpackError::Window`]: a frame needs a longer window than `ZSTD_WINDOW_MAX`, 128 MiB.
    pub fn memory_needed(&self) -> Result<usize, UnpackError> {
        match self.packed.packing {
            Packing::Raw | Packing::Gzip => Ok(0),
            #[cfg(feature = "zstd")]
            Packing::Zstd => Ok(Survey::of(self.packed)?.memory_needed()),
            #[cfg(not(feature = "zstd"))]
            Packing::Zstd => Ok(0),
        }
    }

    /// Unpacks the whole file to count its bytes, at most `max`. The result unpacks a file that is
    /// longer than its headers announce. Only needed after [`UnpackError::LongerThanAnnounced`].
    ///
    /// # Errors
    ///
    /// As [`Unpacker::read`]; [`UnpackError::LongerThanAnnounced`] if there are more than `max`
    /// bytes.
    pub fn counted(self, max: u64) -> Result<Self, UnpackError> {
        let mut unpacker = Self { len: Some(max), ..self }.unpack()?;
        let mut piece = [0; 4096];
        while unpacker.read(&mut piece)? != 0 {}
        Ok(Self { len: Some(unpacker.read_so_far()), ..self })
    }

    /// Unpacks the image's header.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::read`], and:
    ///
    /// - [`UnpackError::Window`]: as for [`KernelFile::memory_needed`].
    /// - [`UnpackError::NoMemory`]: the heap has less than [`KernelFile::memory_needed`].
    /// - [`UnpackError::Image`]: the packed file is not a usable image.
    pub fn unpack(&self) -> Result<Unpacker<'a>, UnpackError> {
        Unpacker::new(self.packed, self.len)
    }
}

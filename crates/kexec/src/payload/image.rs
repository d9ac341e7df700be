//! The arm64 `Image` format: the 64-byte header at the start of every arm64 Linux kernel
//! (Documentation/arch/arm64/booting.rst, "Call the kernel image").

use linmap_vmsa::Granule;
use thiserror::Error;

use super::file_format::FileFormat;

/// Length of the header in bytes.
pub(super) const HEADER_LEN: usize = 64;
/// `ARM\x64` at offset 56.
pub(super) const MAGIC: [u8; 4] = *b"ARM\x64";
/// An image is placed relative to a base that is a multiple of this many bytes.
pub(crate) const BASE_ALIGN: u64 = 0x20_0000;
/// An image starts on a page of the smallest granule.
const TEXT_OFFSET_ALIGN: u64 = 0x1000;

/// Where the kernel may be placed: bit 3 of the header's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementFlag {
    /// As near the start of DRAM as possible: the kernel cannot use memory below its 2 MiB aligned
    /// base.
    NearDramBase,
    /// At any 2 MiB aligned base from which the image ends below 2^48.
    Anywhere,
}

/// The header of a usable arm64 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Distance in bytes of the image's start from a 2 MiB aligned base: a multiple of 4 KiB of any
    /// size. Only the image needs free memory, not what lies between its base and its start.
    pub text_offset: u64,
    /// The number of bytes from the image's start that must be free: the file, .bss and early
    /// tables. The header may give less than the file has: see [`Image::with_file`].
    pub image_size: u64,
    /// The granule that the kernel was built for; `None` if the header does not tell.
    pub page_size: Option<Granule>,
    /// Where the kernel may be placed.
    pub placement: PlacementFlag,
}

/// Why a file cannot be started as an arm64 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file is shorter than a header.
    #[error("the image has {len} bytes, its header alone has 64; it looks like {format}")]
    TooShort {
        /// Length of the file in bytes.
        len: u64,
        /// The format of the file.
        format: FileFormat,
    },
    /// The file does not have `ARM\x64` at offset 56.
    #[error("the image has {found:02x?} at offset 56 instead of [41, 52, 4d, 64]; it looks like {format}")]
    WrongMagic {
        /// The bytes at offset 56.
        found: [u8; 4],
        /// The format of the file.
        format: FileFormat,
    },
    /// The kernel was built big-endian.
    #[error("the image is big-endian (flags {flags:#x}); only little-endian kernels can be started")]
    BigEndian {
        /// The header's flags.
        flags: u64,
    },
    /// `image_size` is 0, as before Linux 3.17: the memory that the kernel needs is unknown.
    #[error("the image's header has no image_size (Linux before 3.17): the memory it needs is unknown")]
    NoImageSize,
    /// `text_offset` is not a multiple of 4 KiB: the image would not start on a page.
    #[error("the image's text_offset {text_offset:#x} is not a multiple of 4 KiB")]
    TextOffset {
        /// `text_offset` of the header, in bytes.
        text_offset: u64,
    },
    /// The CPU does not support the granule.
    #[error("the image was built for {page_size:?} pages, which this CPU does not support")]
    PageSize {
        /// The granule that the image was built for.
        page_size: Granule,
    },
}

impl Image {
    /// Reads and checks the header. `head` is the file or its beginning, at least 64 bytes.
    ///
    /// # Errors
    ///
    /// - [`ImageError::TooShort`]: `head` has fewer than 64 bytes.
    /// - [`ImageError::WrongMagic`]: the file is not an arm64 image.
    /// - [`ImageError::BigEndian`]: the kernel is big-endian.
    /// - [`ImageError::NoImageSize`]: the header does not tell how much memory the kernel needs.
    ///   booting.rst then asks for "as much memory as possible", which cannot be checked against
    ///   other segments.
    /// - [`ImageError::TextOffset`]: the image would not start on a page.
    pub fn parse(head: &[u8]) -> Result<Self, ImageError> {
        let format = FileFormat::of(head);
        let too_short = ImageError::TooShort { len: head.len() as u64, format };
        let (header, _) = head.split_first_chunk::<HEADER_LEN>().ok_or(too_short)?;
        // The header is eight little-endian words of 8 bytes: code, text_offset, image_size, flags,
        // three reserved, and the magic with a reserved half.
        let (words, _) = header.as_chunks::<8>();
        let &[_, text_offset, image_size, flags, _, _, _, [m0, m1, m2, m3, ..]] = words else {
            return Err(too_short);
        };
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(ImageError::WrongMagic { found, format });
        }
        let text_offset = u64::from_le_bytes(text_offset);
        let image_size = u64::from_le_bytes(image_size);
        let flags = u64::from_le_bytes(flags);
        if flags & 1 != 0 {
            return Err(ImageError::BigEndian { flags });
        }
        if image_size == 0 {
            return Err(ImageError::NoImageSize);
        }
        if !text_offset.is_multiple_of(TEXT_OFFSET_ALIGN) {
            return Err(ImageError::TextOffset { text_offset });
        }
        let page_size = match flags >> 1 & 3 {
            1 => Some(Granule::K4),
            2 => Some(Granule::K16),
            3 => Some(Granule::K64),
            _ => None,
        };
        let placement =
            if flags >> 3 & 1 == 0 { PlacementFlag::NearDramBase } else { PlacementFlag::Anywhere };
        Ok(Self { text_offset, image_size, page_size, placement })
    }

    /// Returns the image with room for a file of `file_len` bytes: the larger of that and its own
    /// `image_size`. U-Boot's images have a device tree behind what their header counts.
    #[must_use]
    pub fn with_file(self, file_len: u64) -> Self {
        Self { image_size: self.image_size.max(file_len), ..self }
    }

    /// Checks that the CPU supports the kernel's granule. `supported` are the CPU's stage 1
    /// granules (ID_AA64MMFR0_EL1.TGran4, TGran16, TGran64). A kernel whose granule is unknown
    /// passes.
    ///
    /// # Errors
    ///
    /// [`ImageError::PageSize`]: the granule is not among `supported`.
    pub fn check_page_size(&self, supported: &[Granule]) -> Result<(), ImageError> {
        match self.page_size {
            Some(page_size) if !supported.contains(&page_size) => Err(ImageError::PageSize { page_size }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = 0x1000;

    /// A header with the given fields before `LEN` bytes of file in all.
    fn file(text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
        let mut file = std::vec![0; LEN as usize];
        file[8..16].copy_from_slice(&text_offset.to_le_bytes());
        file[16..24].copy_from_slice(&image_size.to_le_bytes());
        file[24..32].copy_from_slice(&flags.to_le_bytes());
        file[56..60].copy_from_slice(&MAGIC);
        file
    }

    #[test]
    fn a_current_kernel_may_be_placed_anywhere() {
        assert_eq!(
            Image::parse(&file(0, 0x240_0000, 0b1010)),
            Ok(Image {
                text_offset: 0,
                image_size: 0x240_0000,
                page_size: Some(Granule::K4),
                placement: PlacementFlag::Anywhere,
            })
        );
    }

    #[test]
    fn a_kernel_with_no_flags_leaves_its_page_size_unsaid_and_wants_the_dram_base() {
        let image = Image::parse(&file(0x8_0000, LEN, 0)).unwrap();
        assert_eq!((image.page_size, image.placement), (None, PlacementFlag::NearDramBase));
        assert_eq!(image.check_page_size(&[]), Ok(()));
    }

    #[test]
    fn a_file_without_a_whole_header_is_too_short() {
        let whole = file(0, LEN, 0);
        assert!(matches!(Image::parse(&whole[..63]), Err(ImageError::TooShort { len: 63, .. })));
        let gzip = Image::parse(&[0x1f, 0x8b, 8]).unwrap_err();
        assert_eq!(gzip, ImageError::TooShort { len: 3, format: FileFormat::Gzip });
    }

    #[test]
    fn a_file_of_another_kind_is_named_in_the_error() {
        let mut zboot = file(0, LEN, 0);
        zboot[..8].copy_from_slice(b"MZ\0\0zimg");
        zboot[56..60].copy_from_slice(&[0xcd, 0x23, 0x82, 0x81]);
        let error = Image::parse(&zboot).unwrap_err();
        assert_eq!(
            error,
            ImageError::WrongMagic { found: [0xcd, 0x23, 0x82, 0x81], format: FileFormat::EfiZboot }
        );
        for (start, format) in [
            (&b"\x1f\x8b\x08"[..], FileFormat::Gzip),
            (b"\x28\xb5\x2f\xfd", FileFormat::Zstd),
            (b"\x7fELF\x02", FileFormat::Elf),
            (b"MZ\0\0\0\0", FileFormat::Pe),
            (b"070701", FileFormat::Cpio),
            (b"\xd0\x0d\xfe\xed", FileFormat::DeviceTree),
            (b"#!/bin/sh", FileFormat::Unknown),
            (b"", FileFormat::Unknown),
        ] {
            assert_eq!(FileFormat::of(start), format);
        }
    }

    #[test]
    fn a_big_endian_kernel_is_refused() {
        assert_eq!(Image::parse(&file(0, LEN, 0b1011)), Err(ImageError::BigEndian { flags: 0b1011 }));
    }

    #[test]
    fn an_image_that_does_not_say_its_size_is_refused() {
        assert_eq!(Image::parse(&file(0x8_0000, 0, 0)), Err(ImageError::NoImageSize));
    }

    #[test]
    fn a_file_longer_than_its_header_says_counts_with_its_length() {
        let image = Image::parse(&file(0, LEN - 1, 0b1010)).unwrap();
        assert_eq!(image.with_file(LEN - 1), image);
        assert_eq!(image.with_file(LEN), Image { image_size: LEN, ..image });
    }

    #[test]
    fn a_text_offset_is_any_multiple_of_a_page() {
        for text_offset in [0x1f_f000, 0x20_0000, 0x108_0000, 0x1fc0_0000, !0xfff] {
            let image = Image::parse(&file(text_offset, LEN, 0)).unwrap();
            assert_eq!(image.text_offset, text_offset);
        }
        for text_offset in [0x800, 0x20_0001, u64::MAX] {
            assert_eq!(Image::parse(&file(text_offset, LEN, 0)), Err(ImageError::TextOffset { text_offset }));
        }
    }

    #[test]
    fn a_page_size_the_cpu_lacks_is_refused() {
        let image = Image::parse(&file(0, LEN, 0b1110)).unwrap();
        assert_eq!(image.page_size, Some(Granule::K64));
        assert_eq!(image.check_page_size(&[Granule::K4, Granule::K64]), Ok(()));
        assert_eq!(
            image.check_page_size(&[Granule::K4, Granule::K16]),
            Err(ImageError::PageSize { page_size: Granule::K64 })
        );
    }

    proptest! {
        #[test]
        fn no_change_to_a_header_panics_and_what_passes_keeps_the_rules(
            flips in prop::collection::vec((0usize..64, any::<u8>()), 0..6),
            cut in 0usize..80,
        ) {
            let mut bytes = file(0x8_0000, 0x10_0000, 0b1010);
            for (at, value) in flips {
                bytes[at] ^= value;
            }
            let _ = Image::parse(&bytes[..cut]);
            if let Ok(image) = Image::parse(&bytes) {
                prop_assert!(image.text_offset.is_multiple_of(TEXT_OFFSET_ALIGN) && image.image_size != 0);
            }
        }
    }
}

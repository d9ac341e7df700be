//! The kernel as boot loaders take it: the flat arm64 Image, made from the linker's ELF file.
//!
//! Header: Linux Documentation/arch/arm64/booting.rst, "Call the kernel image".

use std::ops::Range;

use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, ProgramHeader};

/// Why the kernel's ELF file cannot be made into an Image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF file, or cut short.
    #[error("the kernel is not a readable ELF file: {0}")]
    Elf(#[from] object::Error),
    /// Nothing to load.
    #[error("the kernel's ELF file has no PT_LOAD segment with file data")]
    Empty,
    /// Segments lie too far apart to be one file.
    #[error("the kernel's segments span {0:#x} bytes; a flat Image of more than {MAX_SPAN:#x} is a mistake")]
    Span(u64),
    /// Two segments overlap.
    #[error("the segment at {0:#x} lies inside another one")]
    Overlap(u64),
    /// The header is not at the link base.
    #[error("no arm64 Image header at the link base {0:#x}: the magic at offset 0x38 is {1:02x?}")]
    Magic(u64, [u8; 4]),
    /// image_size is less than the length of the file.
    #[error("the Image header's image_size is {image_size:#x}, less than the {file:#x} bytes of the file")]
    ImageSize {
        /// The header's field, bytes.
        image_size: u64,
        /// The flat file, bytes.
        file: u64,
    },
    /// The place for the built-in command line must be there exactly once.
    #[error("the Image holds the built-in command line's magic {0} times, not once")]
    CommandLineMagic(usize),
    /// The built-in command line does not fit its place.
    #[error("'{0}' does not fit the Image's built-in command line of {COMMAND_LINE_BYTES} bytes")]
    CommandLineLength(String),
}

const MAX_SPAN: u64 = 256 << 20;
const MAGIC: Range<usize> = 0x38..0x3c;
const COMMAND_LINE_MAGIC: &[u8; 16] = b"LINMAP-CMDLINE\0\0";
const COMMAND_LINE_BYTES: usize = 240;

/// A flat arm64 Image, checked as far as placing it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Lays an ELF file's PT_LOAD segments out from the lowest virtual address to the end of the
    /// file data.
    pub fn from_elf(elf: &[u8]) -> Result<Self, ImageError> {
        let file = ElfFile64::<object::Endianness>::parse(elf)?;
        let endian = file.endian();
        let mut segments = Vec::new();
        for header in file.elf_program_headers() {
            if header.p_type(endian) == PT_LOAD && header.p_filesz(endian) > 0 {
                let data = header.data(endian, elf).map_err(|()| ImageError::Empty)?;
                segments.push((header.p_vaddr(endian), data));
            }
        }
        segments.sort_by_key(|&(address, _)| address);
        let &(base, _) = segments.first().ok_or(ImageError::Empty)?;
        let mut bytes = Vec::new();
        for (address, data) in segments {
            let offset = address - base;
            if offset.saturating_add(data.len() as u64) > MAX_SPAN {
                return Err(ImageError::Span(offset.saturating_add(data.len() as u64)));
            }
            if offset < bytes.len() as u64 {
                return Err(ImageError::Overlap(address));
            }
            bytes.resize(offset as usize, 0);
            bytes.extend_from_slice(data);
        }
        let image = Self { bytes };
        let magic = image.field(MAGIC.start);
        if magic != *b"ARM\x64" {
            return Err(ImageError::Magic(base, magic));
        }
        let file = image.bytes.len() as u64;
        if image.image_size() < file {
            return Err(ImageError::ImageSize { image_size: image.image_size(), file });
        }
        Ok(image)
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How far above a 2 MiB boundary the Image is loaded, bytes.
    pub fn text_offset(&self) -> u64 {
        u64::from_le_bytes(self.field(8))
    }

    /// How much memory from its load address on the Image uses, bytes: the file, .bss and whatever
    /// else image_size includes.
    pub fn image_size(&self) -> u64 {
        u64::from_le_bytes(self.field(16))
    }

    /// The Image with `line` as the command line it falls back on when the device tree can't be
    /// read.
    pub fn with_command_line(mut self, line: &str) -> Result<Self, ImageError> {
        if line.len() > COMMAND_LINE_BYTES || line.contains('\0') {
            return Err(ImageError::CommandLineLength(line.to_owned()));
        }
        let windows = self.bytes.windows(COMMAND_LINE_MAGIC.len()).enumerate();
        let places: Vec<_> =
            windows.filter(|(_, bytes)| bytes == COMMAND_LINE_MAGIC).map(|(at, _)| at).collect();
        let &[at] = places.as_slice() else { return Err(ImageError::CommandLineMagic(places.len())) };
        let start = at + COMMAND_LINE_MAGIC.len();
        let place =
            self.bytes.get_mut(start..start + COMMAND_LINE_BYTES).ok_or(ImageError::CommandLineMagic(0))?;
        place.fill(0);
        place[..line.len()].copy_from_slice(line.as_bytes());
        Ok(self)
    }

    /// `N` bytes at `offset`; zeros where the file ends before.
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        let bytes = self.bytes.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok());
        bytes.unwrap_or([0; N])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_8000_8000_0000;

    /// An ELF file with one PT_LOAD segment per (address, data).
    fn elf(segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let put16 =
            |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
        put16(&mut file, &[2, 183]);
        file.extend(1u32.to_le_bytes());
        for value in [BASE, 64, 0] {
            file.extend(value.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        put16(&mut file, &[64, 56, segments.len() as u16, 64, 0, 0]);
        let mut offset = 64 + 56 * segments.len() as u64;
        for (address, data) in segments {
            file.extend(1u32.to_le_bytes());
            file.extend(5u32.to_le_bytes());
            for value in [offset, *address, *address, data.len() as u64, data.len() as u64 + 0x1000, 0x1000] {
                file.extend(value.to_le_bytes());
            }
            offset += data.len() as u64;
        }
        segments.iter().for_each(|(_, data)| file.extend(data));
        file
    }

    fn header(image_size: u64) -> Vec<u8> {
        let mut text = vec![0; 0x400];
        text[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
        text[16..24].copy_from_slice(&image_size.to_le_bytes());
        text[MAGIC].copy_from_slice(b"ARM\x64");
        text[0x100..0x110].copy_from_slice(COMMAND_LINE_MAGIC);
        text[0x110..0x120].fill(b'x');
        text
    }

    #[test]
    fn segments_lie_at_their_distance_from_the_lowest_and_gaps_are_zero() {
        let file = elf(&[(BASE + 0x1000, vec![7; 3]), (BASE, header(0x3000))]);
        let image = Image::from_elf(&file).unwrap();
        assert_eq!(image.bytes().len(), 0x1003);
        assert_eq!(image.bytes()[..0x400], header(0x3000)[..]);
        assert!(image.bytes()[0x400..0x1000].iter().all(|&byte| byte == 0));
        assert_eq!(image.bytes()[0x1000..], [7; 3]);
        assert_eq!((image.text_offset(), image.image_size()), (0x8_0000, 0x3000));
    }

    #[test]
    fn the_built_in_command_line_is_replaced_whole() {
        let image = Image::from_elf(&elf(&[(BASE, header(0x3000))])).unwrap();
        let patched = image.clone().with_command_line("earlycon=pl011,0x9000000").unwrap();
        assert_eq!(&patched.bytes()[0x110..0x12a], b"earlycon=pl011,0x9000000\0\0");
        assert_eq!(patched.bytes()[..0x110], image.bytes()[..0x110]);
        assert!(matches!(image.with_command_line(&"x".repeat(241)), Err(ImageError::CommandLineLength(_))));
    }

    #[test]
    fn a_kernel_that_makes_no_image_is_refused_with_the_reason() {
        let refused = |segments: &[(u64, Vec<u8>)]| Image::from_elf(&elf(segments)).unwrap_err();
        assert!(matches!(refused(&[]), ImageError::Empty));
        assert!(matches!(refused(&[(BASE, vec![0; 64])]), ImageError::Magic(BASE, [0, 0, 0, 0])));
        assert!(matches!(refused(&[(BASE, vec![0; 8])]), ImageError::Magic(..)));
        assert!(matches!(
            refused(&[(BASE, header(0x3ff))]),
            ImageError::ImageSize { image_size: 0x3ff, file: 0x400 }
        ));
        assert!(matches!(refused(&[(BASE, header(9)), (BASE + 0x3ff, vec![1])]), ImageError::Overlap(_)));
        assert!(matches!(refused(&[(BASE, header(9)), (0x1000, vec![1])]), ImageError::Span(_)));
        assert!(matches!(Image::from_elf(b"MZ"), Err(ImageError::Elf(_))));
        let mut two = header(0x3000);
        two[0x200..0x210].copy_from_slice(COMMAND_LINE_MAGIC);
        let image = Image::from_elf(&elf(&[(BASE, two)])).unwrap();
        assert!(matches!(image.with_command_line(""), Err(ImageError::CommandLineMagic(2))));
    }
}

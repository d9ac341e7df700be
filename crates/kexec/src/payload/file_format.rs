//! Formats of files, recognised by their first bytes.

use core::fmt;

/// The format of a file that is not an arm64 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A gzip stream, such as `Image.gz`.
    Gzip,
    /// A Zstandard stream.
    Zstd,
    /// An xz stream.
    Xz,
    /// An LZ4 stream, framed or legacy.
    Lz4,
    /// An EFI zboot image, such as `vmlinuz.efi`: a compressed kernel in a PE file.
    EfiZboot,
    /// Another PE (EFI) executable.
    Pe,
    /// An ELF file, such as `vmlinux`.
    Elf,
    /// A U-Boot legacy image.
    UImage,
    /// A flattened device tree, or a FIT image, which has the same format.
    DeviceTree,
    /// A cpio archive.
    Cpio,
    /// None of these.
    Unknown,
}

impl FileFormat {
    /// Recognises the format of `file` by its first bytes.
    pub fn of(file: &[u8]) -> Self {
        const STARTS: [(&[u8], FileFormat); 11] = [
            (&[0x1f, 0x8b], FileFormat::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], FileFormat::Zstd),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], FileFormat::Xz),
            (&[0x04, 0x22, 0x4d, 0x18], FileFormat::Lz4),
            (&[0x02, 0x21, 0x4c, 0x18], FileFormat::Lz4),
            (b"\x7fELF", FileFormat::Elf),
            (&[0x27, 0x05, 0x19, 0x56], FileFormat::UImage),
            (&[0xd0, 0x0d, 0xfe, 0xed], FileFormat::DeviceTree),
            (b"070701", FileFormat::Cpio),
            (b"070702", FileFormat::Cpio),
            (b"MZ", FileFormat::Pe),
        ];
        if file.starts_with(b"MZ") && file.get(4..8) == Some(b"zimg") {
            return Self::EfiZboot;
        }
        STARTS.iter().find(|(start, _)| file.starts_with(start)).map_or(Self::Unknown, |&(_, format)| format)
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "a gzip stream",
            Self::Zstd => "a zstd stream",
            Self::Xz => "an xz stream: decompress it first",
            Self::Lz4 => "an LZ4 stream: decompress it first",
            Self::EfiZboot => "an EFI zboot image",
            Self::Pe => "a PE executable, but not an arm64 kernel",
            Self::Elf => "an ELF file: convert it to an Image with objcopy -O binary",
            Self::UImage => "a U-Boot legacy image: extract the kernel first",
            Self::DeviceTree => "a device tree or FIT image",
            Self::Cpio => "a cpio archive",
            Self::Unknown => "an unknown format",
        })
    }
}

//! What a file is by its first bytes, so that the wrong kind is named as what it is.

use std::fmt;

use linmap_trace::binary::MAGIC;

/// The kind of a file, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// No bytes.
    Empty,
    /// An ELF core: `e_type` is `ET_CORE`.
    ElfCore,
    /// Another ELF file.
    Elf,
    /// A flattened device tree.
    DeviceTree,
    /// A raw arm64 Image: "ARM\x64" at 56.
    Image,
    /// An EFI zboot Image: "MZ", "zimg" at 4.
    Zboot,
    /// Another PE file.
    Pe,
    /// gzip, whatever it holds.
    Gzip,
    /// zstd, whatever it holds.
    Zstd,
    /// xz, whatever it holds.
    Xz,
    /// makedumpfile's compressed dump.
    KdumpCompressed,
    /// QEMU's disk image.
    Qcow2,
    /// Text in UTF-16, by its byte order mark and a first character of ASCII.
    Utf16,
    /// A trace of linmap in binary form.
    Trace,
    /// Lines of text: no NUL byte and valid UTF-8, as far as it was read.
    Text,
    /// None of them.
    Binary,
}

impl FileKind {
    /// How many bytes at the start of a file tell its kind.
    pub const HEAD: usize = 4096;

    /// The kind of a file that starts with `head`, its first [`HEAD`](Self::HEAD) bytes or all of
    /// it.
    pub fn of(head: &[u8]) -> Self {
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        if head.is_empty() {
            Self::Empty
        } else if at(0, b"\x7fELF") {
            let little = head.get(5) == Some(&1);
            let kind = head.get(16..18).and_then(|bytes| bytes.try_into().ok());
            match kind.map(|bytes| if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
            {
                Some(4) => Self::ElfCore,
                _ => Self::Elf,
            }
        } else if at(0, b"\xd0\x0d\xfe\xed") {
            Self::DeviceTree
        } else if at(56, b"ARM\x64") {
            Self::Image
        } else if at(0, b"MZ") {
            if at(4, b"zimg") { Self::Zboot } else { Self::Pe }
        } else if at(0, b"\x1f\x8b") {
            Self::Gzip
        } else if at(0, b"\x28\xb5\x2f\xfd") {
            Self::Zstd
        } else if at(0, b"\xfd7zXZ\0") {
            Self::Xz
        } else if at(0, b"KDUMP   ") {
            Self::KdumpCompressed
        } else if at(0, b"QFI\xfb") {
            Self::Qcow2
        } else if at(0, b"\xff\xfe") && at(3, b"\0") || at(0, b"\xfe\xff\0") {
            Self::Utf16
        } else if at(0, &MAGIC) {
            Self::Trace
        } else if is_text(head) {
            Self::Text
        } else {
            Self::Binary
        }
    }
}

/// A character of UTF-8 may be cut at the end of the head.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !head.contains(&0)
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty file",
            Self::ElfCore => "an ELF core",
            Self::Elf => "an ELF file",
            Self::DeviceTree => "a device tree",
            Self::Image => "an arm64 Image",
            Self::Zboot => "an EFI zboot Image",
            Self::Pe => "a PE file",
            Self::Gzip => "a gzip file",
            Self::Zstd => "a zstd file",
            Self::Xz => "an xz file",
            Self::KdumpCompressed => "a compressed dump of makedumpfile",
            Self::Qcow2 => "a qcow2 disk image",
            Self::Utf16 => "text in UTF-16",
            Self::Trace => "a trace of linmap",
            Self::Text => "a text file",
            Self::Binary => "a binary file of unknown kind",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_first_bytes() {
        assert_eq!(FileKind::of(b""), FileKind::Empty);
        assert_eq!(FileKind::of(b"machine cpus=1\n"), FileKind::Text);
        assert_eq!(FileKind::of(b"\xd0\x0d\xfe\xed\0\0\0\x48"), FileKind::DeviceTree);
        assert_eq!(FileKind::of(b"\x93LMTRACE\x01"), FileKind::Trace);
        assert_eq!(FileKind::of(b"\0\0\0\0"), FileKind::Binary);
        let mut elf = [0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(FileKind::of(&elf), FileKind::Elf);
        elf[16] = 4;
        assert_eq!(FileKind::of(&elf), FileKind::ElfCore);
        // Cut in the middle of a character.
        assert_eq!(FileKind::of("grün".as_bytes().get(..3).unwrap_or_default()), FileKind::Text);
    }
}

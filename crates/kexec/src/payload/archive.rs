//! Reading cpio archives in the "newc" format, which an initramfs has too.
//!
//! A member is a header of 110 characters (a magic of six, then thirteen numbers of eight
//! hexadecimal digits), the name with a NUL, and the data; name and data are each padded to a
//! multiple of 4 bytes from the start. A member named `TRAILER!!!` ends the archive. Magic `070702`
//! adds a checksum: the sum of the data's bytes.

use core::iter::FusedIterator;
use core::ops::Range;
use core::str;

use thiserror::Error;

const HEADER_LEN: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// A checked archive.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

/// One file of an archive. A directory is a member without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The path as the archive has it.
    pub name: &'a str,
    /// The content. It starts at a multiple of 4 bytes from the start of the archive.
    pub data: &'a [u8],
}

/// Why an archive cannot be used. Every offset is in bytes from the start of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A member does not begin with a magic.
    #[error(
        "the archive has {found:02x?} at offset {offset:#x}, where a member should begin with \
         070701 or 070702"
    )]
    WrongMagic {
        /// The offset of the member.
        offset: usize,
        /// The bytes there.
        found: [u8; 6],
    },
    /// A number of a header is not eight hexadecimal digits.
    #[error(
        "the archive has {found:02x?} at offset {offset:#x}, where {field} should be eight hexadecimal digits"
    )]
    BadNumber {
        /// The offset of the number.
        offset: usize,
        /// The field's name.
        field: &'static str,
        /// The bytes there.
        found: [u8; 8],
    },
    /// The archive ends inside a header, name or content.
    #[error(
        "the archive is cut short: {part} at offset {offset:#x} needs {needed:#x} bytes, {left:#x} are left"
    )]
    CutShort {
        /// The part that is cut: header, name or data.
        part: &'static str,
        /// The offset of its start.
        offset: usize,
        /// Its length in bytes.
        needed: usize,
        /// The number of bytes from `offset` to the end of the archive.
        left: usize,
    },
    /// A name is empty, is not UTF-8, or does not have its only NUL at its end.
    #[error("the archive has a member name at offset {offset:#x} that is not NUL-terminated UTF-8")]
    BadName {
        /// The offset of the name.
        offset: usize,
    },
    /// The data of a `070702` member does not have the sum in its header.
    #[error("the archive's data at offset {offset:#x} sums to {found:#x}, its header says {stated:#x}")]
    WrongChecksum {
        /// The offset of the data.
        offset: usize,
        /// The sum in the header.
        stated: u32,
        /// The sum of the data's bytes.
        found: u32,
    },
    /// The last member is not `TRAILER!!!`.
    #[error("the archive ends at offset {offset:#x} without TRAILER!!!: it is incomplete")]
    NoTrailer {
        /// Length of the archive in bytes.
        offset: usize,
    },
    /// A byte other than 0 follows `TRAILER!!!`.
    #[error("the archive has {found:#04x} at offset {offset:#x}, after TRAILER!!!")]
    AfterTrailer {
        /// The offset of the first such byte.
        offset: usize,
        /// That byte.
        found: u8,
    },
}

/// A member and the offset of the next one.
struct Read<'a> {
    member: Member<'a>,
    next: usize,
}

impl<'a> Archive<'a> {
    /// Checks the whole archive. Zeros may follow `TRAILER!!!`.
    ///
    /// # Errors
    ///
    /// - [`ArchiveError::WrongMagic`], [`ArchiveError::BadNumber`], [`ArchiveError::BadName`]: a
    ///   member is malformed.
    /// - [`ArchiveError::CutShort`], [`ArchiveError::NoTrailer`]: the end of the archive is
    ///   missing.
    /// - [`ArchiveError::WrongChecksum`]: the content was altered.
    /// - [`ArchiveError::AfterTrailer`]: other data follows the archive.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let mut offset = 0;
        loop {
            if offset >= bytes.len() {
                return Err(ArchiveError::NoTrailer { offset: bytes.len() });
            }
            let read = read_member(bytes, offset)?;
            offset = read.next;
            if read.member.name == TRAILER {
                break;
            }
        }
        let padding = bytes.get(offset..).unwrap_or_default();
        match padding.iter().enumerate().find(|&(_, &byte)| byte != 0) {
            Some((at, &found)) => {
                Err(ArchiveError::AfterTrailer { offset: offset.saturating_add(at), found })
            }
            None => Ok(Self { bytes }),
        }
    }

    /// Returns the members in the archive's order, without `TRAILER!!!`.
    pub fn members(&self) -> Members<'a> {
        Members { bytes: self.bytes, offset: 0 }
    }

    /// Returns the first member whose name is exactly `name`.
    pub fn find(&self, name: &str) -> Option<Member<'a>> {
        self.members().find(|member| member.name == name)
    }
}

/// The members of an archive: see [`Archive::members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        // The archive was checked, so this fails only at its end, and then on every call.
        let read = read_member(self.bytes, self.offset).ok().filter(|read| read.member.name != TRAILER)?;
        self.offset = read.next;
        Some(read.member)
    }
}

impl FusedIterator for Members<'_> {}

fn read_member(bytes: &[u8], offset: usize) -> Result<Read<'_>, ArchiveError> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let cut = ArchiveError::CutShort { part: "a header", offset, needed: HEADER_LEN, left: rest.len() };
    let Some((&magic, _)) = rest.split_first_chunk::<6>() else { return Err(cut) };
    let summed = match &magic {
        b"070701" => false,
        b"070702" => true,
        _ => return Err(ArchiveError::WrongMagic { offset, found: magic }),
    };
    let Some((header, _)) = rest.split_first_chunk::<HEADER_LEN>() else { return Err(cut) };
    let (_, numbers) = header.split_at(magic.len());
    let (numbers, _) = numbers.as_chunks::<8>();
    let number = |index: usize, field| {
        let found = *numbers.get(index).ok_or(cut)?;
        hexadecimal(found).ok_or(ArchiveError::BadNumber { offset: offset + 6 + 8 * index, field, found })
    };
    // Owner, mode and times are not read.
    let data_len = number(6, "the file size")?;
    let name_len = number(11, "the name size")?;
    let stated = number(12, "the checksum")?;

    let name_at = offset + HEADER_LEN;
    let name_bytes = part(bytes, name_at, name_len, "a name")?;
    let name = match name_bytes.split_last() {
        Some((0, name)) if !name.is_empty() && !name.contains(&0) => str::from_utf8(name).ok(),
        _ => None,
    }
    .ok_or(ArchiveError::BadName { offset: name_at })?;

    let data_at = aligned_end(name_at, name_bytes);
    let data = part(bytes, data_at, data_len, "data")?;
    if summed {
        let found = data.iter().fold(0u32, |sum, &byte| sum.wrapping_add(byte.into()));
        if found != stated {
            return Err(ArchiveError::WrongChecksum { offset: data_at, stated, found });
        }
    }
    Ok(Read { member: Member { name, data }, next: aligned_end(data_at, data) })
}

/// Returns the `len` bytes at `offset`.
fn part<'a>(bytes: &'a [u8], offset: usize, len: u32, part: &'static str) -> Result<&'a [u8], ArchiveError> {
    let needed = len as usize;
    let range = offset.checked_add(needed).map(|end| Range { start: offset, end });
    // The padding before an empty part may be missing at the end of the archive.
    let found = if needed == 0 { Some(&[][..]) } else { range.and_then(|range| bytes.get(range)) };
    found.ok_or(ArchiveError::CutShort { part, offset, needed, left: bytes.len().saturating_sub(offset) })
}

/// Returns the start of the next part. The end of a slice fits in `isize`, so rounding it up does
/// not overflow.
fn aligned_end(offset: usize, part: &[u8]) -> usize {
    (offset + part.len()).next_multiple_of(4)
}

fn hexadecimal(digits: [u8; 8]) -> Option<u32> {
    digits.iter().try_fold(0, |value: u32, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn append(archive: &mut Vec<u8>, magic: &str, name: &str, data: &[u8], checksum: u32) {
        let [mode, name_len] = [0o100_644, name.len() + 1];
        archive.extend(
            format!("{magic}{:08x}{mode:08x}{:040x}", 1, data.len() as u32)
                .into_bytes()
                .iter()
                .copied()
                .chain(format!("{:032x}{name_len:08X}{checksum:08x}", 0).into_bytes()),
        );
        archive.extend(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, data) in members {
            append(&mut archive, "070701", name, data, 0);
        }
        append(&mut archive, "070701", TRAILER, b"", 0);
        archive
    }

    fn payload() -> Vec<u8> {
        archive(&[("cmdline", b"console=ttyAMA0\n"), ("Image", &[7; 1001]), ("empty", b"")])
    }

    #[test]
    fn members_are_listed_in_order_and_found_by_name() {
        let bytes = payload();
        let archive = Archive::parse(&bytes).unwrap();
        let names: Vec<_> = archive.members().map(|member| member.name).collect();
        assert_eq!(names, ["cmdline", "Image", "empty"]);
        assert_eq!(archive.find("Image").unwrap().data, [7; 1001]);
        assert_eq!(archive.find("empty").unwrap().data, b"");
        assert_eq!(archive.find("initrd"), None);
        assert_eq!(archive.find(TRAILER), None);
    }

    #[test]
    fn zeros_after_the_trailer_are_padding_and_anything_else_is_refused() {
        let mut bytes = payload();
        bytes.resize(bytes.len() + 513, 0);
        assert!(Archive::parse(&bytes).is_ok());
        *bytes.last_mut().unwrap() = 1;
        let offset = bytes.len() - 1;
        assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::AfterTrailer { offset, found: 1 });
    }

    #[test]
    fn an_archive_without_its_trailer_is_refused() {
        let bytes = payload();
        let offset = bytes.len() - 124;
        assert_eq!(Archive::parse(&bytes[..offset]).unwrap_err(), ArchiveError::NoTrailer { offset });
        assert_eq!(Archive::parse(&[]).unwrap_err(), ArchiveError::NoTrailer { offset: 0 });
    }

    #[test]
    fn every_cut_through_an_archive_is_an_error() {
        let bytes = payload();
        // The trailer's name ends 3 bytes before the end of its padding.
        for len in 0..bytes.len() - 3 {
            assert!(Archive::parse(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(
            Archive::parse(&bytes[..300]).unwrap_err(),
            ArchiveError::CutShort { part: "data", offset: 252, needed: 1001, left: 48 }
        );
        assert_eq!(
            Archive::parse(&bytes[..100]).unwrap_err(),
            ArchiveError::CutShort { part: "a header", offset: 0, needed: 110, left: 100 }
        );
    }

    #[test]
    fn a_size_beyond_the_archive_is_refused() {
        let mut bytes = payload();
        bytes[54..62].copy_from_slice(b"ffffffff");
        assert_eq!(
            Archive::parse(&bytes).unwrap_err(),
            ArchiveError::CutShort {
                part: "data",
                offset: 120,
                needed: 0xffff_ffff,
                left: bytes.len() - 120
            }
        );
        let mut bytes = payload();
        bytes[94..102].copy_from_slice(b"fffffffe");
        assert!(matches!(
            Archive::parse(&bytes).unwrap_err(),
            ArchiveError::CutShort { part: "a name", offset: 110, needed: 0xffff_fffe, .. }
        ));
    }

    #[test]
    fn a_number_that_is_not_hexadecimal_is_refused() {
        for found in [*b"0000001g", *b"+0000010", *b"0x000010", *b"      10"] {
            let mut bytes = payload();
            bytes[54..62].copy_from_slice(&found);
            assert_eq!(
                Archive::parse(&bytes).unwrap_err(),
                ArchiveError::BadNumber { offset: 54, field: "the file size", found }
            );
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        assert_eq!(
            Archive::parse(b"070707 old").unwrap_err(),
            ArchiveError::WrongMagic { offset: 0, found: *b"070707" }
        );
    }

    #[test]
    fn a_name_that_is_empty_unterminated_or_not_utf8_is_refused() {
        let whole = payload();
        for (at, byte) in [(110, 0xff), (112, 0), (117, b'x')] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::BadName { offset: 110 });
        }
        for name_len in [b"00000000", b"00000001"] {
            let mut bytes = archive(&[("", b"")]);
            bytes[94..102].copy_from_slice(name_len);
            assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::BadName { offset: 110 });
        }
    }

    #[test]
    fn the_checksum_of_the_crc_kind_is_verified() {
        let summed = |checksum| {
            let mut bytes = Vec::new();
            append(&mut bytes, "070702", "Image", &[255; 1000], checksum);
            append(&mut bytes, "070702", TRAILER, b"", 0);
            bytes
        };
        assert_eq!(Archive::parse(&summed(255_000)).unwrap().find("Image").unwrap().data, [255; 1000]);
        assert_eq!(
            Archive::parse(&summed(1)).unwrap_err(),
            ArchiveError::WrongChecksum { offset: 116, stated: 1, found: 255_000 }
        );
    }

    proptest! {
        #[test]
        fn what_is_archived_is_read_back(
            files in prop::collection::vec(
                ("[a-z/.]{1,20}", prop::collection::vec(any::<u8>(), 0..40)),
                0..6,
            ),
        ) {
            let members: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
            let bytes = archive(&members);
            let read = Archive::parse(&bytes).unwrap();
            let read: Vec<_> = read.members().map(|member| (member.name, member.data)).collect();
            prop_assert_eq!(read, members);
        }

        #[test]
        fn no_change_to_an_archive_panics(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = payload();
            for (at, value) in flips {
                *at.get_mut(&mut bytes) ^= value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(archive) = Archive::parse(&bytes) {
                prop_assert!(archive.members().map(|member| member.data.len()).sum::<usize>() <= bytes.len());
            }
        }
    }
}

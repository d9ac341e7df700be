//! Writing cpio archives in the "newc" format: what an arm64 boot loader calls an initrd.
//!
//! Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst. Each member is a
//! header of "070701" and 13 numbers of 8 hex digits, the NUL-terminated name padded to 4 bytes,
//! the data padded to 4 bytes.

/// Why a member cannot be put into an archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The format has 32 bits for a member's size.
    #[error("{name}: {size} bytes do not fit a cpio archive, whose members are below 4 GiB")]
    TooLarge {
        /// The member's name.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    members: u32,
}

/// The members of zeros that move the next one's data to the start of a page.
const ALIGN: &str = "align";
/// The smallest page. The archive itself is loaded on one.
const PAGE: usize = 4096;

/// Magic and numbers, before the name.
const HEADER: usize = 110;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    /// Adds a directory with the permissions 0755.
    pub fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.member(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a regular file with the permissions 0644.
    pub fn file(&mut self, name: &str, data: &[u8]) -> Result<(), ArchiveError> {
        self.member(name, REGULAR | 0o644, (0, 0), data)
    }

    /// Adds a regular file with the permissions 0644 whose data begins on a page, seen from the
    /// archive's start, so that it can be used where it lies. The space before it is a member as
    /// well.
    pub fn file_on_a_page(&mut self, name: &str, data: &[u8]) -> Result<(), ArchiveError> {
        let start = |at: usize, name: &str| (at + HEADER + name.len() + 1).next_multiple_of(4);
        if !start(self.bytes.len(), name).is_multiple_of(PAGE) {
            let zeros_start = start(self.bytes.len(), ALIGN);
            let without_zeros = start(zeros_start, name);
            self.file(ALIGN, &vec![0; without_zeros.next_multiple_of(PAGE) - without_zeros])?;
        }
        self.file(name, data)
    }

    /// Adds a regular file with the permissions 0755.
    pub fn program(&mut self, name: &str, data: &[u8]) -> Result<(), ArchiveError> {
        self.member(name, REGULAR | 0o755, (0, 0), data)
    }

    /// Adds a character device with the permissions 0600.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<(), ArchiveError> {
        self.member(name, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Closes the archive.
    pub fn finish(mut self) -> Result<Vec<u8>, ArchiveError> {
        self.member("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn member(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Result<(), ArchiveError> {
        let size = u32::try_from(data.len())
            .map_err(|_| ArchiveError::TooLarge { name: name.to_owned(), size: data.len() })?;
        self.members += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let name_size = name.len() as u32 + 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check
        let fields = [self.members, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Member {
        name: String,
        mode: u32,
        device: (u32, u32),
        data: Vec<u8>,
    }

    /// All members, read by the format's definition.
    fn members(archive: &[u8]) -> Vec<Member> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701", "at {at:#x}");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&archive[start..start + 8]).unwrap(), 16).unwrap()
            };
            let name_end = at + 110 + field(11) as usize;
            assert_eq!(archive[name_end - 1], 0);
            let name = String::from_utf8(archive[at + 110..name_end - 1].to_vec()).unwrap();
            let data = name_end.next_multiple_of(4);
            let end = data + field(6) as usize;
            if name == "TRAILER!!!" {
                assert_eq!(end.next_multiple_of(4), archive.len());
                return found;
            }
            let device = (field(9), field(10));
            found.push(Member { name, mode: field(1), device, data: archive[data..end].to_vec() });
            at = end.next_multiple_of(4);
        }
    }

    fn member(name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Member {
        Member { name: name.into(), mode, device, data: data.into() }
    }

    #[test]
    fn what_is_written_is_read_back_for_every_padding() {
        let mut archive = Archive::default();
        archive.directory("d").unwrap();
        archive.character_device("d/console", 5, 1).unwrap();
        for length in 0..9 {
            archive.file(&"n".repeat(length + 1), &vec![b'x'; length]).unwrap();
        }
        archive.program("init", b"#!/bin/sh\n").unwrap();
        let found = members(&archive.finish().unwrap());
        assert_eq!(found.len(), 12);
        assert_eq!(found[0], member("d", 0o040_755, (0, 0), b""));
        assert_eq!(found[1], member("d/console", 0o020_600, (5, 1), b""));
        for length in 0..9 {
            assert_eq!(
                found[2 + length],
                member(&"n".repeat(length + 1), 0o100_644, (0, 0), &vec![b'x'; length])
            );
        }
        assert_eq!(found[11], member("init", 0o100_755, (0, 0), b"#!/bin/sh\n"));
    }

    #[test]
    fn data_begins_on_a_page_wherever_the_archive_has_got_to() {
        // All positions in a page that a member can end at, and two that are far into the archive.
        for before in (0..PAGE).step_by(4).chain([3 * PAGE + 1, 9 * PAGE]) {
            let mut archive = Archive::default();
            archive.file("before", &vec![1; before]).unwrap();
            archive.file_on_a_page("Image", b"on a page").unwrap();
            archive.file_on_a_page("initrd", &[2; 5000]).unwrap();
            let bytes = archive.finish().unwrap();
            let start = bytes.windows(9).position(|window| window == b"on a page").unwrap();
            assert!(start.is_multiple_of(PAGE), "{before}: {start:#x}");
            assert_eq!(bytes[start + PAGE..][..5000], [2; 5000], "{before}");
            let found = members(&bytes);
            let (zeros, files): (Vec<_>, Vec<_>) = found.iter().partition(|member| member.name == ALIGN);
            assert!(zeros.iter().all(|member| member.data.iter().all(|&byte| byte == 0)));
            assert!(zeros.iter().all(|member| member.data.len() < PAGE));
            assert_eq!(files.len(), 3, "{before}");
        }
    }

    #[test]
    fn an_empty_archive_is_a_trailer() {
        assert!(members(&Archive::default().finish().unwrap()).is_empty());
    }
}

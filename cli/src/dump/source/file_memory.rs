//! Memory that lies in files.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ranges::disjoint;
use crate::dump::guest::GuestMemory;
use crate::failure::Failure;

/// A piece of memory in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The physical addresses.
    pub memory: Range<u64>,
    /// Where the first byte lies in the file.
    pub offset: u64,
    /// Which file, by its number in [`FileMemory::new`].
    pub file: usize,
}

/// The memory of a guest in files.
pub struct FileMemory {
    files: Vec<(PathBuf, File)>,
    /// Ascending and disjoint.
    pieces: Vec<Piece>,
    ranges: Vec<Range<u64>>,
}

impl FileMemory {
    /// The memory that `pieces` of `files` hold. Where pieces overlap the first one counts.
    pub fn new(files: Vec<(PathBuf, File)>, mut pieces: Vec<Piece>) -> Self {
        pieces.retain(|piece| piece.memory.start < piece.memory.end);
        // Stable: what comes first in the file stays first.
        pieces.sort_by_key(|piece| piece.memory.start);
        let mut end = 0;
        for piece in &mut pieces {
            let skipped = end.clamp(piece.memory.start, piece.memory.end) - piece.memory.start;
            piece.memory.start += skipped;
            piece.offset = piece.offset.saturating_add(skipped);
            end = end.max(piece.memory.end);
        }
        pieces.retain(|piece| piece.memory.start < piece.memory.end);
        let ranges = disjoint(pieces.iter().map(|piece| piece.memory.clone()).collect());
        Self { files, pieces, ranges }
    }
}

impl GuestMemory for FileMemory {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read(&mut self, pa: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        let (mut pa, mut bytes) = (pa, bytes);
        while !bytes.is_empty() {
            let behind = self.pieces.partition_point(|piece| piece.memory.start <= pa);
            let piece = behind.checked_sub(1).and_then(|at| self.pieces.get(at));
            let Some(piece) = piece.filter(|piece| pa < piece.memory.end) else {
                return Err(Failure::new(format_args!("{pa:#x} is not in the memory that was given")));
            };
            let left = usize::try_from(piece.memory.end - pa).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at_mut(left.min(bytes.len()));
            let offset = piece.offset.saturating_add(pa - piece.memory.start);
            let Some((path, file)) = self.files.get(piece.file) else {
                return Err(Failure::new(format_args!("no file has {pa:#x}")));
            };
            file.read_exact_at(part, offset).map_err(|error| Failure::from(error).of(path.display()))?;
            pa += part.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}

/// Opens a file that memory is read from, and tells its length.
///
/// # Errors
/// It can't be opened, or is a folder, a pipe or a device: places in it could not be chosen.
pub fn open(path: &Path) -> Result<(File, u64), Failure> {
    let of = |failure: Failure| failure.of(path.display());
    // Opening a pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(|error| of(error.into()))?;
    if !metadata.is_file() {
        return Err(of(Failure::new("it is not a file but a folder, a pipe or a device")));
    }
    Ok((File::open(path).map_err(|error| of(error.into()))?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (PathBuf, File) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        ("file".into(), file)
    }

    #[test]
    fn pieces_that_touch_are_read_as_one_and_the_first_of_two_counts() {
        let piece = |memory: Range<u64>, offset, file| Piece { memory, offset, file };
        let pieces = vec![piece(8..12, 4, 0), piece(4..8, 0, 0), piece(6..14, 0, 1), piece(20..21, 0, 1)];
        let mut memory = FileMemory::new(vec![file(b"abcdefgh"), file(b"ABCDEFGH")], pieces);
        assert_eq!(memory.ranges(), [4..14, 20..21]);
        let mut bytes = [0; 10];
        memory.read(4, &mut bytes).unwrap();
        // 6..14 comes before 8..12 and has 6..8 twice.
        assert_eq!(&bytes, b"abcdCDEFGH");
        assert!(memory.read(14, &mut bytes[..1]).is_err());
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let pieces = vec![Piece { memory: 0..16, offset: 0, file: 0 }];
        let mut memory = FileMemory::new(vec![file(b"abcd")], pieces);
        let error = memory.read(0, &mut [0; 8]).unwrap_err();
        assert!(error.to_string().starts_with("file: "), "{error}");
    }
}

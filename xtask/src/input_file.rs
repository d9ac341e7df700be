//! The user's files: regular ones only, of a size that fits, and read once.
//!
//! A device or a FIFO has no size and may never end; opening a FIFO already waits for a writer.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// A file that an option names, open.
#[derive(Debug)]
pub struct InputFile {
    option: &'static str,
    path: PathBuf,
    file: File,
    limit: u64,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be opened, read or written.
    #[error("{option} {}: {error}", .path.display())]
    Io {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is something else than a file with a content.
    #[error("{option} {} is {kind}: it has to be a regular file", .path.display())]
    Kind {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is larger than what it is for.
    #[error("{option} {} has {len} bytes, and at most {limit} fit", .path.display())]
    Size {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Its size in bytes, or how many were read.
        len: u64,
        /// The largest size in bytes.
        limit: u64,
    },
}

impl InputFile {
    /// Opens the file of `option`, of at most `limit` bytes.
    pub fn open(option: &'static str, path: &Path, limit: u64) -> Result<Self, FileError> {
        let failed = |error| FileError::Io { option, path: path.to_owned(), error };
        // With this flag a FIFO without a writer opens at once.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        check_kind(option, path, metadata.file_type())?;
        check_size(option, path, metadata.len(), limit)?;
        Ok(Self { option, path: path.to_owned(), file, limit })
    }

    /// The content. A file that has grown since it was opened is refused as well.
    pub fn read(&self) -> Result<Vec<u8>, FileError> {
        let Self { option, path, file, limit } = self;
        let mut content = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(|error| FileError::Io {
            option,
            path: path.clone(),
            error,
        })?;
        check_size(option, path, content.len() as u64, *limit)?;
        Ok(content)
    }
}

/// Checks that `path` is a regular file or does not exist, so that writing to it ends.
pub fn check_output(option: &'static str, path: &Path) -> Result<(), FileError> {
    match std::fs::metadata(path) {
        Ok(metadata) => check_kind(option, path, metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::Io { option, path: path.to_owned(), error }),
    }
}

fn check_size(option: &'static str, path: &Path, len: u64, limit: u64) -> Result<(), FileError> {
    let error = || FileError::Size { option, path: path.to_owned(), len, limit };
    if len > limit { Err(error()) } else { Ok(()) }
}

fn check_kind(option: &'static str, path: &Path, kind: FileType) -> Result<(), FileError> {
    if kind.is_file() {
        return Ok(());
    }
    let kind = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_block_device() => "a block device",
        kind if kind.is_socket() => "a socket",
        _ => "no file",
    };
    Err(FileError::Kind { option, path: path.to_owned(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn refusal(path: &Path) -> String {
        InputFile::open("--dtb", path, 100).unwrap_err().to_string()
    }

    #[test]
    fn devices_fifos_and_directories_are_refused_by_kind_and_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(refusal(Path::new("/dev/zero")).contains("a character device"));
        assert!(refusal(&fifo).contains("a FIFO"), "without waiting for a writer");
        assert!(refusal(folder.path()).contains("a directory"));
        assert!(refusal(&folder.path().join("missing")).contains("No such file"));
        assert!(matches!(check_output("--json", &fifo), Err(FileError::Kind { kind: "a FIFO", .. })));
        assert!(check_output("--json", &folder.path().join("new")).is_ok());
    }

    #[test]
    fn a_file_that_is_too_large_or_grows_is_refused_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(refusal(&path).contains("1099511627776 bytes, and at most 100 fit"));
        std::fs::write(&path, [1; 100]).unwrap();
        let file = InputFile::open("--dtb", &path, 100).unwrap();
        std::fs::write(&path, [1; 200]).unwrap();
        assert!(matches!(file.read(), Err(FileError::Size { len: 101, .. })));
        std::fs::write(&path, [7; 3]).unwrap();
        assert_eq!(InputFile::open("--dtb", &path, 100).unwrap().read().unwrap(), [7; 3]);
    }
}

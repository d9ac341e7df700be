//! The trace on its way: into a file, and to who judges it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Failure;

/// The trace that comes through a socket, and the file that keeps it.
pub struct Tee {
    from: UnixStream,
    out: Option<(PathBuf, File)>,
    /// Bytes that came.
    len: Arc<AtomicU64>,
}

impl Tee {
    pub fn new(from: UnixStream, out: Option<(PathBuf, File)>) -> Self {
        Self { from, out, len: Arc::default() }
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Whether a file keeps the trace.
    pub fn has_file(&self) -> bool {
        self.out.is_some()
    }

    /// Reads the trace, and keeps what was read.
    pub fn reader(&self) -> Result<impl Read + Send + use<>, Failure> {
        let out = match &self.out {
            Some((path, file)) => {
                Some(file.try_clone().map_err(|error| Failure::from(error).of(path.display()))?)
            }
            None => None,
        };
        Ok(Keeping { from: self.from.try_clone()?, out, len: Arc::clone(&self.len) })
    }

    /// Keeps what nobody has read.
    pub fn drain(&mut self) -> Result<(), Failure> {
        let len = match &mut self.out {
            Some((path, file)) => {
                io::copy(&mut self.from, file).map_err(|error| Failure::from(error).of(path.display()))?
            }
            None => io::copy(&mut self.from, &mut io::sink())?,
        };
        self.len.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

struct Keeping {
    from: UnixStream,
    out: Option<File>,
    len: Arc<AtomicU64>,
}

impl Read for Keeping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.len.fetch_add(len as u64, Ordering::Relaxed);
        if let (Some(out), Some(read)) = (&mut self.out, buffer.get(..len)) {
            out.write_all(read)?;
        }
        Ok(len)
    }
}

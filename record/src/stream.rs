//! The trace on its way to the tool.

use std::io::Write;
use std::os::unix::net::UnixStream;

use linmap_trace::binary::{Encoder, LONGEST, MAGIC, Record, VERSION};

/// Bytes that are sent at once.
const CHUNK: usize = 1 << 16;

/// The trace on its way to the tool.
pub struct Stream {
    to: UnixStream,
    encoder: Encoder,
    bytes: Vec<u8>,
    /// The tool has gone: nothing is sent any more, and the guest goes on.
    is_gone: bool,
}

impl Stream {
    /// Begins a trace.
    pub fn new(to: UnixStream) -> Self {
        let mut bytes = Vec::with_capacity(CHUNK + LONGEST);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        Self { to, encoder: Encoder::default(), bytes, is_gone: false }
    }

    /// Adds `record`.
    pub fn put(&mut self, record: &Record<'_>) {
        let mut buffer = [0; LONGEST];
        self.bytes.extend_from_slice(self.encoder.encode(record, &mut buffer));
        if self.bytes.len() >= CHUNK {
            self.flush();
        }
    }

    /// Sends what was added.
    pub fn flush(&mut self) {
        if !self.is_gone {
            self.is_gone = self.to.write_all(&self.bytes).is_err();
        }
        self.bytes.clear();
    }
}

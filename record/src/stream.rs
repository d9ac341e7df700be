//! The trace on its way to the tool.

use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::qemu;
use linmap_trace::Line;
use linmap_trace::binary::{Encoder, LONGEST, MAGIC, Record, VERSION};

/// Bytes that are sent at once.
const CHUNK: usize = 1 << 16;

/// The trace on its way to the tool.
pub struct Stream {
    to: UnixStream,
    encoder: Encoder,
    bytes: Vec<u8>,
    /// The machine is among what was added: without it there is no trace.
    has_begun: bool,
    /// The tool has gone: nothing is sent any more, and QEMU ends.
    is_gone: bool,
}

impl Stream {
    /// Begins a trace.
    pub fn new(to: UnixStream) -> Self {
        let mut bytes = Vec::with_capacity(CHUNK + LONGEST);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        Self { to, encoder: Encoder::default(), bytes, has_begun: false, is_gone: false }
    }

    /// Adds `record`.
    pub fn put(&mut self, record: &Record<'_>) {
        let mut buffer = [0; LONGEST];
        self.bytes.extend_from_slice(self.encoder.encode(record, &mut buffer));
        self.has_begun |= matches!(record, Record::Line(Line::Machine(_)));
        if self.bytes.len() >= CHUNK {
            self.send_what_waits();
        }
    }

    /// Sends what was added, once there is a trace.
    pub fn send_what_waits(&mut self) {
        if self.has_begun && !self.bytes.is_empty() {
            self.flush();
        }
    }

    /// Sends nothing of what was added.
    pub fn end_empty(&mut self) {
        self.bytes.clear();
    }

    /// Sends what was added.
    pub fn flush(&mut self) {
        if !self.is_gone && self.to.write_all(&self.bytes).is_err() {
            self.is_gone = true;
            qemu::end();
        }
        self.bytes.clear();
    }
}

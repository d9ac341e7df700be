//! A buffer that counts all bytes and holds those that fit, so that the code that writes also
//! measures.

use core::fmt;

/// A buffer for a binary format. It accepts any number of bytes, and holds the bytes that have
/// room.
#[derive(Debug)]
pub struct MeasuredBuffer<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> MeasuredBuffer<'b> {
    /// Returns an empty buffer with the room of `bytes`.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Returns the number of bytes written, with or without room.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no byte was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Continues at the start; [`len`](Self::len) is 0 again.
    pub fn rewind(&mut self) {
        self.len = 0;
    }

    /// Writes `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }

    /// Writes zeros up to a multiple of 4 bytes.
    pub fn pad(&mut self) {
        while !self.len.is_multiple_of(4) {
            self.put(&[0]);
        }
    }

    /// Clears the room after the written bytes.
    pub fn clear_rest(&mut self) {
        self.bytes.get_mut(self.len..).unwrap_or_default().fill(0);
    }
}

/// Never fails.
impl fmt::Write for MeasuredBuffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

//! A buffer that is written as far as it goes, so that measuring is writing.

use core::fmt;

/// A buffer, and how much was asked of it.
pub(crate) struct Output<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> Output<'b> {
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// How many bytes were put, with or without room.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Goes on from the beginning.
    pub fn rewind(&mut self) {
        self.len = 0;
    }

    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }

    /// Zeros up to a multiple of 4 bytes.
    pub fn pad(&mut self) {
        while !self.len.is_multiple_of(4) {
            self.put(&[0]);
        }
    }

    /// Zeros up to the end of the buffer.
    pub fn clear_rest(&mut self) {
        self.bytes.get_mut(self.len..).unwrap_or_default().fill(0);
    }
}

impl fmt::Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

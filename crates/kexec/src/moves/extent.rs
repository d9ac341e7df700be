//! Extents: runs of bytes that are moved.

use core::fmt;

use linmap_vmsa::Pa;

/// The content of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentSource {
    /// The bytes from this address on.
    At(Pa),
    /// Zeros.
    Zeros,
}

/// A run of bytes that is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its content.
    pub source: ExtentSource,
    /// The address of its first byte after the move.
    pub destination: Pa,
    /// Its length in bytes; a multiple of [`SEGMENT_ALIGN`](crate::SEGMENT_ALIGN), not 0.
    pub len: u64,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            ExtentSource::At(source) => {
                write!(f, "{:#x} bytes from {source} to {}", self.len, self.destination)
            }
            ExtentSource::Zeros => write!(f, "{:#x} bytes of zeros to {}", self.len, self.destination),
        }
    }
}

//! How a kernel is packed.

use core::fmt;

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not packed.
    Raw,
    /// A sequence of gzip members (RFC 1952).
    Gzip,
    /// A sequence of zstd frames (RFC 8878).
    Zstd,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Packed bytes and their offset in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    pub packing: Packing,
    pub bytes: &'a [u8],
    /// Their offset in bytes from the start of the file.
    pub offset: usize,
}

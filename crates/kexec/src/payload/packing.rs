//! How a kernel is packed.

use core::fmt;

/// How a kernel is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Raw,
    /// As gzip members (RFC 1952), one after the other.
    Gzip,
    /// As zstd frames (RFC 8878), one after the other.
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

/// Packed bytes and where they are from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    pub packing: Packing,
    pub bytes: &'a [u8],
    /// Where they are in the file, in bytes from its start.
    pub offset: usize,
}

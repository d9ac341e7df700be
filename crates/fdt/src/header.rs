//! The header of a blob: ten big-endian words.

/// The first word of every blob.
pub(crate) const MAGIC: u32 = 0xd00d_feed;
/// The format version that is read and written.
pub(crate) const VERSION: u32 = 17;
/// Length of the header in bytes.
pub(crate) const LEN: usize = 40;

//! The kinds of records in a move list.
//!
//! A record is three little-endian words of 64 bits: source, destination, and length with the kind
//! in bits 11:0. Addresses are physical, lengths whole pages of 4096 bytes. A list ends with a copy
//! of length 0.

/// The bits of a record's third word that hold its kind; the others hold its length.
pub const KIND_MASK: u64 = 0xfff;
/// The kind of a copy from the lowest address to the highest and, with length 0, of the end.
pub const KIND_COPY: u64 = 0;
/// The kind of a copy from the highest address to the lowest.
pub const KIND_COPY_DOWNWARDS: u64 = 1;
/// The kind of a record that clears memory.
pub const KIND_CLEAR: u64 = 2;
/// The kind of a record that links to the next frame: its first word is the frame's address.
pub const KIND_LINK: u64 = 3;
/// The kind of the record that lets the other CPUs start.
pub const KIND_GO: u64 = 4;

//! What a trace begins with: the machine that the events happen on, and its memory.

/// What memory is counted in: memory of a machine and freed memory are whole pages of 4 KiB.
pub const PAGE: u64 = 0x1000;

/// The most CPUs of a machine, so that a set of CPUs fits 64 bits.
pub const MAX_CPUS: usize = 64;

/// Granules by the names of the text form.
pub(crate) const GRANULES: [(&str, u64); 3] = [("4K", 0x1000), ("16K", 0x4000), ("64K", 0x1_0000)];

/// The machine without its memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Head {
    /// The number of CPUs, 1 to [`MAX_CPUS`].
    pub cpus: usize,
    /// FEAT_BBM level of every CPU, 0 to 3.
    pub bbm: u8,
    /// Granule in bytes: 0x1000, 0x4000 or 0x10000.
    pub granule: u64,
    /// Bits of virtual address that the tables resolve, 25 to 52; of intermediate physical address
    /// for stage 2.
    pub va_bits: u8,
    /// Bits of physical address, one of 32, 36, 40, 42, 44, 48, 52.
    pub pa_bits: u8,
}

/// A range of the machine's memory, in whole pages. Its content is unknown until it is stored to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ram {
    /// The first byte.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
}

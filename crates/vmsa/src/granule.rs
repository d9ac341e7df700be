//! The translation granule: the size of a page and of a table.

/// The size of a page, and of a full translation table, in one stage of translation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Granule {
    /// 4 KiB: 512 entries a table.
    K4,
    /// 16 KiB: 2048 entries a table.
    K16,
    /// 64 KiB: 8192 entries a table.
    K64,
}

impl Granule {
    /// log2 of the page size in bytes.
    #[inline]
    pub const fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Bytes in a page and in a full table.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Address bits that one full table resolves: log2 of its entries, 8 bytes each.
    #[inline]
    pub const fn index_bits(self) -> u32 {
        self.shift() - 3
    }

    /// Entries in a full table.
    #[inline]
    pub const fn entries(self) -> usize {
        1 << self.index_bits()
    }

    /// The VA sizes of kernels: those at which the root is a whole table, from 36 bits on, then 48
    /// and 52 bits (FEAT_LPA2; FEAT_LVA with 64K). They ascend.
    pub const fn va_sizes(self) -> &'static [u8] {
        match self {
            Self::K4 => &[39, 48, 52],
            Self::K16 => &[36, 47, 48, 52],
            Self::K64 => &[42, 48, 52],
        }
    }
}

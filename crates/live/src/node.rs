//! A table of a tree and the addresses that it translates.

use linmap_vmsa::{Level, Pa};

/// A table on the way down a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub table: Pa,
    /// First address that the table translates.
    pub base: u64,
    /// log2 of the bytes that one entry translates.
    pub shift: u32,
    pub level: Level,
}

// Nothing here wraps: no entry lies beyond the address space, and every shift is that of a level.
impl Node {
    /// First address that entry `index` translates.
    #[inline]
    pub const fn va(&self, index: usize) -> u64 {
        self.base.wrapping_add((index as u64).wrapping_shl(self.shift))
    }

    /// Last address that entry `index` translates.
    #[inline]
    pub const fn last(&self, index: usize) -> u64 {
        self.va(index) | 1u64.wrapping_shl(self.shift).wrapping_sub(1)
    }

    /// The entry for `va`, an address that the table translates.
    #[inline]
    pub const fn index(&self, va: u64) -> usize {
        va.wrapping_sub(self.base).wrapping_shr(self.shift) as usize
    }
}

//! The lookup level of a translation table.

use core::fmt;

/// A lookup level, −1 to 3 (Arm ARM D8.2.2): a walk starts at the lowest number its geometry needs
/// and ends at 3 or at a block before it. Level −1 exists only with LPA2 and the 4K granule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Level(i8);

impl Level {
    /// The extra level of a 4K walk over more than 48 bits.
    pub const MINUS_1: Self = Self(-1);
    /// The top level of a 4K walk over 40 to 48 bits; a PGD in Linux's words.
    pub const L0: Self = Self(0);
    /// 1 GiB an entry with the 4K granule.
    pub const L1: Self = Self(1);
    /// 2 MiB an entry with the 4K granule, 32 MiB with 16K, 512 MiB with 64K.
    pub const L2: Self = Self(2);
    /// The level of pages.
    pub const L3: Self = Self(3);

    /// The level with number `number`, or `None` outside −1 to 3.
    #[inline]
    pub const fn new(number: i8) -> Option<Self> {
        if number >= -1 && number <= 3 { Some(Self(number)) } else { None }
    }

    /// The level's number, −1 to 3.
    #[inline]
    pub const fn number(self) -> i8 {
        self.0
    }

    /// How many levels lie below: 0 for the level of pages, 4 for level −1.
    #[inline]
    pub const fn above_pages(self) -> u32 {
        (3 - self.0) as u32
    }

    /// The level that a table descriptor found at this level leads to, or `None` at the level of
    /// pages.
    #[inline]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

//! Physical and virtual addresses, and ranges of them, in bytes.

use core::fmt;

/// A physical address in bytes. 0 is an address like any other: RAM begins there on many boards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Pa(pub u64);

/// A virtual address in bytes, in its full 64-bit form (TTBR1 addresses have their top bits set).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Va(pub u64);

impl fmt::Debug for Pa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Pa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Va {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Display for Va {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A half-open range of physical addresses, `start..end`, in bytes. Physical addresses have at most
/// 56 bits, so the end of a range on a real machine never wraps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PaRange {
    /// First address in the range.
    pub start: Pa,
    /// First address after the range; never below `start`.
    pub end: Pa,
}

impl fmt::Debug for PaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

impl fmt::Display for PaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

impl PaRange {
    /// The range `start..end`. An `end` below `start` gives the empty range at `start`.
    pub const fn new(start: Pa, end: Pa) -> Self {
        Self { start, end: if end.0 < start.0 { start } else { end } }
    }

    /// `len` bytes from `start`, or `None` when the end does not fit in 64 bits.
    pub const fn from_len(start: Pa, len: u64) -> Option<Self> {
        match start.0.checked_add(len) {
            Some(end) => Some(Self { start, end: Pa(end) }),
            None => None,
        }
    }

    /// Length in bytes.
    pub const fn len(self) -> u64 {
        // `end` may be below `start` in a literal.
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(self) -> bool {
        self.end.0 == self.start.0
    }

    /// Whether the byte at `pa` lies in the range.
    pub const fn contains(self, pa: Pa) -> bool {
        self.start.0 <= pa.0 && pa.0 < self.end.0
    }

    /// Whether every byte of `other` lies in the range. The empty range lies in every range.
    pub const fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.start.0 <= other.start.0 && other.end.0 <= self.end.0)
    }

    /// Whether both ranges have a byte in common.
    pub const fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// The bytes that lie in both ranges; empty when there are none.
    pub const fn intersection(self, other: Self) -> Self {
        let start = if self.start.0 > other.start.0 { self.start } else { other.start };
        let end = if self.end.0 < other.end.0 { self.end } else { other.end };
        Self::new(start, end)
    }

    /// The largest range inside this one whose ends are multiples of `align`, a power of two; may
    /// be empty.
    pub const fn align_inward(self, align: u64) -> Self {
        match self.start.0.checked_next_multiple_of(align) {
            Some(start) => Self::new(Pa(start), Pa(self.end.0 & !(align - 1))),
            None => Self::new(self.end, self.end),
        }
    }

    /// The smallest range around this one whose ends are multiples of `align`, a power of two, or
    /// `None` when its end does not fit in 64 bits.
    pub const fn align_outward(self, align: u64) -> Option<Self> {
        match self.end.0.checked_next_multiple_of(align) {
            Some(end) => Some(Self { start: Pa(self.start.0 & !(align - 1)), end: Pa(end) }),
            None => None,
        }
    }
}

/// A range of virtual addresses, in bytes. It has a start and a length, since a range may end at
/// the top of the address space, 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaRange {
    /// First address in the range.
    pub start: Va,
    /// Length in bytes.
    pub len: u64,
}

impl VaRange {
    /// `len` bytes from `start`.
    pub const fn new(start: Va, len: u64) -> Self {
        Self { start, len }
    }

    /// The last address in the range, or `None` when it is empty or reaches beyond 2^64.
    pub const fn last(self) -> Option<Va> {
        match self.len.checked_sub(1) {
            Some(len) => match self.start.0.checked_add(len) {
                Some(last) => Some(Va(last)),
                None => None,
            },
            None => None,
        }
    }
}

impl fmt::Debug for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.start, self.len)
    }
}

impl fmt::Display for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn a_range_whose_end_does_not_fit_is_refused() {
        assert_eq!(PaRange::from_len(Pa(u64::MAX), 2), None);
        assert_eq!(PaRange::from_len(Pa(0x1000), 0x2000), Some(range(0x1000, 0x3000)));
    }

    #[test]
    fn aligning_inward_never_grows_and_may_empty_the_range() {
        assert_eq!(range(0x1001, 0x3fff).align_inward(0x1000), range(0x2000, 0x3000));
        assert!(range(0x1001, 0x1fff).align_inward(0x1000).is_empty());
        assert!(range(u64::MAX - 1, u64::MAX).align_inward(0x1000).is_empty());
    }

    #[test]
    fn aligning_outward_never_shrinks_the_range() {
        assert_eq!(range(0x1001, 0x1002).align_outward(0x1000), Some(range(0x1000, 0x2000)));
        assert_eq!(range(0x1001, u64::MAX).align_outward(0x1000), None);
    }

    #[test]
    fn ranges_that_only_touch_do_not_overlap() {
        assert!(!range(0, 0x1000).overlaps(range(0x1000, 0x2000)));
        assert!(range(0, 0x1001).overlaps(range(0x1000, 0x2000)));
        assert!(range(0, 0x1000).covers(range(0x1000, 0x1000)));
    }
}

//! Memory that is mapped by pages, whatever the rest of the map is made of.

use core::iter;

use arrayvec::ArrayVec;
use linmap_vmsa::PaRange;
use thiserror::Error;

/// How many ranges there can be.
const MAX_RANGES: usize = 8;

/// The most parts that they cut a range into.
pub(crate) const MAX_PARTS: usize = 2 * MAX_RANGES + 1;

/// There are too many ranges of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no room to keep {range} in pages: there are {MAX_RANGES} such ranges already")]
pub struct TooManyPageRanges {
    /// The range without room.
    pub range: PaRange,
}

/// Memory that is mapped by pages without the contiguous bit, whatever the rest of the map is made
/// of: at most 8 ranges.
///
/// A kernel names memory here of which single pages change often, and perhaps where nothing may
/// split a block or wait for other CPUs: the pool of a sampling memory checker such as KFENCE,
/// which makes a page invalid for each object that it guards. No fold makes such pages larger.
///
/// ```
/// use linmap::PageRanges;
/// use linmap_vmsa::{Pa, PaRange};
///
/// let mut pages = PageRanges::new();
/// pages.insert(PaRange::new(Pa(0x4000_0000), Pa(0x4010_0000)))?;
/// // The ranges touch: they are one.
/// pages.insert(PaRange::new(Pa(0x4010_0000), Pa(0x4020_0000)))?;
/// let mut whole = PageRanges::new();
/// whole.insert(PaRange::new(Pa(0x4000_0000), Pa(0x4020_0000)))?;
/// assert_eq!(pages, whole);
/// # Ok::<(), linmap::TooManyPageRanges>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageRanges {
    /// Ascending; none overlaps or touches the next.
    ranges: ArrayVec<PaRange, MAX_RANGES>,
}

impl PageRanges {
    /// Returns no range.
    pub const fn new() -> Self {
        Self { ranges: ArrayVec::new_const() }
    }

    /// Adds `range`, whole pages.
    ///
    /// # Errors
    /// [`TooManyPageRanges`], and nothing was added.
    pub fn insert(&mut self, range: PaRange) -> Result<(), TooManyPageRanges> {
        if range.is_empty() {
            return Ok(());
        }
        let touches = |other: &PaRange| other.start <= range.end && range.start <= other.end;
        let whole =
            self.ranges.iter().filter(|other| touches(other)).fold(range, |whole, other| {
                PaRange::new(whole.start.min(other.start), whole.end.max(other.end))
            });
        let rest = self.ranges.iter().filter(|other| !touches(other)).count();
        if rest == MAX_RANGES {
            return Err(TooManyPageRanges { range });
        }
        self.ranges.retain(|other| !touches(other));
        let at = self.ranges.partition_point(|other| other.start < whole.start);
        self.ranges.insert(at, whole);
        Ok(())
    }

    /// Removes `range`, whole pages.
    ///
    /// # Errors
    /// [`TooManyPageRanges`] where what is left of a range on both sides has no room. Nothing was
    /// removed.
    pub fn remove(&mut self, range: PaRange) -> Result<(), TooManyPageRanges> {
        let mut left = Self::new();
        for &of in &self.ranges {
            let below = PaRange::new(of.start, of.end.min(range.start));
            let above = PaRange::new(of.start.max(range.end), of.end);
            for part in [below, above] {
                left.insert(part)?;
            }
        }
        *self = left;
        Ok(())
    }

    /// Returns the ranges, ascending. None overlaps or touches the next.
    pub fn iter(&self) -> impl Iterator<Item = PaRange> {
        self.ranges.iter().copied()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the first part of `range`, if it is not empty, and whether it is one of these
    /// ranges.
    #[inline]
    pub(crate) fn first_part(&self, range: PaRange) -> Option<(PaRange, bool)> {
        let PaRange { start, end } = range;
        if start >= end {
            return None;
        }
        for other in &self.ranges {
            if start < other.start {
                return Some((PaRange::new(start, end.min(other.start)), false));
            }
            if start < other.end {
                return Some((PaRange::new(start, end.min(other.end)), true));
            }
        }
        Some((range, false))
    }

    /// Returns the parts of `range`, ascending, each with whether it is one of these ranges.
    /// Together they are all of `range`.
    pub(crate) fn parts(&self, range: PaRange) -> impl Iterator<Item = (PaRange, bool)> {
        let mut left = range;
        iter::from_fn(move || {
            let part = self.first_part(left)?;
            left.start = part.0.end;
            Some(part)
        })
    }

    /// Returns the first part of `range` that lies in none of these ranges, up to the next of them.
    #[inline]
    pub(crate) fn next_outside(&self, range: PaRange) -> Option<PaRange> {
        let mut left = range;
        loop {
            match self.first_part(left)? {
                (part, false) => return Some(part),
                (part, true) => left.start = part.end,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Pa;
    use std::vec::Vec;

    const fn range(start: u64, end: u64) -> PaRange {
        PaRange { start: Pa(start), end: Pa(end) }
    }

    fn of(ranges: &[PaRange]) -> PageRanges {
        let mut of = PageRanges::new();
        ranges.iter().for_each(|range| of.insert(*range).unwrap());
        of
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let ranges = of(&[range(5, 6), range(1, 2), range(3, 4), range(2, 3), range(9, 9)]);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [range(1, 4), range(5, 6)]);
        assert_eq!(of(&[range(1, 3), range(2, 8)]), of(&[range(1, 8)]));
    }

    #[test]
    fn the_parts_of_a_range_are_all_of_it() {
        let ranges = of(&[range(2, 4), range(6, 8)]);
        let parts = |start, end| ranges.parts(range(start, end)).collect::<Vec<_>>();
        let all = [
            (range(1, 2), false),
            (range(2, 4), true),
            (range(4, 6), false),
            (range(6, 8), true),
            (range(8, 9), false),
        ];
        assert_eq!(parts(1, 9), all);
        assert_eq!(parts(3, 7), [(range(3, 4), true), (range(4, 6), false), (range(6, 7), true)]);
        assert_eq!(parts(8, 9), [(range(8, 9), false)]);
        assert_eq!(parts(3, 3), []);
    }

    #[test]
    fn what_lies_outside_is_found_part_by_part() {
        let ranges = of(&[range(2, 4), range(6, 8)]);
        let next = |start, end| ranges.next_outside(range(start, end));
        assert_eq!(next(0, 9), Some(range(0, 2)));
        assert_eq!(next(2, 9), Some(range(4, 6)));
        assert_eq!(next(5, 9), Some(range(5, 6)));
        assert_eq!(next(6, 9), Some(range(8, 9)));
        assert_eq!(next(9, 9), None);
        assert_eq!(next(3, 4), None);
        assert_eq!(next(7, 8), None);
        assert_eq!(PageRanges::new().next_outside(range(1, 5)), Some(range(1, 5)));
    }

    #[test]
    fn a_range_without_room_is_refused_and_nothing_changes() {
        let mut ranges = PageRanges::new();
        (0..8).for_each(|nth| ranges.insert(range(4 * nth, 4 * nth + 3)).unwrap());
        let before = ranges.clone();
        assert_eq!(ranges.insert(range(40, 41)), Err(TooManyPageRanges { range: range(40, 41) }));
        assert!(ranges.remove(range(1, 2)).is_err());
        assert_eq!(ranges, before);
        ranges.insert(range(3, 4)).unwrap();
        ranges.insert(range(40, 41)).unwrap();
        ranges.remove(range(0, 41)).unwrap();
        assert!(ranges.is_empty());
    }
}

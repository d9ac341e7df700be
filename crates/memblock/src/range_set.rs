//! A set of physical addresses: sorted ranges that neither overlap nor touch.

use core::fmt;

use arrayvec::ArrayVec;
use linmap_vmsa::{Pa, PaRange};

/// The set needs one more range than fits into it. The set is unchanged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Ranges in ascending order: up to `N`, or as many as its lent storage holds. Ranges that overlap
/// or touch are merged, so equal sets are equal lists.
pub(crate) struct RangeSet<const N: usize> {
    /// Empty once the set has grown. Its unused part is never written: a set on a stack is cheap.
    own: ArrayVec<PaRange, N>,
    lent: Option<Lent>,
}

/// Storage that replaces a set's own once it has grown.
struct Lent {
    storage: &'static mut [PaRange],
    len: usize,
}

impl Lent {
    fn as_mut_slice(&mut self) -> &mut [PaRange] {
        self.storage.get_mut(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> PartialEq for RangeSet<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<const N: usize> Eq for RangeSet<N> {}

impl<const N: usize> fmt::Debug for RangeSet<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl<const N: usize> RangeSet<N> {
    pub(crate) const fn new() -> Self {
        Self { own: ArrayVec::new_const(), lent: None }
    }

    /// How many ranges fit.
    pub(crate) fn capacity(&self) -> usize {
        self.lent.as_ref().map_or(N, |lent| lent.storage.len())
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[PaRange] {
        match &self.lent {
            None => &self.own,
            Some(lent) => lent.storage.get(..lent.len).unwrap_or_default(),
        }
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [PaRange] {
        match &mut self.lent {
            None => &mut self.own,
            Some(lent) => lent.as_mut_slice(),
        }
    }

    /// Moves the ranges to `storage`, which must have room for them.
    pub(crate) fn grow(&mut self, storage: &'static mut [PaRange]) {
        let len = self.as_slice().len();
        for (to, from) in storage.iter_mut().zip(self.as_slice()) {
            *to = *from;
        }
        self.own.clear();
        self.lent = Some(Lent { storage, len });
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        self.own.clear();
        if let Some(lent) = &mut self.lent {
            lent.len = 0;
        }
    }

    /// Removes everything and returns to the set's own storage.
    pub(crate) fn shrink(&mut self) {
        self.own.clear();
        self.lent = None;
    }

    /// Replaces the content by that of `other`.
    pub(crate) fn copy_from(&mut self, other: &Self) -> Result<(), Full> {
        let ranges = other.as_slice();
        if ranges.len() > self.capacity() {
            return Err(Full);
        }
        match &mut self.lent {
            None => {
                self.own.clear();
                self.own.try_extend_from_slice(ranges).map_err(|_| Full)?;
            }
            Some(lent) => {
                lent.len = ranges.len();
                lent.as_mut_slice().copy_from_slice(ranges);
            }
        }
        Ok(())
    }

    /// Puts `range` at `index`, at most the number of ranges, before all that follow.
    fn put(&mut self, index: usize, range: PaRange) -> Result<(), Full> {
        let Some(lent) = &mut self.lent else {
            return self.own.try_insert(index, range).map_err(|_| Full);
        };
        if lent.len >= lent.storage.len() {
            return Err(Full);
        }
        lent.len += 1;
        let ranges = lent.as_mut_slice();
        ranges.copy_within(index..ranges.len() - 1, index + 1);
        if let Some(slot) = ranges.get_mut(index) {
            *slot = range;
        }
        Ok(())
    }

    /// Removes the ranges from `first` to below `last`, at most the number of ranges.
    fn cut(&mut self, first: usize, last: usize) {
        if first >= last {
            return;
        }
        match &mut self.lent {
            None => drop(self.own.drain(first..last)),
            Some(lent) => {
                lent.as_mut_slice().copy_within(last.., first);
                lent.len -= last - first;
            }
        }
    }

    /// Returns the range that contains `pa`.
    pub(crate) fn containing(&self, pa: Pa) -> Option<PaRange> {
        self.first_ending_above(pa).filter(|range| range.start <= pa)
    }

    /// Returns the lowest range that has a byte at or above `pa`.
    pub(crate) fn first_ending_above(&self, pa: Pa) -> Option<PaRange> {
        first_ending_above(self.as_slice(), pa)
    }

    /// Returns the lowest address in `range` that is not in the set, or `None` if all are.
    pub(crate) fn first_missing(&self, range: PaRange) -> Option<Pa> {
        if range.end <= range.start {
            return None;
        }
        match self.containing(range.start) {
            None => Some(range.start),
            Some(found) if found.end < range.end => Some(found.end),
            Some(_) => None,
        }
    }

    /// Adds all bytes of `range`, which must not be empty. Returns the index of the range that
    /// holds them.
    pub(crate) fn insert(&mut self, range: PaRange) -> Result<usize, Full> {
        let ranges = self.as_slice();
        let first = ranges.partition_point(|old| old.end < range.start);
        let last = ranges.partition_point(|old| old.start <= range.end);
        let (low, high) = match ranges.get(first..last) {
            Some([one]) => (*one, *one),
            Some([low, .., high]) => (*low, *high),
            _ => {
                self.put(first, range)?;
                return Ok(first);
            }
        };
        if let Some(slot) = self.as_mut_slice().get_mut(first) {
            *slot = PaRange::new(low.start.min(range.start), high.end.max(range.end));
        }
        self.cut(first + 1, last);
        Ok(first)
    }

    /// Removes all bytes of `range` from the set.
    pub(crate) fn remove(&mut self, range: PaRange) -> Result<(), Full> {
        let ranges = self.as_slice();
        let first = ranges.partition_point(|old| old.end <= range.start);
        let last = ranges.partition_point(|old| old.start < range.end);
        let (low, high) = match ranges.get(first..last) {
            Some([one]) => (*one, *one),
            Some([low, .., high]) => (*low, *high),
            _ => return Ok(()),
        };
        let below = PaRange::new(low.start, range.start);
        let above = PaRange::new(range.end, high.end);
        if low == high && !below.is_empty() && !above.is_empty() {
            self.put(first + 1, above)?;
            if let Some(slot) = self.as_mut_slice().get_mut(first) {
                *slot = below;
            }
            return Ok(());
        }
        let mut next = first;
        let ranges = self.as_mut_slice();
        for piece in [below, above] {
            if !piece.is_empty()
                && let Some(slot) = ranges.get_mut(next)
            {
                *slot = piece;
                next += 1;
            }
        }
        self.cut(next, last);
        Ok(())
    }

    /// Returns the range at `index`, to move its start. The start must stay above the end of the
    /// range before.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut PaRange> {
        self.as_mut_slice().get_mut(index)
    }

    /// Shrinks each range to whole pages of `page` bytes, a power of two. Removes ranges without a
    /// whole page.
    pub(crate) fn align_inward(&mut self, page: u64) {
        let ranges = self.as_mut_slice();
        let (count, mut left) = (ranges.len(), 0);
        for nth in 0..count {
            let aligned = ranges.get(nth).map_or(PaRange::default(), |range| range.align_inward(page));
            if !aligned.is_empty()
                && let Some(slot) = ranges.get_mut(left)
            {
                *slot = aligned;
                left += 1;
            }
        }
        self.cut(left, count);
    }
}

/// Returns the lowest of `ranges` that has a byte at or above `pa`.
#[inline]
fn first_ending_above(ranges: &[PaRange], pa: Pa) -> Option<PaRange> {
    ranges.get(ranges.partition_point(|range| range.end <= pa)).copied()
}

/// Returns the highest of `ranges` that has a byte below `pa`.
#[inline]
fn last_starting_below(ranges: &[PaRange], pa: Pa) -> Option<PaRange> {
    ranges.partition_point(|range| range.start < pa).checked_sub(1).and_then(|i| ranges.get(i)).copied()
}

/// The ranges of one set without those of `K` other sets, inside a window, from either end.
#[derive(Clone, Debug)]
pub(crate) struct Difference<'a, const K: usize> {
    base: &'a [PaRange],
    without: [&'a [PaRange]; K],
    /// The part that neither end has reached.
    window: PaRange,
}

impl<'a, const K: usize> Difference<'a, K> {
    pub(crate) fn new<const N: usize>(
        base: &'a RangeSet<N>,
        without: [&'a RangeSet<N>; K],
        window: PaRange,
    ) -> Self {
        Self { base: base.as_slice(), without: without.map(RangeSet::as_slice), window }
    }
}

impl<const K: usize> Iterator for Difference<'_, K> {
    type Item = PaRange;

    fn next(&mut self) -> Option<PaRange> {
        loop {
            let run = first_ending_above(self.base, self.window.start)?.intersection(self.window);
            if run.is_empty() {
                return None;
            }
            let holes = self.without.iter().filter_map(|ranges| first_ending_above(ranges, run.start));
            let Some(hole) = holes.min_by_key(|hole| hole.start) else {
                self.window.start = run.end;
                return Some(run);
            };
            if hole.start <= run.start {
                self.window = PaRange::new(hole.end, self.window.end);
                continue;
            }
            let end = hole.start.min(run.end);
            self.window.start = end;
            return Some(PaRange::new(run.start, end));
        }
    }
}

impl<const K: usize> DoubleEndedIterator for Difference<'_, K> {
    fn next_back(&mut self) -> Option<PaRange> {
        loop {
            let run = last_starting_below(self.base, self.window.end)?.intersection(self.window);
            if run.is_empty() {
                return None;
            }
            let holes = self.without.iter().filter_map(|ranges| last_starting_below(ranges, run.end));
            let Some(hole) = holes.max_by_key(|hole| hole.end) else {
                self.window.end = run.start;
                return Some(run);
            };
            if hole.end >= run.end {
                self.window = PaRange::new(self.window.start, hole.start);
                continue;
            }
            let start = hole.end.max(run.start);
            self.window.end = start;
            return Some(PaRange::new(start, run.end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;

    const fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet<4> {
        let mut set = RangeSet::new();
        for &(start, end) in ranges {
            set.insert(range(start, end)).unwrap();
        }
        set
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(set(&[(0, 1), (2, 3), (1, 2)]).as_slice(), [range(0, 3)]);
        assert_eq!(set(&[(5, 6), (1, 2), (3, 4)]).as_slice(), [range(1, 2), range(3, 4), range(5, 6)]);
        assert_eq!(set(&[(1, 2), (3, 4), (0, 9)]).as_slice(), [range(0, 9)]);
    }

    #[test]
    fn a_full_set_still_takes_what_merges_and_refuses_the_rest_unchanged() {
        let mut full = set(&[(0, 1), (2, 3), (4, 5), (6, 7)]);
        let before = full.as_slice().to_vec();
        assert_eq!(full.insert(range(8, 9)), Err(Full));
        assert_eq!(full.as_slice(), before);
        assert_eq!(full.insert(range(7, 9)), Ok(3));
        let before = full.as_slice().to_vec();
        assert_eq!(full.remove(range(7, 8)), Err(Full), "a hole needs a fifth range");
        assert_eq!(full.as_slice(), before);
        assert_eq!(full.remove(range(0, 8)), Ok(()));
        assert_eq!(full.as_slice(), [range(8, 9)]);
    }

    #[test]
    fn removing_cuts_the_ends_and_drops_the_middle() {
        let mut cut = set(&[(0, 4), (6, 8), (10, 14)]);
        cut.remove(range(2, 12)).unwrap();
        assert_eq!(cut.as_slice(), [range(0, 2), range(12, 14)]);
        cut.remove(range(0, 2)).unwrap();
        assert_eq!(cut.as_slice(), [range(12, 14)]);
    }

    #[test]
    fn the_first_missing_byte_is_found_at_the_start_and_behind_a_range() {
        let some = set(&[(0, 4), (6, 8)]);
        assert_eq!(some.first_missing(range(5, 7)), Some(Pa(5)));
        assert_eq!(some.first_missing(range(1, 7)), Some(Pa(4)));
        assert_eq!(some.first_missing(range(1, 4)), None);
        assert_eq!(some.first_missing(range(9, 9)), None);
    }

    #[test]
    fn aligning_inward_drops_what_holds_no_page() {
        let mut pages = set(&[(1, 0x0fff), (0x1800, 0x3800), (0x4000, 0x5000)]);
        pages.align_inward(0x1000);
        assert_eq!(pages.as_slice(), [range(0x2000, 0x3000), range(0x4000, 0x5000)]);
    }

    #[test]
    fn a_set_that_grows_keeps_its_ranges_and_one_that_shrinks_its_own_room() {
        let mut grown = set(&[(0, 1), (2, 3), (4, 5), (6, 7)]);
        assert_eq!(grown.insert(range(8, 9)), Err(Full));
        grown.grow(Box::leak(Box::new([PaRange::default(); 6])));
        assert_eq!((grown.capacity(), grown.insert(range(8, 9))), (6, Ok(4)));
        let starts: Vec<_> = grown.as_slice().iter().map(|range| range.start.0).collect();
        assert_eq!(starts, [0, 2, 4, 6, 8]);
        assert_eq!(set(&[]).copy_from(&grown), Err(Full));
        grown.shrink();
        assert_eq!((grown.capacity(), grown.as_slice()), (4, [].as_slice()));
    }
}

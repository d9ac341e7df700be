//! Finding the list frames that lie in sources.

use linmap_vmsa::{Pa, PaRange};

use super::list::LIST_FRAME_LEN;

/// Finds frames in an ascending sequence by binary search. It looks at the last place first: lists
/// read memory mostly in one direction, so most searches end after two frames.
#[derive(Debug)]
pub(super) struct FrameFinder {
    len: usize,
    /// The index that the last search found.
    last: usize,
}

impl FrameFinder {
    /// Returns a finder for `len` frames.
    pub(super) fn new(len: usize) -> Self {
        Self { len, last: 0 }
    }

    /// Returns the lowest frame that overlaps `range`. `frame` returns the frame at an index below
    /// the number of frames; the frames ascend.
    pub(super) fn lowest_in(&mut self, range: PaRange, frame: impl Fn(usize) -> Option<Pa>) -> Option<Pa> {
        if range.is_empty() {
            return None;
        }
        // All frames at indices below `low` end at or below the range's start, all from `high` on
        // end above it.
        let (mut low, mut high) = (0, self.len);
        let look_at = |index: usize, low: &mut usize, high: &mut usize| {
            if frame(index).is_some_and(|frame| frame.0.saturating_add(LIST_FRAME_LEN) <= range.start.0) {
                *low = index + 1;
            } else {
                *high = index;
            }
        };
        let last = self.last;
        for index in [Some(last), last.checked_sub(1), last.checked_add(1), last.checked_sub(2)] {
            if let Some(index) = index.filter(|index| (low..high).contains(index)) {
                look_at(index, &mut low, &mut high);
            }
        }
        while low < high {
            look_at(low.midpoint(high), &mut low, &mut high);
        }
        self.last = low;
        if low < self.len { frame(low).filter(|&frame| frame < range.end) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use std::vec::Vec;

    use super::*;
    use crate::moves::list::RECORDS_PER_FRAME;
    use crate::moves::record::RECORD_WORDS;

    const PAGE: u64 = LIST_FRAME_LEN;

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn the_lowest_frame_in_a_range_is_that_of_a_linear_search() {
        let mut state = 1;
        for _ in 0..2000 {
            let size = 1 + random(&mut state) % 60;
            let mut frames: Vec<Pa> =
                (0..random(&mut state) % 20).map(|_| Pa(random(&mut state) % size * PAGE)).collect();
            frames.sort_unstable();
            let mut finder = FrameFinder::new(frames.len());
            for _ in 0..40 {
                let start = Pa(random(&mut state) % size * PAGE);
                let range = PaRange::from_len(start, random(&mut state) % 4 * PAGE).unwrap();
                let expected = frames
                    .iter()
                    .copied()
                    .find(|&frame| PaRange::from_len(frame, PAGE).is_some_and(|frame| frame.overlaps(range)));
                let found = finder.lowest_in(range, |index| frames.get(index).copied());
                assert_eq!(found, expected, "{range} in {frames:?}");
            }
        }
    }

    /// Returns how many frames are looked at for each of `sources`, and how many words are read for
    /// it in all.
    fn cost(sources: &[Pa], mut frames: Vec<Pa>) -> (f64, f64) {
        frames.sort_unstable();
        let mut finder = FrameFinder::new(frames.len());
        let looks = Cell::new(0u64);
        for &source in sources {
            let range = PaRange::from_len(source, PAGE).unwrap();
            let found = finder.lowest_in(range, |index| {
                looks.set(looks.get() + 1);
                frames.get(index).copied()
            });
            assert_eq!(found, None);
        }
        let looks = looks.get() as f64 / sources.len() as f64;
        // Each record is read twice.
        (looks, looks + 2.0 * RECORD_WORDS as f64)
    }

    #[test]
    fn a_source_among_100_000_costs_at_most_twice_as_much_as_one_among_1_000() {
        // Pages from the top down, with a frame after as many as it holds.
        let layout = |count: u64| {
            let per_frame = RECORDS_PER_FRAME as u64 - 1;
            let page = |nth: u64| Pa((1 << 40) - nth * PAGE);
            let sources: Vec<Pa> = (0..count).map(|nth| page(nth + nth / per_frame + 1)).collect();
            let frames: Vec<Pa> =
                (0..count.div_ceil(per_frame)).map(|nth| page(nth * (per_frame + 1))).collect();
            (sources, frames)
        };
        let [few, many] = [1_000, 100_000].map(|count| {
            let (sources, frames) = layout(count);
            cost(&sources, frames)
        });
        assert!(few.0 < 3.1 && many.0 <= few.0 * 1.1, "{few:?} {many:?}");
        // The same in random order, which no search near the last place helps with.
        let mut state = 7;
        let [few, many] = [1_000, 100_000].map(|count| {
            let (mut sources, frames) = layout(count);
            for nth in (1..sources.len()).rev() {
                sources.swap(nth, (random(&mut state) % (nth as u64 + 1)) as usize);
            }
            cost(&sources, frames)
        });
        assert!(many.1 <= few.1 * 2.0, "{few:?} {many:?}");
    }
}

//! The destinations of a hand-over: where the parts of the payload lie when it is started.

use core::cmp::Ordering;

use linmap_vmsa::PaRange;
use thiserror::Error;

/// Destinations, sources and lengths of moves are multiples of this many bytes: the smallest page.
pub const SEGMENT_ALIGN: u64 = 0x1000;

/// The most destinations, as for Linux's `kexec_load`.
pub const MAX_SEGMENTS: usize = 16;

/// Checked destinations: page-aligned, not empty, without overlap.
///
/// Each is contiguous. Until it is moved, its content may be scattered over frames anywhere: see
/// [`MovePlan`](crate::MovePlan).
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    destinations: &'a [PaRange],
}

/// Why destinations cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// There are more than [`MAX_SEGMENTS`].
    #[error("{count} segment destinations, more than {MAX_SEGMENTS}")]
    TooMany {
        /// The number of destinations.
        count: usize,
    },
    /// An end of the range is not a multiple of 4 KiB.
    #[error("segment destination {destination} is not aligned to 0x1000 at both ends")]
    Unaligned {
        /// The destination.
        destination: PaRange,
    },
    /// The range is empty.
    #[error("segment destination {destination} is empty")]
    Empty {
        /// The destination.
        destination: PaRange,
    },
    /// Two destinations overlap.
    #[error("segment destinations {first} and {second} overlap")]
    Overlap {
        /// One of them.
        first: PaRange,
        /// The other.
        second: PaRange,
    },
    /// Memory that must survive the move overlaps a destination.
    #[error("{range} must survive the move, but overlaps the segment destination {destination}")]
    Overwritten {
        /// The range.
        range: PaRange,
        /// The destination.
        destination: PaRange,
    },
}

impl<'a> Segments<'a> {
    /// Checks destinations, in any order. Round them with [`PaRange::align_outward`] first.
    ///
    /// # Errors
    ///
    /// - [`SegmentError::TooMany`]: there are more than [`MAX_SEGMENTS`].
    /// - [`SegmentError::Unaligned`], [`SegmentError::Empty`]: a destination is not whole pages.
    /// - [`SegmentError::Overlap`]: two destinations overlap.
    pub fn new(destinations: &'a [PaRange]) -> Result<Self, SegmentError> {
        if destinations.len() > MAX_SEGMENTS {
            return Err(SegmentError::TooMany { count: destinations.len() });
        }
        let mut rest = destinations;
        while let Some((&first, others)) = rest.split_first() {
            if !first.start.0.is_multiple_of(SEGMENT_ALIGN) || !first.end.0.is_multiple_of(SEGMENT_ALIGN) {
                return Err(SegmentError::Unaligned { destination: first });
            }
            if first.start.cmp(&first.end) != Ordering::Less {
                return Err(SegmentError::Empty { destination: first });
            }
            if let Some(&second) = others.iter().find(|other| other.overlaps(first)) {
                return Err(SegmentError::Overlap { first, second });
            }
            rest = others;
        }
        Ok(Self { destinations })
    }

    /// Returns the destinations in the caller's order.
    pub fn destinations(self) -> &'a [PaRange] {
        self.destinations
    }

    /// Checks that no destination overlaps `range`, such as the relocation code, its tables, its
    /// stack, its vectors, or a frame of the move list.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Overwritten`]: the move would overwrite `range`.
    pub fn check_outside(self, range: PaRange) -> Result<(), SegmentError> {
        match self.overlapping(range) {
            Some(destination) => Err(SegmentError::Overwritten { range, destination }),
            None => Ok(()),
        }
    }

    /// Returns the first destination that overlaps `range`.
    pub fn overlapping(self, range: PaRange) -> Option<PaRange> {
        self.destinations.iter().copied().find(|destination| destination.overlaps(range))
    }

    /// Returns whether one destination holds all of `range`.
    pub fn cover(self, range: PaRange) -> bool {
        self.holding(range).is_some()
    }

    /// Returns the index of the destination that holds all of `range`.
    pub(crate) fn holding(self, range: PaRange) -> Option<usize> {
        self.destinations.iter().position(|destination| destination.covers(range))
    }

    /// Returns the longest start of `range` that lies in one destination or outside all of them,
    /// and whether it lies in a destination. `range` is not empty.
    pub(crate) fn front(self, range: PaRange) -> (PaRange, bool) {
        if let Some(destination) =
            self.destinations.iter().find(|destination| destination.contains(range.start))
        {
            return (destination.intersection(range), true);
        }
        let starts = self.destinations.iter().map(|destination| destination.start);
        let next = starts.filter(|&start| range.contains(start)).min().unwrap_or(range.end);
        (PaRange::new(range.start, next), false)
    }
}

#[cfg(test)]
mod tests {
    use linmap_vmsa::Pa;

    use super::*;

    const fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn destinations_that_only_touch_are_accepted_in_any_order() {
        let destinations = [range(0x3000, 0x4000), range(0, 0x1000), range(0x1000, 0x3000)];
        let segments = Segments::new(&destinations).unwrap();
        assert!(segments.cover(range(0x1000, 0x2000)));
        assert!(!segments.cover(range(0, 0x2000)), "no single destination holds it");
        assert_eq!(segments.overlapping(range(0x4000, 0x5000)), None);
    }

    #[test]
    fn destinations_that_overlap_are_refused() {
        let [first, other, second] = [range(0x1000, 0x3000), range(0x8000, 0x9000), range(0x2000, 0x4000)];
        assert_eq!(
            Segments::new(&[first, other, second]).unwrap_err(),
            SegmentError::Overlap { first, second }
        );
        assert_eq!(
            Segments::new(&[first, first]).unwrap_err(),
            SegmentError::Overlap { first, second: first }
        );
    }

    #[test]
    fn destinations_that_are_unaligned_or_empty_are_refused() {
        for destination in [range(0x1008, 0x3000), range(0x1000, 0x1fff)] {
            let refused = Segments::new(&[destination]).unwrap_err();
            assert_eq!(refused, SegmentError::Unaligned { destination });
        }
        let destination = range(0x1000, 0x1000);
        assert_eq!(Segments::new(&[destination]).unwrap_err(), SegmentError::Empty { destination });
    }

    #[test]
    fn more_destinations_than_linux_takes_are_refused() {
        let destinations: std::vec::Vec<_> = (0..17).map(|n| range(n << 16, (n << 16) + 0x1000)).collect();
        assert!(Segments::new(&destinations[..16]).is_ok());
        assert_eq!(Segments::new(&destinations).unwrap_err(), SegmentError::TooMany { count: 17 });
    }

    #[test]
    fn a_range_is_cut_where_destinations_start_and_end() {
        let destinations = [range(0x8000, 0x9000), range(0x2000, 0x4000), range(0x4000, 0x5000)];
        let segments = Segments::new(&destinations).unwrap();
        let mut rest = range(0x1000, 0xa000);
        for (end, inside) in [
            (0x2000, false),
            (0x4000, true),
            (0x5000, true),
            (0x8000, false),
            (0x9000, true),
            (0xa000, false),
        ] {
            assert_eq!(segments.front(rest), (PaRange::new(rest.start, Pa(end)), inside));
            rest.start = Pa(end);
        }
    }

    #[test]
    fn memory_that_the_move_would_overwrite_is_named() {
        let destinations = [range(0, 0x1000), range(0x4000, 0x8000)];
        let segments = Segments::new(&destinations).unwrap();
        assert_eq!(segments.check_outside(range(0x1000, 0x4000)), Ok(()));
        let overwritten = range(0x7fff, 0x9000);
        assert_eq!(
            segments.check_outside(overwritten),
            Err(SegmentError::Overwritten { range: overwritten, destination: destinations[1] })
        );
    }
}

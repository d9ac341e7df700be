//! Ordering copies whose sources lie in destinations, so that nothing is overwritten before it is
//! read.
//!
//! A copy is blocked while its destination holds bytes that another copy still has to read. A copy
//! that is not blocked is made at once, which may unblock others. If all are blocked, one of them
//! is started from one of its ends:
//!
//! - The part at that end may not be blocked. Then only this part is copied.
//! - Otherwise the bytes that block it are saved to the bounce buffer, if they fit, and their
//!   readers read them there.
//! - The copy and the end are chosen so that the most bytes are copied per byte saved. So a
//!   rotation by one page saves one page, and two large segments are swapped in steps of the
//!   buffer's size.
//! - If no end can be started because the buffer is full, a part from the middle of a copy can. The
//!   pages in the buffer still have to be written, so the pages left to write outnumber the pages
//!   left to read outside of the buffer: no copy reads at least one of the pages left to write.
//!
//! Every byte is written to its destination once and saved at most once, so the ordering ends. It
//! works on ranges: their number of pages does not matter. For n ranges in c circles it takes time
//! in the order of n² (c + 1).

use linmap_vmsa::{Pa, PaRange};

use super::move_error::MoveError;

/// A copy that is not ordered yet: one element of the workspace of a [`MovePlan`](crate::MovePlan).
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    source: Pa,
    destination: Pa,
    len: u64,
    /// The copy was found blocked, and nothing that blocked it was read since. This only saves
    /// another search.
    blocked: bool,
}

impl Pending {
    /// An unused element.
    pub const UNUSED: Self = Self { source: Pa(0), destination: Pa(0), len: 0, blocked: false };

    // The ends do not overflow: `MovePlan::push` checked the whole extent, and its parts end before
    // it does.
    fn source(self) -> PaRange {
        PaRange::new(self.source, Pa(self.source.0.saturating_add(self.len)))
    }

    fn destination(self) -> PaRange {
        PaRange::new(self.destination, Pa(self.destination.0.saturating_add(self.len)))
    }

    /// Returns the part that fills `destination`, a part of this copy's destination.
    fn to(self, destination: PaRange) -> Self {
        let skipped = destination.start.0.saturating_sub(self.destination.0);
        Self {
            source: Pa(self.source.0.saturating_add(skipped)),
            destination: destination.start,
            len: destination.len(),
            blocked: false,
        }
    }

    /// Returns the part that reads `source`, a part of this copy's source.
    fn from(self, source: PaRange) -> Self {
        let skipped = source.start.0.saturating_sub(self.source.0);
        let start = Pa(self.destination.0.saturating_add(skipped));
        self.to(PaRange::new(start, Pa(start.0.saturating_add(source.len()))))
    }
}

/// The next copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Copies from a source or from the bounce buffer to a destination.
    Fill { source: Pa, destination: Pa, len: u64 },
    /// Copies from a source to the bounce buffer.
    Save { source: Pa, bounce: Pa, len: u64 },
}

/// How far a copy gets that is started from one end.
#[derive(Clone, Copy, Debug)]
struct Reach {
    index: usize,
    /// The part of the destination that is written.
    part: PaRange,
    /// The number of bytes of the part that must be saved first.
    blocked: u64,
    /// The first range of them, from that end.
    first: Option<PaRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Bottom,
    Top,
}

/// Copies to be ordered.
#[derive(Debug)]
pub(super) struct CopyOrdering<'w> {
    slots: &'w mut [Pending],
    used: usize,
    bounce: PaRange,
    /// The number of bytes at the start of the bounce buffer that are in use.
    saved: u64,
}

impl<'w> CopyOrdering<'w> {
    /// Returns an ordering of no copies. `bounce` is page-aligned and overlaps no source or
    /// destination. It is empty if there is none.
    pub(super) fn new(slots: &'w mut [Pending], bounce: PaRange) -> Self {
        Self { slots, used: 0, bounce, saved: 0 }
    }

    /// Adds a copy. Its destination overlaps no other's.
    pub(super) fn push(&mut self, source: Pa, destination: Pa, len: u64) -> Result<(), MoveError> {
        let new = Pending { source, destination, len, blocked: false };
        if let Some(last) = self.used.checked_sub(1).and_then(|last| self.slots.get_mut(last))
            && last.source().end == source
            && last.destination().end == destination
        {
            last.len = last.len.saturating_add(len);
            return Ok(());
        }
        self.add(new)
    }

    /// Removes and returns the next copy. The ordering cannot be used after an error.
    pub(super) fn next(&mut self) -> Result<Option<Step>, MoveError> {
        if self.used == 0 {
            return Ok(None);
        }
        if let Some((index, whole)) = self.unblocked() {
            return self.fill(index, whole).map(Some);
        }
        if let Some(reach) = self.furthest() {
            return match reach.first {
                None => self.fill(reach.index, reach.part),
                Some(region) => self.save(reach.index, region),
            }
            .map(Some);
        }
        match self.longest_gap() {
            Some((index, part)) => self.fill(index, part).map(Some),
            None => Err(MoveError::NoBounce { pending: self.pending().iter().map(|copy| copy.len).sum() }),
        }
    }

    fn pending(&self) -> &[Pending] {
        self.slots.get(..self.used).unwrap_or_default()
    }

    fn pending_mut(&mut self) -> &mut [Pending] {
        self.slots.get_mut(..self.used).unwrap_or_default()
    }

    /// Returns the parts of `range` that copies other than `index` have to read. They may overlap.
    fn blockers(&self, index: usize, range: PaRange) -> impl Iterator<Item = PaRange> {
        self.pending()
            .iter()
            .enumerate()
            .filter(move |&(other, _)| other != index)
            .map(move |(_, other)| other.source().intersection(range))
            .filter(|piece| !piece.is_empty())
    }

    /// Returns a copy that is not blocked, and its whole destination.
    fn unblocked(&mut self) -> Option<(usize, PaRange)> {
        for index in 0..self.used {
            let &copy = self.pending().get(index)?;
            if copy.blocked {
                continue;
            }
            if self.blockers(index, copy.destination()).next().is_none() {
                return Some((index, copy.destination()));
            }
            self.pending_mut().get_mut(index)?.blocked = true;
        }
        None
    }

    /// Returns the end of a copy from which the most bytes are copied beyond those saved, if one
    /// can be started.
    fn furthest(&self) -> Option<Reach> {
        let mut best: Option<(u64, Reach)> = None;
        for (index, copy) in self.pending().iter().enumerate() {
            // A copy that overlaps itself starts at the end that it does not read.
            let sides = match (copy.source().overlaps(copy.destination()), copy.destination > copy.source) {
                (false, _) => &[Side::Top, Side::Bottom][..],
                (true, true) => &[Side::Top],
                (true, false) => &[Side::Bottom],
            };
            for &side in sides {
                let reach = self.reach(index, copy.destination(), side);
                let gain = reach.part.len().saturating_sub(reach.blocked);
                if !reach.part.is_empty() && best.is_none_or(|(most, _)| gain > most) {
                    best = Some((gain, reach));
                }
                if reach.part == copy.destination() {
                    break;
                }
            }
        }
        best.map(|(_, reach)| reach)
    }

    fn reach(&self, index: usize, destination: PaRange, side: Side) -> Reach {
        let room = self.bounce.len().saturating_sub(self.saved);
        let (mut rest, mut blocked, mut first) = (destination, 0, None);
        while !rest.is_empty() {
            // The nearest range that still has to be read.
            let blockers = self.blockers(index, rest);
            let nearest = match side {
                Side::Bottom => blockers.min_by_key(|piece| piece.start),
                Side::Top => blockers.max_by_key(|piece| piece.end),
            };
            let Some(piece) = nearest else {
                rest = match side {
                    Side::Bottom => PaRange::new(rest.end, rest.end),
                    Side::Top => PaRange::new(rest.start, rest.start),
                };
                break;
            };
            let len = piece.len().min(room.saturating_sub(blocked));
            let (piece, beyond) = match side {
                Side::Bottom => {
                    let end = Pa(piece.start.0.saturating_add(len));
                    (PaRange::new(piece.start, end), PaRange::new(end, rest.end))
                }
                Side::Top => {
                    let start = Pa(piece.end.0.saturating_sub(len));
                    (PaRange::new(start, piece.end), PaRange::new(rest.start, start))
                }
            };
            rest = beyond;
            if len == 0 {
                break;
            }
            blocked = blocked.saturating_add(len);
            first = first.or(Some(piece));
        }
        let part = match side {
            Side::Bottom => PaRange::new(destination.start, rest.start),
            Side::Top => PaRange::new(rest.end, destination.end),
        };
        Reach { index, part, blocked, first }
    }

    /// Returns the longest part of a destination that no copy still has to read, its own included.
    fn longest_gap(&self) -> Option<(usize, PaRange)> {
        let mut best: Option<(usize, PaRange)> = None;
        for (index, copy) in self.pending().iter().enumerate() {
            let mut rest = copy.destination();
            while !rest.is_empty() {
                let own = copy.source().intersection(rest);
                let own = (!own.is_empty()).then_some(own);
                let nearest = self.blockers(index, rest).chain(own).min_by_key(|piece| piece.start);
                let gap = PaRange::new(rest.start, nearest.map_or(rest.end, |piece| piece.start));
                if best.is_none_or(|(_, most)| gap.len() > most.len()) && !gap.is_empty() {
                    best = Some((index, gap));
                }
                rest = PaRange::new(nearest.map_or(rest.end, |piece| piece.end), rest.end);
            }
        }
        best
    }

    /// Removes the copy to `part` of the destination of copy `index`.
    fn fill(&mut self, index: usize, part: PaRange) -> Result<Step, MoveError> {
        let Some(&copy) = self.pending().get(index) else { return Err(self.full()) };
        let whole = copy.destination();
        let taken = copy.to(part);
        let left = [PaRange::new(whole.start, part.start), PaRange::new(part.end, whole.end)];
        self.replace(index, left.map(|left| copy.to(left)))?;
        self.has_been_read(taken.source());
        if self.pending().iter().all(|copy| !self.bounce.contains(copy.source)) {
            self.saved = 0;
        }
        Ok(Step::Fill { source: taken.source, destination: taken.destination, len: taken.len })
    }

    /// Saves `region` to the bounce buffer, which has room for it. All copies but `index` read it
    /// there.
    fn save(&mut self, index: usize, region: PaRange) -> Result<Step, MoveError> {
        let bounce = Pa(self.bounce.start.0.saturating_add(self.saved));
        self.saved = self.saved.saturating_add(region.len());
        // The remaining parts of a reader read nothing of the region, so the loop can skip them.
        for other in (0..self.used).filter(|&other| other != index) {
            let Some(&copy) = self.pending().get(other) else { continue };
            let source = copy.source();
            let read = source.intersection(region);
            if read.is_empty() {
                continue;
            }
            let mut saved = copy.from(read);
            saved.source = Pa(bounce.0.saturating_add(read.start.0.saturating_sub(region.start.0)));
            let left = [PaRange::new(source.start, read.start), PaRange::new(read.end, source.end)];
            if let Some(slot) = self.pending_mut().get_mut(other) {
                *slot = saved;
            }
            for left in left.into_iter().filter(|left| !left.is_empty()) {
                self.add(copy.from(left))?;
            }
        }
        self.has_been_read(region);
        Ok(Step::Save { source: region.start, bounce, len: region.len() })
    }

    /// Replaces copy `index` by those of `left` that are not empty.
    fn replace(&mut self, index: usize, left: [Pending; 2]) -> Result<(), MoveError> {
        let mut left = left.into_iter().filter(|copy| copy.len != 0);
        match left.next() {
            Some(copy) => {
                if let Some(slot) = self.pending_mut().get_mut(index) {
                    *slot = copy;
                }
            }
            None => {
                if let Some(last) = self.used.checked_sub(1).filter(|&last| index <= last) {
                    self.pending_mut().swap(index, last);
                    self.used = last;
                }
            }
        }
        left.try_for_each(|copy| self.add(copy))
    }

    fn add(&mut self, copy: Pending) -> Result<(), MoveError> {
        let full = self.full();
        *self.slots.get_mut(self.used).ok_or(full)? = copy;
        self.used += 1;
        Ok(())
    }

    fn full(&self) -> MoveError {
        MoveError::WorkspaceFull { capacity: self.slots.len() }
    }

    /// Notes that `read` was read: it may have been all that blocked some copies.
    fn has_been_read(&mut self, read: PaRange) {
        for copy in self.pending_mut() {
            if copy.destination().overlaps(read) {
                copy.blocked = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::place::SEGMENT_ALIGN;

    const PAGE: u64 = SEGMENT_ALIGN;

    fn steps(copies: &[(u64, u64, u64)], bounce: u64, capacity: usize) -> Result<Vec<Step>, MoveError> {
        let mut slots = std::vec![Pending::UNUSED; capacity];
        let bounce = PaRange::from_len(Pa(0x100_0000 * PAGE), bounce * PAGE).unwrap();
        let mut order = CopyOrdering::new(&mut slots, bounce);
        for &(source, destination, len) in copies {
            order.push(Pa(source * PAGE), Pa(destination * PAGE), len * PAGE)?;
        }
        let mut steps = Vec::new();
        while let Some(step) = order.next()? {
            steps.push(step);
        }
        Ok(steps)
    }

    fn saved(steps: &[Step]) -> u64 {
        let len = |step: &Step| if let Step::Save { len, .. } = step { len / PAGE } else { 0 };
        steps.iter().map(len).sum()
    }

    fn fill(source: u64, destination: u64, len: u64) -> Step {
        Step::Fill { source: Pa(source * PAGE), destination: Pa(destination * PAGE), len: len * PAGE }
    }

    #[test]
    fn what_is_read_goes_before_what_overwrites_it() {
        let chain = [(0, 10, 10), (10, 20, 10), (20, 30, 10)];
        let expected = [fill(20, 30, 10), fill(10, 20, 10), fill(0, 10, 10)];
        // The first copies are merged, since each continues the one before. So the test pushes them
        // in reverse, too.
        assert_eq!(steps(&chain, 0, 3), Ok([fill(0, 10, 30)].to_vec()));
        let mut reversed = chain;
        reversed.reverse();
        assert_eq!(steps(&reversed, 0, 3), Ok(expected.to_vec()));
        assert_eq!(steps(&[chain[1], chain[0], chain[2]], 0, 3), Ok(expected.to_vec()));
    }

    #[test]
    fn a_copy_that_overlaps_itself_goes_whole() {
        assert_eq!(steps(&[(0, 1, 1000)], 0, 1), Ok([fill(0, 1, 1000)].to_vec()));
        assert_eq!(steps(&[(1, 0, 1000)], 0, 1), Ok([fill(1, 0, 1000)].to_vec()));
    }

    #[test]
    fn a_rotation_by_one_page_saves_one_page_however_long_it_is() {
        let steps = steps(&[(0, 1, 11_775), (11_775, 0, 1)], 512, 2).unwrap();
        assert_eq!((steps.len(), saved(&steps)), (3, 1));
    }

    #[test]
    fn segments_change_places_a_buffer_at_a_time() {
        let (pages, bounce) = (11_776, 512);
        let steps = steps(&[(0, 20_000, pages), (20_000, 0, pages)], bounce, 3).unwrap();
        assert_eq!((steps.len() as u64, saved(&steps)), (3 * pages / bounce, pages));
    }

    #[test]
    fn a_rotation_by_more_than_the_buffer_needs_few_elements() {
        let (pages, by, bounce) = (20_000, 1_300, 512);
        let rotation = [(0, by, pages - by), (pages - by, 0, by)];
        let steps = steps(&rotation, bounce, 40).unwrap();
        assert!(saved(&steps) <= by, "{}", saved(&steps));
        assert!(steps.len() < 120, "{}", steps.len());
    }

    #[test]
    fn small_copies_that_block_large_ones_are_saved_together() {
        // Both ends of a long shift are to be read by others, which wait for it.
        let steps = steps(&[(0, 2, 10_000), (10_001, 0, 1), (10_000, 1, 1)], 4, 3).unwrap();
        assert_eq!((steps.len(), saved(&steps)), (5, 2));
    }

    #[test]
    fn a_path_without_a_circle_needs_no_buffer() {
        // The blocks wait for each other, their pages do not.
        let steps = steps(&[(0, 5, 10), (12, 0, 1)], 0, 16).unwrap();
        assert_eq!(saved(&steps), 0);
    }

    #[test]
    fn a_circle_without_a_buffer_and_a_full_workspace_are_errors() {
        let swap = [(0, 10, 10), (10, 0, 10)];
        assert_eq!(steps(&swap, 0, 2), Err(MoveError::NoBounce { pending: 20 * PAGE }));
        assert_eq!(steps(&swap, 1, 1), Err(MoveError::WorkspaceFull { capacity: 1 }));
        assert_eq!(steps(&swap, 1, 2), Err(MoveError::WorkspaceFull { capacity: 2 }));
        assert!(steps(&swap, 1, 3).is_ok());
    }

    #[test]
    fn many_small_circles_are_broken_one_after_the_other() {
        let copies: Vec<_> = (0..150).flat_map(|n| [(4 * n, 4 * n + 2, 1), (4 * n + 2, 4 * n, 1)]).collect();
        let steps = steps(&copies, 512, 301).unwrap();
        assert_eq!((steps.len(), saved(&steps)), (450, 150));
    }

    #[test]
    fn pages_in_random_order_take_time_by_the_square_of_their_number() {
        // Every page to another place: 1500 extents, some of them in one circle.
        let pages = 1500;
        let copies: Vec<_> = (0..pages).map(|page| (page, page * 7 % pages, 1)).collect();
        let steps = steps(&copies[1..], 1, 1500).unwrap();
        assert!(steps.len() as u64 >= pages - 1);
    }
}

//! Which addresses have to be invalidated, and by what.

use arrayvec::ArrayVec;
use linmap_vmsa::tlbi::RangeOperand;
use linmap_vmsa::{Geometry, Level, Va};

use crate::plan_error::PlanError;
use crate::script::Script;
use crate::step::{Invalidation, Reach, Step};

/// The most TLBI instructions that a plan issues at once. One that needs more invalidates
/// everything instead: each TLBI is a message to every CPU, and to refill a TLB costs less. Linux
/// has the same limit.
pub const MAX_INVALIDATIONS: u64 = 512;

/// Addresses whose entries changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
    /// log2 of the bytes that the smallest TLB entry may cover here.
    pub shift: u32,
    pub reach: Reach,
}

impl Span {
    /// `count` leaves of `1 << shift` bytes from `va` on.
    #[inline(always)]
    pub fn leaves(va: u64, count: usize, shift: u32) -> Self {
        // The last byte of a half may be the last byte there is.
        let last = va.wrapping_add((count as u64).wrapping_shl(shift).wrapping_sub(1));
        Self { first: va, last, shift, reach: Reach::LastLevel }
    }

    /// `count` leaves of `1 << shift` bytes from `va` on, in a table that is removed.
    #[inline]
    pub fn all_levels(va: u64, count: usize, shift: u32) -> Self {
        Self { reach: Reach::AllLevels, ..Self::leaves(va, count, shift) }
    }

    /// All of what the table that the entry at `level` for `va` leads to translates: every page of
    /// it, whatever its leaves are, and the walk-cache entries above. No removed table needs more.
    #[inline]
    pub fn table(geometry: Geometry, level: Level, va: u64) -> Self {
        let last = va + (geometry.entry_bytes(level) - 1);
        Self { first: va, last, shift: geometry.page_shift(), reach: Reach::AllLevels }
    }

    /// Returns `self` and `next` as one span, if they touch and have the same kind.
    pub fn joined(self, next: Self) -> Option<Self> {
        let same_kind = self.shift == next.shift && self.reach == next.reach;
        (same_kind && self.last.checked_add(1) == Some(next.first))
            .then_some(Self { last: next.last, ..self })
    }

    #[inline(always)]
    pub fn entries(self) -> u64 {
        (self.last.wrapping_sub(self.first).wrapping_shr(self.shift)).wrapping_add(1)
    }
}

/// The most separate spans in one round. If there are more, everything is invalidated.
const SPANS: usize = 8;

/// A short list of spans. Once it overflows, everything is invalidated.
#[derive(Debug)]
pub(crate) struct Spans {
    list: ArrayVec<Span, SPANS>,
    everything: bool,
}

impl Spans {
    #[inline]
    pub const fn new() -> Self {
        Self { list: ArrayVec::new_const(), everything: false }
    }

    #[inline(always)]
    pub fn push(&mut self, span: Span) {
        if let Some(last) = self.list.last_mut()
            && let Some(joined) = last.joined(span)
        {
            *last = joined;
            return;
        }
        if self.list.try_push(span).is_err() {
            self.everything = true;
        }
    }

    /// Takes the list as overflowed. `va` is an address of the tree.
    pub fn overflow(&mut self, va: u64) {
        self.everything = true;
        self.push(Span::leaves(va, 1, 0));
    }

    /// Whether the list has overflowed.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the invalidation of all spans together, if they are one entry.
    #[inline(always)]
    pub fn single(&self) -> Option<Invalidation> {
        match self.list.as_slice() {
            [span] if !self.everything && span.entries() == 1 => Some(by_va(*span)),
            _ => None,
        }
    }

    /// Pushes the cheapest invalidations that cover all spans, and empties the list. Pushes nothing
    /// if it is empty.
    #[inline(always)]
    pub fn drain(
        &mut self,
        geometry: Geometry,
        ranges: bool,
        script: &mut Script<'_>,
    ) -> Result<(), PlanError> {
        let result = match *self.list.as_slice() {
            [single] if !self.everything => push_one(geometry, ranges, single, script),
            _ => self.push_all(geometry, ranges, script),
        };
        self.list.clear();
        self.everything = false;
        result
    }

    #[inline(never)]
    fn push_all(&self, geometry: Geometry, ranges: bool, script: &mut Script<'_>) -> Result<(), PlanError> {
        let mut total = 0u64;
        for span in &self.list {
            total = total.saturating_add(cheapest(geometry, ranges, *span).0);
        }
        if self.everything || total > MAX_INVALIDATIONS {
            return script.push(Step::Invalidate(Invalidation::All));
        }
        self.list.iter().try_for_each(|span| push_one(geometry, ranges, *span, script))
    }
}

/// Pushes the cheapest invalidations that cover `span`.
#[inline(always)]
fn push_one(geometry: Geometry, ranges: bool, span: Span, script: &mut Script<'_>) -> Result<(), PlanError> {
    // A page or a block, as after most edits.
    if span.entries() == 1 {
        return script.push(Step::Invalidate(by_va(span)));
    }
    push_many(geometry, ranges, span, script)
}

/// [`push_one`] for a span of several entries.
#[inline(never)]
fn push_many(geometry: Geometry, ranges: bool, span: Span, script: &mut Script<'_>) -> Result<(), PlanError> {
    // As after a fold, one range covers all of it.
    let pages = (span.last.wrapping_sub(span.first) >> geometry.page_shift()).wrapping_add(1);
    if ranges
        && matches!(RangeOperand::any_asid(geometry, Va(span.first), pages), Some((_, all)) if all == pages)
    {
        let (va, reach) = (Va(span.first), span.reach);
        return script.push(Step::Invalidate(Invalidation::ByRange { va, pages, reach }));
    }
    match cheapest(geometry, ranges, span) {
        (instructions, _) if instructions > MAX_INVALIDATIONS => {
            script.push(Step::Invalidate(Invalidation::All))
        }
        (_, true) => pieces(geometry, span, |piece| script.push(Step::Invalidate(piece))),
        (_, false) => script.push(Step::Invalidate(by_va(span))),
    }
}

/// One invalidation for each entry of `span`; for spans of few entries.
#[inline(always)]
pub(crate) fn by_va(span: Span) -> Invalidation {
    let count = span.entries().min(u64::from(u32::MAX)) as u32;
    Invalidation::ByVa { va: Va(span.first), count, shift: span.shift, reach: span.reach }
}

/// Returns how many instructions invalidate `span`, and whether ranges are among them.
fn cheapest(geometry: Geometry, ranges: bool, span: Span) -> (u64, bool) {
    let single = span.entries();
    if !ranges || single == 1 {
        return (single, false);
    }
    let mut instructions = 0u64;
    let counted = pieces(geometry, span, |piece| {
        instructions += match piece {
            Invalidation::ByVa { count, .. } => u64::from(count),
            _ => 1,
        };
        Ok(())
    });
    if counted.is_ok() && instructions < single { (instructions, true) } else { (single, false) }
}

/// Cuts `span` into ranges, and into single pages where no range fits: an odd page at the end, and
/// under LPA2 the pages below the first multiple of 64 KiB.
fn pieces(
    geometry: Geometry,
    span: Span,
    mut push: impl FnMut(Invalidation) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    let shift = geometry.page_shift();
    let mut pages = ((span.last - span.first) >> shift) + 1;
    let mut va = span.first;
    while pages > 0 {
        let (piece, covered) = match RangeOperand::any_asid(geometry, Va(va), pages) {
            Some((_, covered)) => {
                (Invalidation::ByRange { va: Va(va), pages: covered, reach: span.reach }, covered)
            }
            None => {
                let unaligned = if geometry.lpa2() { (va.wrapping_neg() & 0xffff) >> shift } else { 0 };
                let count = unaligned.max(1).min(pages);
                (Invalidation::ByVa { va: Va(va), count: count as u32, shift, reach: span.reach }, count)
            }
        };
        push(piece)?;
        pages -= covered;
        // Wraps only after the last page of the address space, when no pages are left.
        va = va.wrapping_add(covered << shift);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Granule;
    use std::{vec, vec::Vec};

    fn drained(geometry: Geometry, ranges: bool, spans: &[Span]) -> Vec<Invalidation> {
        let mut list = Spans::new();
        spans.iter().for_each(|span| list.push(*span));
        let mut steps = vec![Step::Isb; 64];
        let mut script = Script::new(&mut steps);
        list.drain(geometry, ranges, &mut script).unwrap();
        let invalidation = |step: &Step| match step {
            Step::Invalidate(invalidation) => *invalidation,
            other => panic!("{other}"),
        };
        script.steps().iter().map(invalidation).collect()
    }

    fn pages(first: u64, count: usize) -> Span {
        Span::leaves(first, count, 12)
    }

    #[test]
    fn few_entries_are_invalidated_one_by_one_and_many_at_once() {
        let g = Geometry::K4_48;
        let one_by_one =
            Invalidation::ByVa { va: Va(0x1000), count: 512, shift: 12, reach: Reach::LastLevel };
        assert_eq!(drained(g, false, &[pages(0x1000, 512)]), [one_by_one]);
        assert_eq!(drained(g, false, &[pages(0x1000, 513)]), [Invalidation::All]);
        assert_eq!(drained(g, false, &[pages(0x1000, 500), pages(0x80_0000, 13)]), [Invalidation::All]);
    }

    #[test]
    fn spans_that_touch_are_one() {
        let one = drained(Geometry::K4_48, false, &[pages(0x1000, 2), pages(0x3000, 1)]);
        assert_eq!(
            one,
            [Invalidation::ByVa { va: Va(0x1000), count: 3, shift: 12, reach: Reach::LastLevel }]
        );
    }

    #[test]
    fn more_spans_than_the_list_holds_mean_everything() {
        let spans: Vec<Span> = (0..9).map(|i| pages(i * 0x10_0000, 1)).collect();
        assert_eq!(drained(Geometry::K4_48, true, &spans), [Invalidation::All]);
        assert_eq!(drained(Geometry::K4_48, true, &spans[..8]).len(), 8);
    }

    #[test]
    fn ranges_cover_a_span_exactly_up_to_the_last_page_of_the_address_space() {
        let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
        for geometry in [Geometry::K4_48, lpa2] {
            let shift = geometry.page_shift();
            for count in [2u64, 3, 17, 512, 513, 0x1_0001, (1 << 21) + 5] {
                let first = 0u64.wrapping_sub(count << shift);
                let span = Span { first, last: u64::MAX, shift, reach: Reach::AllLevels };
                let mut next = first;
                for piece in drained(geometry, true, &[span]) {
                    let (va, covered) = match piece {
                        Invalidation::ByRange { va, pages, .. } => (va, pages),
                        Invalidation::ByVa { va, count, .. } => (va, u64::from(count)),
                        Invalidation::All | Invalidation::Stage1 => panic!("{count} pages are few ranges"),
                    };
                    assert_eq!(va, Va(next));
                    next = next.wrapping_add(covered << shift);
                }
                assert_eq!(next, 0, "{count} pages");
            }
        }
    }
}

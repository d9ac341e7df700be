//! Stores to many leaves, checked together.
//!
//! Nearly all stores to more than one entry change the same bits in all of them, or make all of
//! them invalid, and so did the stores before them to the same entries. Then few masks say what
//! every entry was and becomes, and an entry costs some comparisons. Whatever is not of this kind,
//! or may break a rule, is left to the check of single entries.

use core::slice;

use arrayvec::ArrayVec;
use linmap_table::TableWindow;
use linmap_vmsa::bbm;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level};

use super::checker::Checker;
use crate::entry::{CONTIGUOUS, Entry, PAGE_BIT, VALID_BIT, entry};
use crate::gather::{are_consecutive, gather};
use crate::invalidate::Span;
use crate::step::{Edit, Store};

/// The most earlier stores to entries of one store.
const EARLIER: usize = 4;

/// Bits 58:55 of a leaf, which hardware ignores.
const SOFTWARE: u64 = 0b1111 << 55;

/// The access flag, which a store may set where another entry of the run has it.
const ACCESSED: u64 = 1 << 10;

/// What stores make of the bits of an entry: those in `clear` are cleared, then those in `set` set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Masks {
    clear: u64,
    set: u64,
}

impl Masks {
    const NONE: Self = Self { clear: 0, set: 0 };

    /// The masks of an edit of leaves that keeps memory and type, or makes them invalid.
    fn of(edit: Edit) -> Option<Self> {
        match edit {
            Edit::Write { first: Descriptor::INVALID, step: 0 } => Some(Self { clear: u64::MAX, set: 0 }),
            Edit::Bits { clear, set } => {
                let never_breaks =
                    bbm::never_breaks(clear & !CONTIGUOUS, set & !(CONTIGUOUS | VALID_BIT | ACCESSED));
                never_breaks.then_some(Self { clear, set })
            }
            Edit::Write { .. } | Edit::Update(_) => None,
        }
    }

    const fn then(self, next: Self) -> Self {
        Self { clear: self.clear | next.clear, set: self.set & !next.clear | next.set }
    }

    #[inline(always)]
    const fn of_leaf(self, bits: u64) -> u64 {
        bits & !self.clear | self.set
    }

    /// The bits in which an entry after `self` and the same entry after `other` may differ.
    const fn difference(self, other: Self) -> u64 {
        (self.clear ^ other.clear) | (self.set ^ other.set)
    }
}

/// An earlier store to some of the entries.
#[derive(Clone, Copy, Debug)]
struct Earlier {
    step: usize,
    /// The entries, counted from the first of the later store.
    from: usize,
    end: usize,
    masks: Masks,
}

/// Entries that every store so far has changed in the same way.
#[derive(Debug)]
struct Segment<'e> {
    /// The first of them, by its index in the table.
    index: usize,
    entries: &'e [u64],
    /// What TLBs may hold of them: their values since everything was clean. The last is the value
    /// now.
    held: ArrayVec<Masks, { EARLIER + 1 }>,
    /// The value that is stored.
    new: Masks,
    /// Whether an earlier store took their contiguous bit, and no DSB orders it.
    unfolding: bool,
    /// Whether an earlier store made them invalid.
    broken: bool,
}

impl Segment<'_> {
    fn now(&self) -> Masks {
        self.held.last().copied().unwrap_or(Masks::NONE)
    }
}

impl<W: TableWindow> Checker<'_, '_, W> {
    /// Returns the part of `store`, step `at`, that has to be invalidated, from the first leaf to
    /// the last, when the store is legal, or `None` when its entries must be checked one by one.
    #[inline(never)]
    pub fn together(&mut self, at: usize, store: &Store) -> Option<Option<Span>> {
        let mut ends: Option<(usize, usize)> = None;
        let start = usize::from(store.index);
        self.each_segment(at, store, |checker, segment| {
            let (first, last) = match checker.held(segment)? {
                None => return Some(()),
                Some((first, last)) => (segment.index - start + first, segment.index - start + last),
            };
            ends = Some((ends.map_or(first, |(first, _)| first), last));
            Some(())
        })?;
        let shift = self.context.shift(store.level);
        Some(ends.map(|(first, last)| {
            let va = store.va.0.wrapping_add((first as u64).wrapping_shl(shift));
            Span::leaves(va, last.wrapping_sub(first).wrapping_add(1), shift)
        }))
    }

    /// Returns whether `store`, step `at`, keeps all contiguous runs whole. `false` when its
    /// entries must be checked one by one.
    #[inline(never)]
    pub fn keeps_runs(&mut self, at: usize, store: &Store) -> bool {
        self.each_segment(at, store, |_, _| Some(())).is_some()
    }

    /// Runs `each` on the segments of `store`, step `at`. Returns `None` if it does, or if a run
    /// may be cut, or if the store is not of this kind.
    #[inline(always)]
    fn each_segment(
        &mut self,
        at: usize,
        store: &Store,
        mut each: impl FnMut(&Self, &Segment<'_>) -> Option<()>,
    ) -> Option<()> {
        if self.context.updates.is_on() {
            return None;
        }
        let (start, count) = (usize::from(store.index), usize::from(store.count));
        // SAFETY: the walk for the store's address reaches the table. By the promise of
        // `LiveTree::new` the window reaches every table of the tree.
        let pointer = unsafe { self.window.open(store.level, store.table) };
        // SAFETY: an open table is valid for reads of a whole granule, the store was found to lie
        // in it, and nothing writes to it during the check: the tree's one `LiveTree` is borrowed,
        // and hardware updates nothing.
        let entries = unsafe { slice::from_raw_parts(pointer.as_ptr().add(start), count) };
        let earlier = self.earlier(at, store);
        let result = match (Masks::of(store.edit), earlier) {
            (Some(edit), Some(earlier)) => {
                let mut result = Some(());
                let mut from = 0;
                while from < count && result.is_some() {
                    let end = segment_end(&earlier, from, count);
                    let segment = self.segment(start, (from, end), entries, &earlier, edit);
                    result = self.keeps_runs_of(store, &segment).and_then(|()| each(self, &segment));
                    from = end;
                }
                result
            }
            (None, Some(earlier)) if earlier.is_empty() => self.maps_leaves(store, entries),
            _ => None,
        };
        self.window.close(store.level);
        result
    }

    /// The earlier stores to entries of `store`, step `at`. `None` if they are too many, or of
    /// another kind.
    fn earlier(&self, at: usize, store: &Store) -> Option<ArrayVec<Earlier, EARLIER>> {
        let mut list = ArrayVec::new();
        let mut fits = true;
        let start = usize::from(store.index);
        let end = start + usize::from(store.count);
        self.history.overlapping(at, store, |step, other| {
            let first = usize::from(other.index);
            let (from, to) = (first.max(start) - start, (first + usize::from(other.count)).min(end) - start);
            let earlier = Masks::of(other.edit).map(|masks| Earlier { step, from, end: to, masks });
            fits &= earlier.is_some_and(|earlier| list.try_push(earlier).is_ok());
        });
        fits.then_some(list)
    }

    fn segment<'e>(
        &self,
        start: usize,
        (from, end): (usize, usize),
        entries: &'e [u64],
        earlier: &[Earlier],
        edit: Masks,
    ) -> Segment<'e> {
        let mut held = ArrayVec::new();
        held.push(Masks::NONE);
        let (mut unfolding, mut broken) = (false, false);
        let mut now = Masks::NONE;
        for earlier in earlier.iter().filter(|earlier| earlier.from <= from && end <= earlier.end) {
            now = now.then(earlier.masks);
            unfolding |= earlier.step >= self.ordered_to && earlier.masks.clear & CONTIGUOUS != 0;
            broken |= earlier.masks.clear & VALID_BIT != 0;
            if earlier.step < self.clean_from {
                held.clear();
            }
            // There is room: one value more than earlier stores.
            held.push(now);
        }
        let entries = entries.get(from..end).unwrap_or_default();
        Segment { index: start + from, entries, held, new: now.then(edit), unfolding, broken }
    }

    /// Returns `None` unless every contiguous run changes whole and its entries stay consecutive.
    fn keeps_runs_of(&self, store: &Store, segment: &Segment<'_>) -> Option<()> {
        let Segment { index, entries, new, .. } = *segment;
        let or = entries.iter().fold(0, |or, entry| or | entry);
        if store.level != Level::L3 && or & PAGE_BIT != 0 {
            return None;
        }
        let now = segment.now();
        let Some(run) = self.context.run(store.level) else {
            return ((or | new.set) & CONTIGUOUS == 0).then_some(());
        };
        if (now.of_leaf(or) | new.of_leaf(or)) & CONTIGUOUS == 0 {
            return Some(());
        }
        // A run that is partly outside of the segment must not change.
        let head = index.next_multiple_of(run).min(index + entries.len()) - index;
        let body = (entries.len() - head) / run * run;
        let (before, rest) = entries.split_at(head);
        let (whole, behind) = rest.split_at(body);
        let in_run = |bits: &u64| {
            let (now, new) = (now.of_leaf(*bits), new.of_leaf(*bits));
            (now & CONTIGUOUS != 0 && now & VALID_BIT != 0) || (new & CONTIGUOUS != 0 && new & VALID_BIT != 0)
        };
        if before.iter().chain(behind).any(in_run) {
            return None;
        }
        // Runs that were whole stay so, whatever attributes change.
        let makes_runs = now.difference(new) & new.set & (CONTIGUOUS | VALID_BIT) != 0;
        let (shift, regime) = (self.context.shift(store.level), self.context.geometry.regime());
        let is_run = |run: &[u64]| {
            let lead = Descriptor(run.first().map_or(0, |first| new.of_leaf(*first)));
            let Entry::Leaf(pa) = entry(self.context.geometry, store.level, lead) else { return false };
            let aligned = pa.0 & (((run.len() as u64) << shift) - 1) == 0;
            let consecutive = if new.set & CONTIGUOUS != 0 {
                are_consecutive(run, shift)
            } else {
                gather(run, shift, regime).is_ok()
            };
            !lead.is_contiguous() || (aligned && consecutive)
        };
        (!makes_runs || whole.chunks_exact(run).all(is_run)).then_some(())
    }

    /// Returns which leaves of a segment, counted from its first, have to be invalidated, from the
    /// first to the last. `None` if the change may break a rule.
    #[inline(always)]
    fn held(&self, segment: &Segment<'_>) -> Option<Option<(usize, usize)>> {
        let Segment { entries, ref held, new, unfolding, broken, .. } = *segment;
        let bbm = self.context.bbm;
        let (breaks, resizes) = (self.exclusivity.allows_breaks(), self.exclusivity.allows_resizes());
        let or = entries.iter().fold(0, |or, entry| or | entry);
        if held.iter().all(|held| held.of_leaf(or) & VALID_BIT == 0) {
            // No TLB holds an invalid entry.
            return Some(None);
        }
        if unfolding || (!breaks && broken && new.set & VALID_BIT != 0) {
            return None;
        }
        let free = if bbm == BbmLevel::L3 { SOFTWARE | CONTIGUOUS } else { SOFTWARE };
        let mut ends: Option<(usize, usize)> = None;
        for held in held {
            let difference = held.difference(new);
            if difference & CONTIGUOUS != 0
                && !resizes
                && bbm != BbmLevel::L3
                && new.of_leaf(or) & VALID_BIT != 0
            {
                return None;
            }
            if bbm == BbmLevel::L0 {
                let breaks = |bits: &u64| {
                    let (old, new) = (held.of_leaf(*bits), new.of_leaf(*bits));
                    old & new & VALID_BIT != 0
                        && (old | new) & CONTIGUOUS != 0
                        && (old ^ new) & !SOFTWARE != 0
                };
                if entries.iter().any(breaks) {
                    return None;
                }
            }
            if difference & !free == 0 {
                continue;
            }
            let changes = |bits: &u64| {
                let (old, new) = (held.of_leaf(*bits), new.of_leaf(*bits));
                old & VALID_BIT != 0 && (old ^ new) & !free != 0
            };
            if let Some((first, last)) =
                entries.iter().position(changes).zip(entries.iter().rposition(changes))
            {
                ends = Some(ends.map_or((first, last), |ends| (ends.0.min(first), ends.1.max(last))));
            }
        }
        Some(ends)
    }

    /// Returns `None` unless `store` writes leaves over entries that are empty, and whole runs.
    fn maps_leaves(&self, store: &Store, entries: &[u64]) -> Option<()> {
        let Edit::Write { first, step } = store.edit else { return None };
        let shift = self.context.shift(store.level);
        let Entry::Leaf(pa) = entry(self.context.geometry, store.level, first) else { return None };
        if step != 1 << shift || entries.iter().any(|bits| *bits != 0) {
            return None;
        }
        if !first.is_contiguous() {
            return Some(());
        }
        let run = self.context.run(store.level)?;
        let is_whole = usize::from(store.index).is_multiple_of(run)
            && entries.len().is_multiple_of(run)
            && pa.0 & (((run as u64) << shift) - 1) == 0;
        is_whole.then_some(())
    }
}

/// Where the segment ends that begins at entry `from` of `count`.
fn segment_end(earlier: &[Earlier], from: usize, count: usize) -> usize {
    let ends = earlier.iter().flat_map(|earlier| [earlier.from, earlier.end]);
    ends.filter(|end| *end > from).fold(count, usize::min)
}

//! The record of protections that were changed, for the verification of the map.
//!
//! Whoever changes protections records what it did. Nothing in the record is read from tables, so
//! that the tables can be compared with it.

use core::iter;

use arrayvec::ArrayVec;
use linmap_table::Leaves;
use linmap_table::verify::{Content, Validity};
use linmap_vmsa::{Access, Attributes, Execute, Pa, PaRange};
use thiserror::Error;

use crate::change::Protection;

/// What the map lets CPUs do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Who may read and write.
    pub access: Access,
    /// Who may execute.
    pub execute: Execute,
    /// Whether any access is allowed.
    pub validity: Validity,
}

impl Allowed {
    /// What is allowed with memory that was never changed: the kernel reads and writes.
    pub const DATA: Self =
        Self { access: Access::KernelReadWrite, execute: Execute::Never, validity: Validity::Valid };

    /// Returns what the entries for memory from `pa` on must be, where memory that was never
    /// changed has the attributes `as_built`.
    pub fn content(self, pa: Pa, leaves: Leaves, as_built: Attributes) -> Content {
        let Self { access, execute, validity } = self;
        let attributes = Attributes { access, execute, ..as_built };
        Content::Leaves { pa, attributes, validity, leaves }
    }

    const fn after(self, change: MemoryChange) -> Self {
        match change {
            MemoryChange::Protect(protection) => match protection {
                Protection::ReadOnly => Self { access: Access::KernelReadOnly, ..self },
                Protection::ReadWrite => Self { access: Access::KernelReadWrite, ..self },
                Protection::NoExecute => Self { execute: Execute::Never, ..self },
                Protection::Invalid => Self { validity: Validity::Invalid, ..self },
                Protection::Valid => Self { validity: Validity::Valid, ..self },
            },
            MemoryChange::MakeText => {
                Self { access: Access::KernelReadOnly, execute: Execute::Kernel, ..self }
            }
            MemoryChange::MakeData => Self::DATA,
        }
    }
}

/// A call of [`LinearMap`](crate::LinearMap) that changes what memory allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryChange {
    /// [`protect`](crate::LinearMap::protect).
    Protect(Protection),
    /// [`make_text`](crate::LinearMap::make_text).
    MakeText,
    /// [`make_data`](crate::LinearMap::make_data); also what
    /// [`add_memory`](crate::LinearMap::add_memory) and
    /// [`remove_memory`](crate::LinearMap::remove_memory) leave behind.
    MakeData,
}

/// The record has no room for a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "{range} can't be changed: the record of changed memory has room for {capacity} boundaries. Change \
     memory back first, or in larger ranges"
)]
pub struct RecordFull {
    /// The range that was to be changed.
    pub range: PaRange,
    /// How many boundaries there is room for.
    pub capacity: usize,
}

/// From here up to the next boundary memory allows this.
#[derive(Clone, Copy, Debug)]
struct Boundary {
    from: Pa,
    allowed: Allowed,
}

/// What memory allows where that was changed: at most `N` boundaries between ranges that allow
/// different things. Equal neighbours are one range.
///
/// The record refuses a change that it has no room for before the change is made, so it is always
/// exact.
#[derive(Clone, Debug, Default)]
pub struct ChangedRanges<const N: usize> {
    /// Ascending; each differs from the one before, the first from [`Allowed::DATA`].
    boundaries: ArrayVec<Boundary, N>,
}

impl<const N: usize> ChangedRanges<N> {
    /// Returns the record of memory that is as it was built.
    pub const fn new() -> Self {
        Self { boundaries: ArrayVec::new_const() }
    }

    /// Runs `change`, which does to `range` what `what` says. Records it if it succeeds.
    ///
    /// # Errors
    /// [`RecordFull`], and `change` was not run; or the error of `change`.
    pub fn record<T, E: From<RecordFull>>(
        &mut self,
        range: PaRange,
        what: MemoryChange,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let boundaries = self.after(range, what).ok_or(RecordFull { range, capacity: N })?;
        let result = change()?;
        self.boundaries = boundaries;
        Ok(result)
    }

    /// Returns the boundaries after a change, or `None` without room for them.
    fn after(&self, range: PaRange, what: MemoryChange) -> Option<ArrayVec<Boundary, N>> {
        if range.is_empty() {
            return Some(self.boundaries.clone());
        }
        let boundary = |from| Boundary { from, allowed: self.at(from) };
        let all = || self.boundaries.iter().copied();
        let below = all().filter(|boundary| boundary.from < range.start);
        let inside = all().filter(|boundary| range.contains(boundary.from));
        let above = all().filter(|boundary| boundary.from >= range.end);
        let changed = iter::once(boundary(range.start)).chain(inside).map(|boundary| {
            let allowed = boundary.allowed.after(what);
            Boundary { allowed, ..boundary }
        });
        let mut boundaries = ArrayVec::new();
        for boundary in below.chain(changed).chain([boundary(range.end)]).chain(above) {
            if boundary.allowed != allowed_behind(&boundaries) {
                boundaries.try_push(boundary).ok()?;
            }
        }
        Some(boundaries)
    }

    /// Returns how many boundaries lie at `pa` and below.
    fn boundaries_to(&self, pa: Pa) -> usize {
        self.boundaries.partition_point(|boundary| boundary.from <= pa)
    }

    /// Returns what the byte at `pa` allows.
    pub fn at(&self, pa: Pa) -> Allowed {
        allowed_behind(&self.boundaries[..self.boundaries_to(pa)])
    }

    /// Returns the parts of `range` that allow the same, in ascending order, and what they allow.
    /// Together they are all of `range`.
    pub fn parts(&self, range: PaRange) -> impl Iterator<Item = (PaRange, Allowed)> {
        let mut start = range.start;
        let mut next = self.boundaries_to(start);
        iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let allowed = allowed_behind(&self.boundaries[..next]);
            let end = self.boundaries.get(next).map_or(range.end, |boundary| boundary.from.min(range.end));
            let part = PaRange::new(start, end);
            (start, next) = (end, next + 1);
            Some((part, allowed))
        })
    }
}

/// What memory allows behind the last of `boundaries`.
fn allowed_behind(boundaries: &[Boundary]) -> Allowed {
    boundaries.last().map_or(Allowed::DATA, |boundary| boundary.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const fn range(start: u64, end: u64) -> PaRange {
        PaRange { start: Pa(start), end: Pa(end) }
    }

    fn change<const N: usize>(
        record: &mut ChangedRanges<N>,
        range: PaRange,
        what: MemoryChange,
    ) -> Result<(), RecordFull> {
        record.record(range, what, || Ok(()))
    }

    const READ_ONLY: MemoryChange = MemoryChange::Protect(Protection::ReadOnly);
    const INVALID: MemoryChange = MemoryChange::Protect(Protection::Invalid);

    #[test]
    fn changes_of_parts_add_up_and_equal_neighbours_are_one_range() {
        let mut record = ChangedRanges::<8>::new();
        change(&mut record, range(0x2000, 0x6000), READ_ONLY).unwrap();
        change(&mut record, range(0x4000, 0x8000), INVALID).unwrap();
        let read_only = Allowed { access: Access::KernelReadOnly, ..Allowed::DATA };
        let invalid = |allowed| Allowed { validity: Validity::Invalid, ..allowed };
        let parts: Vec<_> = record.parts(range(0x1000, 0x9000)).collect();
        assert_eq!(
            parts,
            [
                (range(0x1000, 0x2000), Allowed::DATA),
                (range(0x2000, 0x4000), read_only),
                (range(0x4000, 0x6000), invalid(read_only)),
                (range(0x6000, 0x8000), invalid(Allowed::DATA)),
                (range(0x8000, 0x9000), Allowed::DATA),
            ]
        );
        assert_eq!(record.at(Pa(0x3fff)), read_only);
        change(&mut record, range(0x4000, 0x8000), MemoryChange::MakeData).unwrap();
        change(&mut record, range(0x4000, 0x6000), READ_ONLY).unwrap();
        let parts: Vec<_> = record.parts(range(0x3000, 0x7000)).collect();
        assert_eq!(parts, [(range(0x3000, 0x6000), read_only), (range(0x6000, 0x7000), Allowed::DATA)]);
        change(&mut record, range(0, 0x10_0000), MemoryChange::MakeData).unwrap();
        assert!(record.boundaries.is_empty());
    }

    #[test]
    fn text_keeps_whether_it_is_valid() {
        let mut record = ChangedRanges::<4>::new();
        change(&mut record, range(0x1000, 0x2000), INVALID).unwrap();
        change(&mut record, range(0x1000, 0x2000), MemoryChange::MakeText).unwrap();
        let text =
            Allowed { access: Access::KernelReadOnly, execute: Execute::Kernel, validity: Validity::Invalid };
        assert_eq!(record.at(Pa(0x1000)), text);
    }

    #[test]
    fn a_change_without_room_is_not_made_and_one_that_needs_none_is() {
        let mut record = ChangedRanges::<4>::new();
        change(&mut record, range(0x1000, 0x2000), READ_ONLY).unwrap();
        change(&mut record, range(0x3000, 0x4000), READ_ONLY).unwrap();
        let mut made = false;
        let result = record.record(range(0x5000, 0x6000), READ_ONLY, || {
            made = true;
            Ok(())
        });
        assert_eq!(result, Err(RecordFull { range: range(0x5000, 0x6000), capacity: 4 }));
        assert!(!made);
        assert_eq!(record.at(Pa(0x5000)), Allowed::DATA);
        change(&mut record, range(0x2000, 0x3000), READ_ONLY).unwrap();
        change(&mut record, range(0x5000, 0x6000), READ_ONLY).unwrap();
        change(&mut record, range(0x1000, 0x5000), MemoryChange::MakeData).unwrap();
        change(&mut record, range(0x8000, 0x9000), INVALID).unwrap();
    }

    #[test]
    fn a_change_that_fails_is_not_recorded() {
        let mut record = ChangedRanges::<4>::new();
        let refused = RecordFull { range: range(0, 0), capacity: 0 };
        let result: Result<(), _> = record.record(range(0x1000, 0x2000), READ_ONLY, || Err(refused));
        assert_eq!(result, Err(refused));
        assert_eq!(record.at(Pa(0x1000)), Allowed::DATA);
    }

    #[test]
    fn random_changes_are_recorded_page_by_page() {
        let mut record = ChangedRanges::<64>::new();
        let mut pages = [Allowed::DATA; 40];
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let start = random(40);
            let end = start + random(41 - start);
            let what = [
                READ_ONLY,
                MemoryChange::Protect(Protection::ReadWrite),
                MemoryChange::Protect(Protection::NoExecute),
                INVALID,
                MemoryChange::Protect(Protection::Valid),
                MemoryChange::MakeText,
                MemoryChange::MakeData,
            ][random(7) as usize];
            change(&mut record, range(start * 0x1000, end * 0x1000), what).unwrap();
            for page in &mut pages[start as usize..end as usize] {
                *page = page.after(what);
            }
            let parts: Vec<_> = record.parts(range(0, 40 * 0x1000)).collect();
            let by_page = parts
                .iter()
                .flat_map(|(part, allowed)| iter::repeat_n(*allowed, (part.len() / 0x1000) as usize));
            assert!(by_page.eq(pages.iter().copied()));
            assert!(parts.windows(2).all(|pair| pair[0].1 != pair[1].1), "{parts:x?}");
        }
    }
}

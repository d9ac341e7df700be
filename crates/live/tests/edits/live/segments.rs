//! What a tree has to translate, as a plain list, and what its tables translate, as another.

use linmap_vmsa::{Access, Attributes, Descriptor, Execute, Geometry};

use super::{Found, Tables};

/// What is mapped somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub first: u64,
    pub last: u64,
    pub pa: u64,
    pub access: Access,
    pub execute: Execute,
    pub global: bool,
    pub valid: bool,
}

/// A list of segments that are as long as they can be, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segments(pub Vec<Segment>);

impl Segments {
    fn push(&mut self, next: Segment) {
        if let Some(last) = self.0.last_mut()
            && last.last.wrapping_add(1) == next.first
            && last.pa + (next.first - last.first) == next.pa
            && (Segment { first: next.first, last: next.last, pa: next.pa, ..*last }) == next
        {
            last.last = next.last;
            return;
        }
        self.0.push(next);
    }

    /// The segments with `change` done to what lies in `first..=last`; `None` removes it.
    pub fn changed(&self, first: u64, last: u64, mut change: impl FnMut(Segment) -> Option<Segment>) -> Self {
        let mut result = Self::default();
        for segment in &self.0 {
            let part = |from: u64, to: u64| Segment {
                first: from,
                last: to,
                pa: segment.pa + (from - segment.first),
                ..*segment
            };
            if segment.last < first || segment.first > last {
                result.push(*segment);
                continue;
            }
            if segment.first < first {
                result.push(part(segment.first, first - 1));
            }
            if let Some(changed) = change(part(segment.first.max(first), segment.last.min(last))) {
                result.push(changed);
            }
            if segment.last > last {
                result.push(part(last + 1, segment.last));
            }
        }
        result
    }

    pub fn with(&self, new: Segment) -> Self {
        let mut all = self.0.clone();
        all.push(new);
        all.sort_by_key(|segment| segment.first);
        let mut result = Self::default();
        all.into_iter().for_each(|segment| result.push(segment));
        result
    }

    /// Whether no page of `first..=last` is missing.
    /// Everything that is mapped in `first..=last`, cut at its ends.
    pub fn within(&self, first: u64, last: u64) -> Vec<Segment> {
        let touched = self.0.iter().filter(|segment| segment.first <= last && segment.last >= first);
        let cut = touched.map(|segment| {
            let start = segment.first.max(first);
            let pa = segment.pa + (start - segment.first);
            Segment { first: start, last: segment.last.min(last), pa, ..*segment }
        });
        cut.collect()
    }

    pub fn covers(&self, first: u64, last: u64) -> bool {
        let mut next = Some(first);
        for segment in self.0.iter().filter(|s| s.last >= first && s.first <= last) {
            if next.is_none_or(|next| segment.first > next) {
                return false;
            }
            next = segment.last.checked_add(1);
            if segment.last >= last {
                return true;
            }
        }
        false
    }

    pub fn touches(&self, first: u64, last: u64) -> bool {
        self.0.iter().any(|s| s.last >= first && s.first <= last)
    }
}

/// What the tables say, as segments; runs and sizes are checked on the way.
pub fn said(geometry: Geometry, found: &Tables) -> Segments {
    let mut result = Segments::default();
    let mut run: Option<(Found, u64)> = None;
    for leaf in &found.leaves {
        let bytes = geometry.entry_bytes(leaf.level);
        assert_eq!(leaf.pa & (bytes - 1), 0);
        let attributes = Descriptor(leaf.bits).attributes(geometry, leaf.level).unwrap();
        if let Some((lead, left)) = run.take().filter(|(_, left)| *left > 0) {
            assert_eq!(leaf.level, lead.level, "a run is cut at {:#x}", leaf.va);
            assert_eq!(leaf.bits - lead.bits, leaf.va - lead.va, "a run changes at {:#x}", leaf.va);
            run = Some((lead, left - 1));
        } else if attributes.contiguous {
            let count = geometry.contiguous_entries(leaf.level).unwrap() as u64;
            assert_eq!((leaf.va | leaf.pa) & (count * bytes - 1), 0, "a run begins at {:#x}", leaf.va);
            run = Some((*leaf, count - 1));
        }
        let plain = Attributes {
            access: attributes.access,
            execute: attributes.execute,
            global: attributes.global,
            contiguous: false,
            ..Attributes::KERNEL_DATA
        };
        assert_eq!(Attributes { contiguous: false, ..attributes }, plain);
        result.push(Segment {
            first: leaf.va,
            last: leaf.va + (bytes - 1),
            pa: leaf.pa,
            access: attributes.access,
            execute: attributes.execute,
            global: attributes.global,
            valid: leaf.bits & 1 != 0,
        });
    }
    assert!(run.is_none_or(|(_, left)| left == 0), "the last run is cut");
    result
}

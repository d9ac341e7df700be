//! What changed between two dumps of a tree.

use linmap::listing::Size;
use serde::Serialize;

use crate::dump::segments::{Segment, Segments, What};

/// A range that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The first address.
    pub first: u64,
    /// The last address.
    pub last: u64,
    /// What it was: the output address, and what else by its place.
    pub before: Option<(u64, u32)>,
    /// What it is.
    pub after: Option<(u64, u32)>,
}

/// A field that changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Field {
    /// Its name.
    pub field: &'static str,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
}

impl Change {
    /// Whether `next` is the same change of the addresses behind it.
    fn goes_on(&self, next: &Self) -> bool {
        let bytes = next.first.wrapping_sub(self.first);
        let follows = |one: Option<(u64, u32)>, other: Option<(u64, u32)>| match (one, other) {
            (Some((pa, what)), Some((next, other))) => what == other && pa.wrapping_add(bytes) == next,
            (None, None) => true,
            _ => false,
        };
        self.last.checked_add(1) == Some(next.first)
            && follows(self.before, next.before)
            && follows(self.after, next.after)
    }

    /// What changed, by name.
    pub fn fields(&self, before: &Segments, after: &Segments) -> Vec<Field> {
        let (Some((was, one)), Some((is, other))) = (self.before, self.after) else { return Vec::new() };
        let mut fields = Vec::new();
        let mut add = |field, before: String, after: String| fields.push(Field { field, before, after });
        match (before.what.get(one as usize), after.what.get(other as usize)) {
            (Some(What::Leaf(one)), Some(What::Leaf(other))) => {
                if was != is {
                    add("pa", format!("{was:#x}"), format!("{is:#x}"));
                }
                for (name, one, other) in one.differences(other) {
                    add(name, one, other);
                }
            }
            (one, other) => add("what", name(one), name(other)),
        }
        fields
    }
}

fn name(what: Option<&What>) -> String {
    match what {
        Some(What::Leaf(leaf)) => format!("leaves of {}", Size(leaf.leaf)),
        Some(What::Other(text)) => text.clone(),
        None => String::new(),
    }
}

/// A list of segments of which the first may be used up in part.
struct Rest<'s> {
    segments: std::slice::Iter<'s, Segment>,
    now: Option<Segment>,
}

impl<'s> Rest<'s> {
    fn new(segments: &'s Segments) -> Self {
        let mut segments = segments.list.iter();
        let now = segments.next().copied();
        Self { segments, now }
    }

    /// Takes what lies up to `last`, which is in the first segment.
    fn take(&mut self, last: u64) -> Option<(u64, u32)> {
        let now = self.now?;
        match last.checked_add(1).filter(|_| last < now.last) {
            Some(first) => {
                let pa = now.pa.wrapping_add(first.wrapping_sub(now.first));
                self.now = Some(Segment { first, pa, ..now });
            }
            None => self.now = self.segments.next().copied(),
        }
        Some((now.pa, now.what))
    }
}

/// Calls `found` with everything that differs, ascending.
///
/// # Errors
/// Those of `found`.
pub fn diff<E>(
    before: &Segments,
    after: &Segments,
    mut found: impl FnMut(&Change) -> Result<(), E>,
) -> Result<(), E> {
    let (mut one, mut other) = (Rest::new(before), Rest::new(after));
    let mut open: Option<Change> = None;
    loop {
        let change = match (one.now, other.now) {
            (None, None) => break,
            (Some(was), None) => removed(&mut one, was, was.last),
            (None, Some(is)) => added(&mut other, is, is.last),
            (Some(was), Some(is)) if was.first < is.first => {
                removed(&mut one, was, was.last.min(is.first - 1))
            }
            (Some(was), Some(is)) if is.first < was.first => {
                added(&mut other, is, is.last.min(was.first - 1))
            }
            (Some(was), Some(is)) => {
                let last = was.last.min(is.last);
                let (first, before_here, after_here) = (was.first, one.take(last), other.take(last));
                // Places of one list mean nothing in the other.
                let is_equal = matches!((before_here, after_here), (Some((was, one)), Some((is, other)))
                    if was == is && before.what.get(one as usize) == after.what.get(other as usize));
                if is_equal {
                    continue;
                }
                Change { first, last, before: before_here, after: after_here }
            }
        };
        match &mut open {
            Some(open) if open.goes_on(&change) => open.last = change.last,
            _ => {
                if let Some(done) = open.replace(change) {
                    found(&done)?;
                }
            }
        }
    }
    open.iter().try_for_each(&mut found)
}

fn removed(from: &mut Rest<'_>, was: Segment, last: u64) -> Change {
    Change { first: was.first, last, before: from.take(last), after: None }
}

fn added(from: &mut Rest<'_>, is: Segment, last: u64) -> Change {
    Change { first: is.first, last, before: None, after: from.take(last) }
}

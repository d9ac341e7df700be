//! The sources of one segment in the order of its destination, read from the finished lists.

use core::slice;

use arrayvec::ArrayVec;
use linmap_vmsa::{Pa, PaRange};

use super::extent::{Extent, ExtentSource};
use super::finished_plan::{MAX_SHARES, Moves};
use super::list::{LIST_FRAME_WORDS, Records};
use super::list_error::WireError;
use super::record::Record;

/// The sources of a segment: see [`Moves::sources`]. An error is the last item.
#[derive(Clone, Debug)]
pub struct SegmentSources<'l, 'm, F> {
    /// The part of the segment that is left.
    rest: PaRange,
    lists: ArrayVec<ListSources<'l, 'm, F>, MAX_SHARES>,
}

/// The sources that one list has.
#[derive(Clone, Debug)]
struct ListSources<'l, 'm, F> {
    records: Records<'l, 'm, F>,
    next: Option<Extent>,
}

impl Moves {
    /// Returns what fills `segment`, a destination, ascending. All lists are read at the same time,
    /// so this is for segments whose sources lie in no destination: their records ascend in each
    /// list, because segments are filled upwards. For `frame_at` see
    /// [`MoveList::records`](crate::MoveList::records).
    pub fn sources<'l, 'm, F>(&'l self, segment: PaRange, frame_at: F) -> SegmentSources<'l, 'm, F>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]> + Clone,
    {
        let lists = self.lists.iter().map(|list| ListSources {
            records: Records::new(slice::from_ref(list), frame_at.clone()),
            next: None,
        });
        SegmentSources { rest: segment, lists: lists.collect() }
    }
}

impl<'m, F> SegmentSources<'_, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    fn step(&mut self) -> Result<Extent, WireError> {
        for list in &mut self.lists {
            if list.next.is_none() {
                list.next = list.first_in(self.rest)?;
            }
            if let Some(extent) = list.next.take_if(|extent| extent.destination == self.rest.start) {
                self.rest = PaRange::new(Pa(self.rest.start.0.saturating_add(extent.len)), self.rest.end);
                return Ok(extent);
            }
        }
        Err(WireError::NotFilled { destination: self.rest.start })
    }
}

impl<'m, F> ListSources<'_, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    /// Returns the part in `range` of the next record that has one.
    fn first_in(&mut self, range: PaRange) -> Result<Option<Extent>, WireError> {
        for record in self.records.by_ref() {
            let (source, destination, len) = match record? {
                Record::Copy { source, destination, len, .. } => (Some(source), destination, len),
                Record::Clear { destination, len } => (None, destination, len),
                Record::Go => continue,
            };
            let whole = PaRange::from_len(destination, len).unwrap_or_default();
            let part = whole.intersection(range);
            if part.is_empty() {
                continue;
            }
            let skipped = part.start.0.saturating_sub(destination.0);
            let source = source
                .map_or(ExtentSource::Zeros, |source| ExtentSource::At(Pa(source.0.saturating_add(skipped))));
            return Ok(Some(Extent { source, destination: part.start, len: part.len() }));
        }
        Ok(None)
    }
}

impl<'m, F> Iterator for SegmentSources<'_, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    type Item = Result<Extent, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.rest = PaRange::default();
        }
        Some(step)
    }
}

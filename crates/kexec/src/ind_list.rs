//! The move list in the form of Linux's `struct kimage`: a word for each page.
//!
//! Linux's list is a chain of pages of 512 words, each a page-aligned physical address with a flag in its low bits
//! (`IND_*` of `include/linux/kexec.h`). It has no lengths, no directions and no buffer, and says nothing about order:
//! a source may be no destination.

use linmap_vmsa::Pa;
use thiserror::Error;

use crate::move_list::{LIST_FRAME_WORDS, Record, Records, WireError};
use crate::move_plan::Moves;
use crate::segment::SEGMENT_ALIGN;

/// Words in a page of the list. The last links to the next page, or ends the list.
const WORDS_PER_PAGE: usize = LIST_FRAME_WORDS;

/// A word of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndEntry {
    /// `IND_DESTINATION`: the sources that follow go to the pages from here on.
    Destination(Pa),
    /// `IND_INDIRECTION`: the list goes on in the page here.
    Indirection(Pa),
    /// `IND_SOURCE`: the page here is copied to the next destination.
    Source(Pa),
    /// `IND_DONE`: the end.
    Done,
}

impl IndEntry {
    /// The entry as Linux's list holds it: the address, and 1, 2, 8 or 4 for the kinds above.
    pub const fn word(self) -> u64 {
        match self {
            Self::Destination(pa) => pa.0 | 1,
            Self::Indirection(pa) => pa.0 | 2,
            Self::Source(pa) => pa.0 | 8,
            Self::Done => 4,
        }
    }
}

/// Why a plan has no such list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndError {
    /// Sources lie in destinations, so that the order counts.
    #[error("{extents} copies have to go in an order, which a list of pages with IND flags cannot say")]
    Ordered {
        /// How many copies.
        extents: u64,
    },
    /// There is no page left for the list.
    #[error("no page left for the list of pages with IND flags")]
    NoPage,
    /// The plan can't be read.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The entries of Linux's list, the head first: see [`Moves::ind_list`]. Nothing follows an error.
#[derive(Clone, Debug)]
pub struct IndList<'l, 'm, P, F> {
    records: Records<'l, 'm, F>,
    zeros: Pa,
    pages: P,
    /// What is left of a record.
    rest: Option<Record>,
    /// Where the next source goes if nothing else is said.
    next: Option<Pa>,
    /// How many words the page has room for, in front of its last.
    room: usize,
    ended: bool,
}

impl Moves {
    /// The same moves as Linux's list. `zeros` is a page of zeros, which stands for what is cleared; the pages of the
    /// list come from `pages`. For `frame_at` see [`MoveList::records`](crate::MoveList::records).
    ///
    /// # Errors
    ///
    /// [`IndError::Ordered`]: a source is a destination.
    pub fn ind_list<'l, 'm, P, F>(
        &'l self,
        zeros: Pa,
        pages: P,
        frame_at: F,
    ) -> Result<IndList<'l, 'm, P, F>, IndError>
    where
        P: Iterator<Item = Pa>,
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        if self.ordered != 0 {
            return Err(IndError::Ordered { extents: self.ordered });
        }
        let records = self.records(frame_at);
        Ok(IndList { records, zeros, pages, rest: None, next: None, room: 0, ended: false })
    }
}

impl<'m, P, F> IndList<'_, 'm, P, F>
where
    P: Iterator<Item = Pa>,
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    fn step(&mut self) -> Result<IndEntry, IndError> {
        let (record, source, destination) = loop {
            match self.rest.take() {
                Some(record @ Record::Copy { source, destination, .. }) => {
                    break (record, source, destination);
                }
                Some(record @ Record::Clear { destination, .. }) => break (record, self.zeros, destination),
                // This list is for one CPU.
                Some(Record::Go) => {}
                None => match self.records.next() {
                    Some(record) => self.rest = Some(record?),
                    None => {
                        self.ended = true;
                        return Ok(IndEntry::Done);
                    }
                },
            }
        };
        // The last word of a page is kept, and the head, which stands in no page, leads to the first.
        if self.room == 0 {
            self.rest = Some(record);
            self.room = WORDS_PER_PAGE - 1;
            return self.pages.next().map(IndEntry::Indirection).ok_or(IndError::NoPage);
        }
        self.room -= 1;
        if self.next != Some(destination) {
            self.rest = Some(record);
            self.next = Some(destination);
            return Ok(IndEntry::Destination(destination));
        }
        (_, self.rest) = record.cut(SEGMENT_ALIGN);
        self.next = Some(Pa(destination.0.saturating_add(SEGMENT_ALIGN)));
        Ok(IndEntry::Source(source))
    }
}

impl<'m, P, F> Iterator for IndList<'_, 'm, P, F>
where
    P: Iterator<Item = Pa>,
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    type Item = Result<IndEntry, IndError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        self.ended |= step.is_err();
        Some(step)
    }
}

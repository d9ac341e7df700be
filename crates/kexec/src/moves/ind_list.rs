//! The move list in the form of Linux's `struct kimage`: a word for each page.
//!
//! Linux's list is a chain of pages of 512 words, each a page-aligned physical address with a flag
//! in its low bits (`IND_*` of `include/linux/kexec.h`). It has no lengths, no directions and no
//! clears. A copy downwards therefore gives each page's destination, and a clear becomes copies of
//! a page of zeros. Linux processes the words in their order, so the list can express ordered plans
//! too: pages that pass through the bounce buffer have it as destination and then as source.

use linmap_vmsa::Pa;
use thiserror::Error;

use crate::place::SEGMENT_ALIGN;

use super::finished_plan::Moves;
use super::list::{LIST_FRAME_WORDS, Records};
use super::list_error::WireError;
use super::list_writer::ListFrame;
use super::record::{Direction, Record};

/// The number of words of a page before its last word, which links to the next page or ends the
/// list.
const WORDS_BEFORE_LINK: usize = LIST_FRAME_WORDS - 1;

/// A word of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndEntry {
    /// `IND_DESTINATION`: the following sources are copied to the pages from this address on.
    Destination(Pa),
    /// `IND_INDIRECTION`: the list continues in this page.
    Indirection(Pa),
    /// `IND_SOURCE`: this page is copied to the next destination.
    Source(Pa),
    /// `IND_DONE`: the end.
    Done,
}

impl IndEntry {
    /// Returns the entry's word in Linux's list: the address, and 1, 2, 8 or 4 for the kinds above.
    pub const fn word(self) -> u64 {
        match self {
            Self::Destination(pa) => pa.0 | 1,
            Self::Indirection(pa) => pa.0 | 2,
            Self::Source(pa) => pa.0 | 8,
            Self::Done => 4,
        }
    }
}

/// Why a list is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndError {
    /// No page is left for the list.
    #[error("no page left for the list of pages with IND flags")]
    NoPage,
    /// The plan cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Linux's list while it is written: see [`Moves::ind_list`]. An error is the last item.
#[derive(Debug)]
pub struct IndList<'l, 'm, 'f, P, F> {
    entries: Entries<'l, 'm, F>,
    pages: P,
    /// The page that is written.
    page: Option<&'f mut [u64; LIST_FRAME_WORDS]>,
    /// The number of words written to it.
    used: usize,
    /// The entry that follows a link.
    waiting: Option<IndEntry>,
    ended: bool,
}

impl Moves {
    /// Returns the number of pages that [`ind_list`](Self::ind_list) needs. For `frame_at` see
    /// [`MoveList::records`](crate::MoveList::records).
    ///
    /// # Errors
    ///
    /// [`WireError`]: the plan cannot be read.
    pub fn ind_pages<'m, F>(&self, frame_at: F) -> Result<u64, WireError>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        let mut entries = Entries::new(self.records(frame_at), Pa(0));
        let mut count = 0u64;
        while entries.next()?.is_some() {
            count = count.saturating_add(1);
        }
        Ok(count.div_ceil(WORDS_BEFORE_LINK as u64))
    }

    /// Writes the same moves into `pages` as Linux's list, one entry for each item that the caller
    /// takes. The first entry is the head of the list, which is in no page: it is the link to the
    /// first page, or the end.
    ///
    /// `zeros` is a page of zeros, the source of all clears. The plan must not write to it or to
    /// `pages`, and must not read from `pages`. For `frame_at` see
    /// [`MoveList::records`](crate::MoveList::records).
    pub fn ind_list<'l, 'm, 'f, P, F>(&'l self, zeros: Pa, pages: P, frame_at: F) -> IndList<'l, 'm, 'f, P, F>
    where
        P: Iterator<Item = ListFrame<'f>>,
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        let entries = Entries::new(self.records(frame_at), zeros);
        IndList { entries, pages, page: None, used: 0, waiting: None, ended: false }
    }
}

impl<'m, 'f, P, F> IndList<'_, 'm, 'f, P, F>
where
    P: Iterator<Item = ListFrame<'f>>,
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    fn step(&mut self) -> Result<IndEntry, IndError> {
        let entry = match self.waiting.take() {
            Some(entry) => entry,
            None => match self.entries.next()? {
                Some(entry) => entry,
                None => {
                    self.ended = true;
                    return Ok(self.write(IndEntry::Done));
                }
            },
        };
        if self.page.is_some() && self.used < WORDS_BEFORE_LINK {
            return Ok(self.write(entry));
        }
        let ListFrame { pa, words } = self.pages.next().ok_or(IndError::NoPage)?;
        let link = self.write(IndEntry::Indirection(pa));
        self.page = Some(words);
        self.used = 0;
        self.waiting = Some(entry);
        Ok(link)
    }

    fn write(&mut self, entry: IndEntry) -> IndEntry {
        if let Some(word) = self.page.as_mut().and_then(|page| page.get_mut(self.used)) {
            *word = entry.word().to_le();
            self.used += 1;
        }
        entry
    }
}

impl<'m, 'f, P, F> Iterator for IndList<'_, 'm, 'f, P, F>
where
    P: Iterator<Item = ListFrame<'f>>,
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

/// The destinations and sources of all records, in the order of the moves.
#[derive(Clone, Debug)]
struct Entries<'l, 'm, F> {
    records: Records<'l, 'm, F>,
    zeros: Pa,
    /// The rest of a record.
    rest: Option<Record>,
    /// The destination of the next source without a further entry.
    next: Option<Pa>,
}

impl<'l, 'm, F> Entries<'l, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    fn new(records: Records<'l, 'm, F>, zeros: Pa) -> Self {
        Self { records, zeros, rest: None, next: None }
    }

    fn next(&mut self) -> Result<Option<IndEntry>, WireError> {
        loop {
            let record = match self.rest.take() {
                Some(record) => record,
                None => match self.records.next() {
                    Some(record) => record?,
                    None => return Ok(None),
                },
            };
            let (page, rest) = first_page(record);
            let (source, destination) = match page {
                Record::Copy { source, destination, .. } => (source, destination),
                Record::Clear { destination, .. } => (self.zeros, destination),
                // Linux's list is for one CPU.
                Record::Go => continue,
            };
            if self.next != Some(destination) {
                self.rest = Some(record);
                self.next = Some(destination);
                return Ok(Some(IndEntry::Destination(destination)));
            }
            self.rest = rest;
            self.next = Some(Pa(destination.0.saturating_add(SEGMENT_ALIGN)));
            return Ok(Some(IndEntry::Source(source)));
        }
    }
}

/// Returns the page of a record that is moved first, and the rest.
fn first_page(record: Record) -> (Record, Option<Record>) {
    let before_last = record.len().saturating_sub(SEGMENT_ALIGN);
    match record {
        Record::Copy { direction: Direction::Downwards, .. } if before_last != 0 => {
            let (rest, last) = record.cut(before_last);
            (last.unwrap_or(record), Some(rest))
        }
        _ => record.cut(SEGMENT_ALIGN),
    }
}

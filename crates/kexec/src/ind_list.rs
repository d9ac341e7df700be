//! The move list in the form of Linux's `struct kimage`: a word for each page.
//!
//! Linux's list is a chain of pages of 512 words, each a page-aligned physical address with a flag in its low bits
//! (`IND_*` of `include/linux/kexec.h`). It has no lengths, no directions and no clearing: a copy that goes downwards
//! names each page's destination, and what is cleared is copied from a page of zeros. The words are carried out in
//! their order, so that plans in which the order counts can be said too: what passes through the bounce buffer has it as
//! destination and as source.

use linmap_vmsa::Pa;
use thiserror::Error;

use crate::list_writer::ListFrame;
use crate::move_list::{Direction, LIST_FRAME_WORDS, Record, Records, WireError};
use crate::move_plan::Moves;
use crate::segment::SEGMENT_ALIGN;

/// Words in a page of the list in front of its last, which links to the next page, or ends the list.
const WORDS_BEFORE_LINK: usize = LIST_FRAME_WORDS - 1;

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

/// Why a list is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IndError {
    /// There is no page left for the list.
    #[error("no page left for the list of pages with IND flags")]
    NoPage,
    /// The plan can't be read.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Linux's list being written: see [`Moves::ind_list`]. Nothing follows an error.
#[derive(Debug)]
pub struct IndList<'l, 'm, 'f, P, F> {
    entries: Entries<'l, 'm, F>,
    pages: P,
    /// The page that is written to, and how many words it has.
    page: Option<&'f mut [u64; LIST_FRAME_WORDS]>,
    used: usize,
    /// What comes behind a link.
    waiting: Option<IndEntry>,
    ended: bool,
}

impl Moves {
    /// How many pages [`ind_list`](Self::ind_list) takes. For `frame_at` see
    /// [`MoveList::records`](crate::MoveList::records).
    ///
    /// # Errors
    ///
    /// [`WireError`]: the plan can't be read.
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

    /// Writes the same moves as Linux's list into `pages`, entry by entry as they are asked for. The first entry is the
    /// head of the list, which stands in no page: it leads to the first, or is the end.
    ///
    /// `zeros` is a page of zeros, which stands for what is cleared. Neither it nor the pages may be where the plan
    /// writes, the pages not where it reads. For `frame_at` see [`MoveList::records`](crate::MoveList::records).
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

/// The destinations and sources of all records, as they are carried out one after the other.
#[derive(Clone, Debug)]
struct Entries<'l, 'm, F> {
    records: Records<'l, 'm, F>,
    zeros: Pa,
    /// What is left of a record.
    rest: Option<Record>,
    /// Where the next source goes if nothing else is said.
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
                // This list is for one CPU.
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

/// The page of a record that goes first, and the rest.
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

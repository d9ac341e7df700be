//! The move list: a move plan in the form the relocation code reads.

use core::fmt;

use linmap_vmsa::Pa;
use thiserror::Error;

use crate::segment::SEGMENT_ALIGN;

/// Length of a list frame in bytes, whatever the translation granule.
pub const LIST_FRAME_LEN: u64 = 0x1000;
/// Records in a list frame. The last holds a link or the end, never a copy.
pub const RECORDS_PER_FRAME: usize = LIST_FRAME_WORDS / RECORD_WORDS;

/// Length of a list frame in 64-bit words.
pub const LIST_FRAME_WORDS: usize = LIST_FRAME_LEN as usize / size_of::<u64>();
/// Length of a record in 64-bit words.
pub const RECORD_WORDS: usize = 3;
/// The length in a record that links to the next frame.
pub const LENGTH_OF_LINK: u64 = u64::MAX;
/// The length in the record that ends the list.
pub const LENGTH_OF_END: u64 = 0;

/// A run of bytes to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the first byte is.
    pub source: Pa,
    /// Where it has to go.
    pub destination: Pa,
    /// How many bytes; a multiple of [`SEGMENT_ALIGN`], not 0.
    pub len: u64,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} bytes from {} to {}", self.len, self.source, self.destination)
    }
}

impl Extent {
    /// The extent with `next` behind it, if that goes on where this one ends at both sides.
    pub(crate) fn joined(self, next: Self) -> Option<Self> {
        let len = self.len.checked_add(next.len).filter(|&len| len != LENGTH_OF_LINK)?;
        let goes_on = |from: Pa, to: Pa| from.0.checked_add(self.len) == Some(to.0);
        (goes_on(self.source, next.source) && goes_on(self.destination, next.destination))
            .then_some(Self { len, ..self })
    }

    pub(crate) fn is_aligned(self) -> bool {
        self.len != 0
            && [self.source.0, self.destination.0, self.len].iter().all(|n| n.is_multiple_of(SEGMENT_ALIGN))
    }
}

/// A finished list in memory, and what it amounts to.
///
/// # Wire form
///
/// A list is a chain of frames of [`LIST_FRAME_LEN`] bytes, each at a physical address that is a multiple of
/// that. A frame is an array of [`RECORDS_PER_FRAME`] records of three little-endian 64-bit words, from its
/// start; the 16 bytes left over mean nothing. Every address is physical.
///
/// | source | destination | length | means |
/// |---|---|---|---|
/// | S | D | L, not 0 and not all ones | copy L bytes from S to D, go on with the next record |
/// | F | 0 | all ones | go on with the first record of the frame at F |
/// | 0 | 0 | 0 | end |
///
/// The length alone tells which: address 0 is an address like any other. S, D and L are multiples of
/// [`SEGMENT_ALIGN`]. The last record of a frame is never a copy. Neither a source nor a list frame shares a
/// byte with any destination, so that the order of the copies is free and all of them could run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveList {
    /// Where its first frame is.
    pub first: Pa,
    /// How many frames it has.
    pub frames: u64,
    /// How many copies it has.
    pub extents: u64,
    /// How many bytes it moves.
    pub bytes: u64,
    /// How many bytes were pushed that already lie where they have to; the list doesn't hold them.
    pub in_place: u64,
}

/// `at` is below [`RECORDS_PER_FRAME`] wherever this is called.
pub(crate) fn write_record(frame: &mut [u64; LIST_FRAME_WORDS], at: usize, record: [u64; RECORD_WORDS]) {
    let (records, _) = frame.as_chunks_mut::<RECORD_WORDS>();
    if let Some(slot) = records.get_mut(at) {
        *slot = record.map(u64::to_le);
    }
}

impl MoveList {
    /// The extents as the relocation code will read them. `frame_at` is how a list frame is reached: it returns
    /// the content of the frame at a physical address, or `None` when there is no such memory.
    pub fn extents<'m, F>(&self, frame_at: F) -> Extents<'m, F>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        Extents { frame_at, frames_left: self.frames, place: Place::Link(self.first) }
    }
}

/// The extents of a move list: see [`MoveList::extents`]. Nothing follows an error.
#[derive(Clone, Debug)]
pub struct Extents<'m, F> {
    frame_at: F,
    frames_left: u64,
    place: Place<'m>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'m> {
    /// Before the first record of the frame here.
    Link(Pa),
    /// Before a record of a frame.
    Record { frame: Pa, words: &'m [u64; LIST_FRAME_WORDS], index: usize },
    /// After the end.
    End,
}

/// What is wrong with a list in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// A link leads where no memory is.
    #[error("the move list leads to a frame at {frame}, where there is no memory")]
    NoFrame {
        /// Where it leads.
        frame: Pa,
    },
    /// There are more frames than the list was finished with, as when they are linked in a circle.
    #[error("the move list links to {frame} after its last frame")]
    TooManyFrames {
        /// Where the link leads.
        frame: Pa,
    },
    /// The last record of a frame is neither a link nor the end.
    #[error("the move list frame at {frame} neither ends nor links to another")]
    NotEnded {
        /// The frame.
        frame: Pa,
    },
    /// A record isn't one that a plan can hold.
    #[error("the move list frame at {frame} has a bad record {index}: {words:#x?}")]
    BadRecord {
        /// The frame.
        frame: Pa,
        /// Which record, counted from 0.
        index: usize,
        /// Its words.
        words: [u64; RECORD_WORDS],
    },
}

impl<'m, F> Extents<'m, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    fn step(&mut self) -> Result<Option<Extent>, WireError> {
        loop {
            let (frame, words, index) = match self.place {
                Place::End => return Ok(None),
                Place::Link(frame) => {
                    self.frames_left =
                        self.frames_left.checked_sub(1).ok_or(WireError::TooManyFrames { frame })?;
                    (frame, (self.frame_at)(frame).ok_or(WireError::NoFrame { frame })?, 0)
                }
                Place::Record { frame, words, index } => (frame, words, index),
            };
            let (records, _) = words.as_chunks::<RECORD_WORDS>();
            let &record = records.get(index).ok_or(WireError::NotEnded { frame })?;
            let record = record.map(u64::from_le);
            match record {
                [0, 0, LENGTH_OF_END] => self.place = Place::End,
                [link, 0, LENGTH_OF_LINK] => self.place = Place::Link(Pa(link)),
                _ if index + 1 == RECORDS_PER_FRAME => return Err(WireError::NotEnded { frame }),
                [source, destination, len] => {
                    let extent = Extent { source: Pa(source), destination: Pa(destination), len };
                    if !extent.is_aligned() {
                        return Err(WireError::BadRecord { frame, index, words: record });
                    }
                    self.place = Place::Record { frame, words, index: index + 1 };
                    return Ok(Some(extent));
                }
            }
        }
    }
}

impl<'m, F> Iterator for Extents<'m, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    type Item = Result<Extent, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.place = Place::End;
        }
        step.transpose()
    }
}

//! The move list: moves in the form the relocation code reads, written and read back.

use core::fmt;
use core::slice;

use linmap_relocate::{KIND_CLEAR, KIND_COPY, KIND_COPY_DOWNWARDS, KIND_GO, KIND_LINK, KIND_MASK};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::segment::SEGMENT_ALIGN;

/// Length of a list frame in bytes, whatever the translation granule.
pub const LIST_FRAME_LEN: u64 = 0x1000;
/// Length of a list frame in 64-bit words.
pub const LIST_FRAME_WORDS: usize = LIST_FRAME_LEN as usize / size_of::<u64>();
/// Length of a record in 64-bit words.
pub const RECORD_WORDS: usize = 3;
/// Records in a list frame. The last holds a link or the end.
pub const RECORDS_PER_FRAME: usize = LIST_FRAME_WORDS / RECORD_WORDS;

const _: () = assert!(KIND_MASK == SEGMENT_ALIGN - 1);

/// In which order a copy has to go, where source and destination overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The lowest address first: right unless the destination starts within the source.
    Upwards,
    /// The highest address first: right unless the source starts within the destination.
    Downwards,
}

/// What one record of a list asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Copy memory.
    Copy {
        /// Where the first byte is.
        source: Pa,
        /// Where it has to go.
        destination: Pa,
        /// How many bytes; a multiple of [`SEGMENT_ALIGN`], not 0.
        len: u64,
        /// In which order.
        direction: Direction,
    },
    /// Fill memory with zeros.
    Clear {
        /// The first byte.
        destination: Pa,
        /// How many bytes; a multiple of [`SEGMENT_ALIGN`], not 0.
        len: u64,
    },
    /// Let the other CPUs start with their lists: what depends on an order is done.
    Go,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { source, destination, len, direction } => {
                let direction = match direction {
                    Direction::Upwards => "upwards",
                    Direction::Downwards => "downwards",
                };
                write!(f, "copy {len:#x} bytes from {source} to {destination}, {direction}")
            }
            Self::Clear { destination, len } => write!(f, "clear {len:#x} bytes at {destination}"),
            Self::Go => write!(f, "go"),
        }
    }
}

impl Record {
    /// The copy of `len` bytes, in the direction that keeps what overlaps.
    pub(crate) fn copy(source: Pa, destination: Pa, len: u64) -> Self {
        let starts_within = destination.0 > source.0 && destination.0 - source.0 < len;
        let direction = if starts_within { Direction::Downwards } else { Direction::Upwards };
        Self::Copy { source, destination, len, direction }
    }

    /// How many bytes are written.
    pub fn len(self) -> u64 {
        match self {
            Self::Copy { len, .. } | Self::Clear { len, .. } => len,
            Self::Go => 0,
        }
    }

    /// Whether no byte is written.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// What is read: empty, at 0, where nothing is.
    pub(crate) fn source(self) -> PaRange {
        match self {
            Self::Copy { source, len, .. } => PaRange::from_len(source, len).unwrap_or_default(),
            Self::Clear { .. } | Self::Go => PaRange::default(),
        }
    }

    /// The first `len` bytes of it and the rest, where it is longer.
    pub(crate) fn cut(self, len: u64) -> (Self, Option<Self>) {
        let Some(rest) = self.len().checked_sub(len).filter(|&rest| rest != 0) else { return (self, None) };
        let behind = |pa: Pa| Pa(pa.0.saturating_add(len));
        match self {
            Self::Copy { source, destination, direction, .. } => (
                Self::Copy { source, destination, len, direction },
                Some(Self::Copy {
                    source: behind(source),
                    destination: behind(destination),
                    len: rest,
                    direction,
                }),
            ),
            Self::Clear { destination, .. } => (
                Self::Clear { destination, len },
                Some(Self::Clear { destination: behind(destination), len: rest }),
            ),
            Self::Go => (self, None),
        }
    }

    /// The record with `next` behind it, if that goes on where this one ends at both sides. Neither may overlap itself.
    pub(crate) fn joined(self, next: Self) -> Option<Self> {
        let sum = self.len().checked_add(next.len())?;
        let goes_on = |from: Pa, to: Pa| from.0.checked_add(self.len()) == Some(to.0);
        match (self, next) {
            (
                Self::Copy { source, destination, direction: Direction::Upwards, .. },
                Self::Copy { source: then, destination: to, direction: Direction::Upwards, .. },
            ) if goes_on(source, then) && goes_on(destination, to) => {
                Some(Self::Copy { source, destination, len: sum, direction: Direction::Upwards })
            }
            (Self::Clear { destination, .. }, Self::Clear { destination: to, .. })
                if goes_on(destination, to) =>
            {
                Some(Self::Clear { destination, len: sum })
            }
            _ => None,
        }
    }

    /// The record as a list holds it.
    pub(crate) fn words(self) -> [u64; RECORD_WORDS] {
        match self {
            Self::Copy { source, destination, len, direction: Direction::Upwards } => {
                [source.0, destination.0, len | KIND_COPY]
            }
            Self::Copy { source, destination, len, direction: Direction::Downwards } => {
                [source.0, destination.0, len | KIND_COPY_DOWNWARDS]
            }
            Self::Clear { destination, len } => [0, destination.0, len | KIND_CLEAR],
            Self::Go => [0, 0, KIND_GO],
        }
    }

    /// The copy or clear of these words, if a plan can hold it.
    fn from_words([source, destination, word]: [u64; RECORD_WORDS]) -> Option<Self> {
        let (len, kind) = (word & !KIND_MASK, word & KIND_MASK);
        let whole = |start: u64| start.is_multiple_of(SEGMENT_ALIGN) && start.checked_add(len).is_some();
        if kind == KIND_GO {
            return (source == 0 && destination == 0 && len == 0).then_some(Self::Go);
        }
        if len == 0 || !whole(source) || !whole(destination) {
            return None;
        }
        let apart = source.abs_diff(destination) >= len;
        let copy =
            |direction| Self::Copy { source: Pa(source), destination: Pa(destination), len, direction };
        match kind {
            KIND_COPY if apart || destination < source => Some(copy(Direction::Upwards)),
            KIND_COPY_DOWNWARDS if apart || destination > source => Some(copy(Direction::Downwards)),
            KIND_CLEAR if source == 0 => Some(Self::Clear { destination: Pa(destination), len }),
            _ => None,
        }
    }
}

/// A finished list in memory, and what it amounts to.
///
/// # Wire form
///
/// A list is a chain of frames of [`LIST_FRAME_LEN`] bytes, each at a physical address that is a multiple of
/// that. A frame is an array of [`RECORDS_PER_FRAME`] records of three little-endian 64-bit words, from its
/// start; the 16 bytes left over mean nothing. Every address is physical. Bits 11:0 of the third word
/// ([`KIND_MASK`]) hold the record's kind, the word without them is a length in bytes.
///
/// | source | destination | length | kind | means |
/// |---|---|---|---|---|
/// | S | D | L | [`KIND_COPY`] | copy L bytes from S to D, the lowest address first |
/// | S | D | L | [`KIND_COPY_DOWNWARDS`] | copy L bytes from S to D, the highest address first |
/// | 0 | D | L | [`KIND_CLEAR`] | fill L bytes at D with zeros |
/// | F | 0 | 0 | [`KIND_LINK`] | go on with the first record of the frame at F |
/// | 0 | 0 | 0 | [`KIND_GO`] | the other CPUs may start with their lists |
/// | 0 | 0 | 0 | [`KIND_COPY`] | end of the list |
///
/// The third word alone tells which: address 0 is an address like any other. S, D and L are multiples of
/// [`SEGMENT_ALIGN`], L is not 0. The last record of a frame is a link or the end.
///
/// Of several lists, the first is the boot CPU's. Only that may have a [`KIND_GO`], once, and has it if there are
/// others. What stands before it goes in the order of the list; the source and the destination of such a copy may
/// overlap, where its direction allows it. They are a multiple of [`SEGMENT_ALIGN`] apart, so that many bytes may be
/// read before they are written. What follows, and all that is in the other lists, may go in any order and at the
/// same time. A list without [`KIND_GO`] goes in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveList {
    /// Where its first frame is.
    pub first: Pa,
    /// How many frames it has.
    pub frames: u64,
    /// How many copies and clears it has.
    pub extents: u64,
    /// How many bytes they write.
    pub bytes: u64,
}

impl MoveList {
    /// The records as the relocation code will read them. `frame_at` is how a list frame is reached: it returns
    /// the content of the frame at a physical address, or `None` when there is no such memory.
    pub fn records<'l, 'm, F>(&'l self, frame_at: F) -> Records<'l, 'm, F>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        Records::new(slice::from_ref(self), frame_at)
    }
}

/// The records of one list after the other: see [`MoveList::records`]. Nothing follows an error.
#[derive(Clone, Debug)]
pub struct Records<'l, 'm, F> {
    frame_at: F,
    lists: &'l [MoveList],
    frames_left: u64,
    place: Place<'m>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'m> {
    /// Before the first record of the frame here.
    Link(Pa),
    /// Before a record of a frame.
    Record { frame: Pa, words: &'m [u64; LIST_FRAME_WORDS], index: usize },
    /// After the end of a list.
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
    /// The list lies on what is still to be copied, which it has overwritten.
    #[error("the move list frame at {frame} lies in the memory {source_range} that the list copies")]
    FrameInSource {
        /// The frame.
        frame: Pa,
        /// The source.
        source_range: PaRange,
    },
}

impl<'l, 'm, F> Records<'l, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    pub(crate) fn new(lists: &'l [MoveList], frame_at: F) -> Self {
        Self { frame_at, lists, frames_left: 0, place: Place::End }
    }

    /// The next record and the frame it stands in.
    pub(crate) fn step(&mut self) -> Result<Option<(Pa, Record)>, WireError> {
        loop {
            let (frame, words, index) = match self.place {
                Place::End => {
                    let Some((next, others)) = self.lists.split_first() else { return Ok(None) };
                    self.lists = others;
                    self.frames_left = next.frames;
                    self.place = Place::Link(next.first);
                    continue;
                }
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
                [0, 0, KIND_COPY] => self.place = Place::End,
                [link, 0, KIND_LINK] => self.place = Place::Link(Pa(link)),
                _ if index + 1 == RECORDS_PER_FRAME => return Err(WireError::NotEnded { frame }),
                words_here => {
                    let bad = WireError::BadRecord { frame, index, words: words_here };
                    let record = Record::from_words(words_here).ok_or(bad)?;
                    self.place = Place::Record { frame, words, index: index + 1 };
                    return Ok(Some((frame, record)));
                }
            }
        }
    }
}

impl<'m, F> Iterator for Records<'_, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    type Item = Result<Record, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.lists = &[];
            self.place = Place::End;
        }
        step.map(|step| step.map(|(_, record)| record)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    type Frame = [u64; LIST_FRAME_WORDS];

    fn read(frames: &[(u64, Box<Frame>)], count: u64) -> Vec<Result<Record, WireError>> {
        let list = MoveList { first: Pa(0), frames: count, extents: 0, bytes: 0 };
        let at = |pa: Pa| frames.iter().find(|(at, _)| *at == pa.0).map(|(_, words)| &**words);
        list.records(at).collect()
    }

    fn frame_of(records: &[[u64; RECORD_WORDS]]) -> Box<Frame> {
        let mut frame = Box::new([0x5a5a_5a5a_5a5a_5a5a; LIST_FRAME_WORDS]);
        for (at, record) in records.iter().enumerate() {
            frame.as_chunks_mut::<RECORD_WORDS>().0[at] = record.map(u64::to_le);
        }
        frame
    }

    #[test]
    fn a_copy_goes_downwards_only_if_its_destination_starts_within_its_source() {
        let direction = |source, destination, len| match Record::copy(Pa(source), Pa(destination), len) {
            Record::Copy { direction, .. } => direction,
            other => panic!("{other}"),
        };
        assert_eq!(direction(0x1000, 0x2000, 0x2000), Direction::Downwards);
        assert_eq!(direction(0x1000, 0x2000, 0x1000), Direction::Upwards);
        assert_eq!(direction(0x2000, 0x1000, 0x8000), Direction::Upwards);
    }

    #[test]
    fn records_that_no_plan_can_hold_are_refused() {
        for words in [
            [0, 0, 8],
            [0, 0, 5],
            [0, 0, 0x1005],
            [8, 0, 0x1000],
            [0, 0x10, 0x1000],
            [0, 0x1000, 0],
            [0x1000, 0, KIND_COPY],
            [0x1000, 0x2000, KIND_COPY_DOWNWARDS],
            // In the wrong direction.
            [0, 0x1000, 0x2000],
            [0x1000, 0, 0x2001],
            [0x1000, 0x1000, 0x2000],
            // Clears with a source, or of nothing.
            [0x1000, 0x2000, 0x1002],
            [0, 0x2000, KIND_CLEAR],
            // Links and starts that carry more.
            [0, 0x1000, KIND_LINK],
            [0, 0, 0x1000 | KIND_LINK],
            [0x1000, 0, KIND_GO],
            [0, 0, 0x1000 | KIND_GO],
            // Beyond the last address.
            [0, 0xffff_ffff_ffff_f000, 0x1000],
            [0xffff_ffff_ffff_f000, 0, 0x1000],
            [0, 0, u64::MAX],
        ] {
            let frames = [(0, frame_of(&[words]))];
            assert_eq!(read(&frames, 1), [Err(WireError::BadRecord { frame: Pa(0), index: 0, words })]);
        }
    }

    #[test]
    fn a_list_that_was_damaged_is_an_error_and_never_endless() {
        let circle = [(0, frame_of(&[[0, 0, KIND_LINK]]))];
        assert_eq!(read(&circle, 3), [Err(WireError::TooManyFrames { frame: Pa(0) })]);
        let astray = [(0, frame_of(&[[0x1000, 0, KIND_LINK]]))];
        assert_eq!(read(&astray, 3), [Err(WireError::NoFrame { frame: Pa(0x1000) })]);
        let endless = [(0, frame_of(&[[0x1000, 0x2000, 0x1000]; RECORDS_PER_FRAME]))];
        let read = read(&endless, 3);
        assert_eq!(read.len(), RECORDS_PER_FRAME);
        assert_eq!(read.last(), Some(&Err(WireError::NotEnded { frame: Pa(0) })));
    }
}

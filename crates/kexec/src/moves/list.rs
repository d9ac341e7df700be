//! The move list: records in memory, in the form that the relocation code reads.

use core::slice;

use linmap_relocate::{KIND_COPY, KIND_LINK};
use linmap_vmsa::Pa;

use super::list_error::WireError;
use super::record::{RECORD_WORDS, Record};

/// Length of a list frame in bytes, whatever the translation granule.
pub const LIST_FRAME_LEN: u64 = 0x1000;
/// Length of a list frame in 64-bit words.
pub const LIST_FRAME_WORDS: usize = LIST_FRAME_LEN as usize / size_of::<u64>();
/// The number of records of a list frame. The last is a link or the end.
pub const RECORDS_PER_FRAME: usize = LIST_FRAME_WORDS / RECORD_WORDS;

/// A finished list in memory, and its totals.
///
/// # Wire form
///
/// A list is a chain of frames of [`LIST_FRAME_LEN`] bytes, each at a physical address that is a
/// multiple of that. A frame is an array of [`RECORDS_PER_FRAME`] records of three little-endian
/// 64-bit words, from its start; the last 16 bytes are unused. Every address is physical. Bits 11:0
/// of the third word ([`KIND_MASK`](crate::KIND_MASK)) hold the record's kind, the word without
/// them is a length in bytes.
///
/// | source | destination | length | kind | means |
/// |---|---|---|---|---|
/// | S | D | L | [`KIND_COPY`] | copy L bytes from S to D, the lowest address first |
/// | S | D | L | [`KIND_COPY_DOWNWARDS`](crate::KIND_COPY_DOWNWARDS) | copy L bytes from S to D, the highest address first |
/// | 0 | D | L | [`KIND_CLEAR`](crate::KIND_CLEAR) | fill L bytes at D with zeros |
/// | F | 0 | 0 | [`KIND_LINK`] | continue with the first record of the frame at F |
/// | 0 | 0 | 0 | [`KIND_GO`](crate::KIND_GO) | the other CPUs may start with their lists |
/// | 0 | 0 | 0 | [`KIND_COPY`] | end of the list |
///
/// The third word alone tells the kind: address 0 is an address like any other. S, D and L are
/// multiples of [`SEGMENT_ALIGN`](crate::SEGMENT_ALIGN), L is not 0. The last record of a frame is
/// a link or the end.
///
/// Of several lists, the first is the boot CPU's. If there are others it has exactly one
/// [`KIND_GO`](crate::KIND_GO); no other list has one. The records before it are processed in their
/// order. Source and destination of such a copy may overlap if its direction allows it; they are a
/// multiple of [`SEGMENT_ALIGN`](crate::SEGMENT_ALIGN) apart, so a reader may read that many bytes
/// before it writes them. The records after it, and all other lists, may be processed in any order
/// and at the same time. The records of a list without [`KIND_GO`](crate::KIND_GO) are processed in
/// their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveList {
    /// The address of its first frame.
    pub first: Pa,
    /// The number of its frames.
    pub frames: u64,
    /// The number of its copies and clears.
    pub extents: u64,
    /// The number of bytes that they write.
    pub bytes: u64,
}

impl MoveList {
    /// Returns the records as the relocation code will read them. `frame_at` returns the content of
    /// the list frame at a physical address, or `None` if no memory is there.
    pub fn records<'l, 'm, F>(&'l self, frame_at: F) -> Records<'l, 'm, F>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        Records::new(slice::from_ref(self), frame_at)
    }
}

/// The records of one list after the other: see [`MoveList::records`]. An error is the last item.
#[derive(Clone, Debug)]
pub struct Records<'l, 'm, F> {
    frame_at: F,
    lists: &'l [MoveList],
    frames_left: u64,
    position: Position<'m>,
}

#[derive(Clone, Copy, Debug)]
enum Position<'m> {
    /// Before the first record of the frame at this address.
    Link(Pa),
    /// Before a record of a frame.
    Record { frame: Pa, words: &'m [u64; LIST_FRAME_WORDS], index: usize },
    /// After the end of a list.
    End,
}

impl<'l, 'm, F> Records<'l, 'm, F>
where
    F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
{
    pub(super) fn new(lists: &'l [MoveList], frame_at: F) -> Self {
        Self { frame_at, lists, frames_left: 0, position: Position::End }
    }

    /// Returns the next record and its frame.
    pub(super) fn step(&mut self) -> Result<Option<(Pa, Record)>, WireError> {
        loop {
            let (frame, words, index) = match self.position {
                Position::End => {
                    let Some((next, others)) = self.lists.split_first() else { return Ok(None) };
                    self.lists = others;
                    self.frames_left = next.frames;
                    self.position = Position::Link(next.first);
                    continue;
                }
                Position::Link(frame) => {
                    self.frames_left =
                        self.frames_left.checked_sub(1).ok_or(WireError::TooManyFrames { frame })?;
                    (frame, (self.frame_at)(frame).ok_or(WireError::NoFrame { frame })?, 0)
                }
                Position::Record { frame, words, index } => (frame, words, index),
            };
            let (records, _) = words.as_chunks::<RECORD_WORDS>();
            let &record = records.get(index).ok_or(WireError::NotEnded { frame })?;
            let record = record.map(u64::from_le);
            match record {
                [0, 0, KIND_COPY] => self.position = Position::End,
                [link, 0, KIND_LINK] => self.position = Position::Link(Pa(link)),
                _ if index + 1 == RECORDS_PER_FRAME => return Err(WireError::NotEnded { frame }),
                words_here => {
                    let bad = WireError::BadRecord { frame, index, words: words_here };
                    let record = Record::from_words(words_here).ok_or(bad)?;
                    self.position = Position::Record { frame, words, index: index + 1 };
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
            self.position = Position::End;
        }
        step.map(|step| step.map(|(_, record)| record)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;
    use crate::moves::record::Direction;
    use linmap_relocate::{KIND_CLEAR, KIND_COPY_DOWNWARDS, KIND_GO};

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

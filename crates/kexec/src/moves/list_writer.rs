//! Writing a move list.

use linmap_relocate::{KIND_COPY, KIND_LINK};
use linmap_vmsa::Pa;

use super::list::{LIST_FRAME_WORDS, MoveList, RECORDS_PER_FRAME};
use super::record::{RECORD_WORDS, Record};

/// A frame for a list. Its content is overwritten.
#[derive(Debug)]
pub struct ListFrame<'f> {
    /// The physical address, a multiple of [`LIST_FRAME_LEN`](crate::LIST_FRAME_LEN).
    pub pa: Pa,
    /// The frame's memory.
    pub words: &'f mut [u64; LIST_FRAME_WORDS],
}

/// A list while it is written.
#[derive(Debug)]
pub(super) struct ListWriter<'f> {
    frame: &'f mut [u64; LIST_FRAME_WORDS],
    /// The number of records written to `frame`, less than [`RECORDS_PER_FRAME`].
    used: usize,
    /// The last record of `frame`.
    last: Option<Record>,
    list: MoveList,
}

impl<'f> ListWriter<'f> {
    pub(super) fn new(frame: ListFrame<'f>) -> Self {
        let list = MoveList { first: frame.pa, frames: 1, extents: 0, bytes: 0 };
        Self { frame: frame.words, used: 0, last: None, list }
    }

    /// Returns the list as if it ended here.
    pub(super) fn list(&self) -> MoveList {
        self.list
    }

    /// Returns whether the next record needs [`ListWriter::link`]. The last record of a frame is
    /// the link or the end.
    pub(super) fn is_full(&self) -> bool {
        self.used + 1 >= RECORDS_PER_FRAME
    }

    /// Links to `frame`, which holds the records that follow.
    pub(super) fn link(&mut self, frame: ListFrame<'f>) {
        self.write(self.used, [frame.pa.0, 0, KIND_LINK]);
        self.frame = frame.words;
        self.used = 0;
        self.last = None;
        self.list.frames += 1;
    }

    /// Adds a record. The frame must have room for it.
    pub(super) fn push(&mut self, record: Record) {
        self.write(self.used, record.words());
        self.used += 1;
        self.last = Some(record);
        if !record.is_empty() {
            self.list.extents += 1;
            self.list.bytes = self.list.bytes.saturating_add(record.len());
        }
    }

    /// Extends the last record by `record`, if that continues it, up to `limit` bytes. Returns the
    /// part of `record` that was not merged. Only for records whose order does not matter.
    pub(super) fn extend(&mut self, record: Record, limit: u64) -> Option<Record> {
        let Some(last) = self.last else { return Some(record) };
        let (head, rest) = match limit.checked_sub(last.len()) {
            None | Some(0) => return Some(record),
            Some(room) => record.cut(room),
        };
        let Some(joined) = last.joined(head) else { return Some(record) };
        self.write(self.used.saturating_sub(1), joined.words());
        self.last = Some(joined);
        self.list.bytes = self.list.bytes.saturating_add(head.len());
        rest
    }

    /// Ends the list.
    pub(super) fn end(mut self) -> MoveList {
        self.write(self.used, [0, 0, KIND_COPY]);
        self.list
    }

    /// Ends the list with the whole of `next`.
    pub(super) fn end_with(mut self, next: MoveList) -> MoveList {
        self.write(self.used, [next.first.0, 0, KIND_LINK]);
        MoveList {
            first: self.list.first,
            frames: self.list.frames.saturating_add(next.frames),
            extents: self.list.extents.saturating_add(next.extents),
            bytes: self.list.bytes.saturating_add(next.bytes),
        }
    }

    fn write(&mut self, at: usize, words: [u64; RECORD_WORDS]) {
        let (records, _) = self.frame.as_chunks_mut::<RECORD_WORDS>();
        if let Some(record) = records.get_mut(at) {
            *record = words.map(u64::to_le);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;
    use crate::moves::list::LIST_FRAME_LEN;
    use crate::moves::list_error::WireError;

    fn read(list: MoveList, words: &[u64; LIST_FRAME_WORDS]) -> Vec<Result<Record, WireError>> {
        list.records(|_| Some(words)).collect()
    }

    #[test]
    fn the_wire_form_is_three_words_a_record_with_the_kind_in_the_low_bits() {
        let mut words = Box::new([0x5a5a_5a5a_5a5a_5a5a; LIST_FRAME_WORDS]);
        let mut writer = ListWriter::new(ListFrame { pa: Pa(0), words: &mut words });
        let records = [
            Record::copy(Pa(0x10_0000), Pa(0), 0x1000),
            Record::copy(Pa(0x1000), Pa(0x2000), 0x3000),
            Record::Clear { destination: Pa(0x7000), len: 0x2000 },
            Record::Go,
        ];
        for record in records {
            writer.push(record);
        }
        let list = writer.end();
        assert_eq!((list.frames, list.extents, list.bytes), (1, 3, 0x6000));
        let expected = [0x10_0000, 0, 0x1000, 0x1000, 0x2000, 0x3001, 0, 0x7000, 0x2002, 0, 0, 4, 0, 0, 0];
        assert_eq!(words.map(u64::from_le)[..15], expected);
        assert_eq!((LIST_FRAME_LEN, RECORDS_PER_FRAME), (4096, 170));
        assert_eq!(read(list, &words), records.map(Ok));
    }

    #[test]
    fn the_last_record_grows_up_to_the_limit() {
        let mut words = Box::new([0; LIST_FRAME_WORDS]);
        let mut writer = ListWriter::new(ListFrame { pa: Pa(0), words: &mut words });
        writer.push(Record::copy(Pa(0x10_0000), Pa(0), 0x1000));
        let more = Record::copy(Pa(0x10_1000), Pa(0x1000), 0x4000);
        let rest = writer.extend(more, 0x3000);
        assert_eq!(rest, Some(Record::copy(Pa(0x10_3000), Pa(0x3000), 0x2000)));
        assert_eq!(writer.extend(rest.unwrap(), 0x3000), rest, "no room");
        let elsewhere = Record::copy(Pa(0x20_0000), Pa(0x3000), 0x1000);
        assert_eq!(writer.extend(elsewhere, u64::MAX), Some(elsewhere));
        let list = writer.end();
        assert_eq!(list.bytes, 0x3000);
        assert_eq!(read(list, &words), [Ok(Record::copy(Pa(0x10_0000), Pa(0), 0x3000))]);
    }
}

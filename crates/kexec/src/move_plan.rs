//! Making a move plan: what has to be copied where before the payload starts.
//!
//! A segment's destination is contiguous, its content scattered over frames that lie in no destination. The plan
//! is written as a move list, in the form the relocation code reads: see [`MoveList`](crate::MoveList).

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::move_list::{
    Extent, LENGTH_OF_END, LENGTH_OF_LINK, LIST_FRAME_LEN, LIST_FRAME_WORDS, MoveList, RECORDS_PER_FRAME,
    write_record,
};
use crate::segment::{SegmentError, Segments};

/// A frame for the list: its physical address and its content, which is overwritten.
#[derive(Debug)]
pub struct ListFrame<'f> {
    /// Where the frame is; a multiple of [`LIST_FRAME_LEN`].
    pub pa: Pa,
    /// The frame's memory.
    pub words: &'f mut [u64; LIST_FRAME_WORDS],
}

/// A move plan being made: extents are pushed, in any order, into frames the caller hands out.
#[derive(Debug)]
pub struct MovePlan<'s, 'f> {
    segments: Segments<'s>,
    frame: &'f mut [u64; LIST_FRAME_WORDS],
    /// The records of `frame` that are written.
    used: usize,
    /// The last record of `frame`.
    last: Option<Extent>,
    list: MoveList,
}

/// Why something can't be put into a move plan, which is left as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MoveError {
    /// The frame has no room: add one and push again.
    #[error("the frame of the move list is full")]
    Full,
    /// An address or the length is no multiple of 4 KiB, or the length is 0.
    #[error("cannot move {extent}: not whole pages of 0x1000 bytes")]
    Unaligned {
        /// The extent.
        extent: Extent,
    },
    /// The extent goes beyond the last address.
    #[error("cannot move {extent}: it goes beyond the end of physical memory")]
    Overflow {
        /// The extent.
        extent: Extent,
    },
    /// No one segment holds the whole destination.
    #[error("cannot move {extent}: no segment holds the whole destination")]
    NotInSegment {
        /// The extent.
        extent: Extent,
    },
    /// The source lies in a destination other than its own, so that it may be overwritten before it is copied.
    #[error("cannot move {extent}: the source lies in the segment destination {destination}")]
    SourceOverwritten {
        /// The extent.
        extent: Extent,
        /// The destination of a segment.
        destination: PaRange,
    },
    /// A list frame isn't aligned to 4 KiB.
    #[error("move list frame {frame} is not aligned to 0x1000")]
    FrameUnaligned {
        /// The frame.
        frame: Pa,
    },
    /// A list frame lies in a destination.
    #[error("move list frame: {0}")]
    FrameOverwritten(SegmentError),
}

impl<'s, 'f> MovePlan<'s, 'f> {
    /// A plan without extents.
    ///
    /// # Errors
    ///
    /// [`MoveError::FrameUnaligned`], [`MoveError::FrameOverwritten`]: the frame can't hold a list.
    pub fn new(segments: Segments<'s>, frame: ListFrame<'f>) -> Result<Self, MoveError> {
        check_frame(segments, frame.pa)?;
        let list = MoveList { first: frame.pa, frames: 1, extents: 0, bytes: 0, in_place: 0 };
        Ok(Self { segments, frame: frame.words, used: 0, last: None, list })
    }

    /// Adds an extent. One that goes on where the last one ended, at its source and at its destination, becomes
    /// one with it; one whose source is its destination is only counted.
    ///
    /// # Errors
    ///
    /// - [`MoveError::Full`]: [`MovePlan::add_frame`], then push again.
    /// - [`MoveError::Unaligned`], [`MoveError::Overflow`]: it isn't whole pages of physical memory.
    /// - [`MoveError::NotInSegment`]: it would overwrite what isn't the payload's.
    /// - [`MoveError::SourceOverwritten`]: another copy would overwrite it.
    pub fn push(&mut self, extent: Extent) -> Result<(), MoveError> {
        if !extent.is_aligned() {
            return Err(MoveError::Unaligned { extent });
        }
        let range = |start| PaRange::from_len(start, extent.len).ok_or(MoveError::Overflow { extent });
        let [source, destination] = [range(extent.source)?, range(extent.destination)?];
        if !self.segments.cover(destination) {
            return Err(MoveError::NotInSegment { extent });
        }
        if source == destination {
            self.list.in_place = self.list.in_place.saturating_add(extent.len);
            return Ok(());
        }
        if let Some(destination) = self.segments.overlapping(source) {
            return Err(MoveError::SourceOverwritten { extent, destination });
        }
        let (at, record) = match self.last.and_then(|last| last.joined(extent)) {
            Some(joined) => (self.used.saturating_sub(1), joined),
            // The last record is kept for the link or the end.
            None if self.used + 1 >= RECORDS_PER_FRAME => return Err(MoveError::Full),
            None => (self.used, extent),
        };
        write_record(self.frame, at, [record.source.0, record.destination.0, record.len]);
        self.last = Some(record);
        self.list.extents += (at + 1 - self.used) as u64;
        self.list.bytes = self.list.bytes.saturating_add(extent.len);
        self.used = at + 1;
        Ok(())
    }

    /// Links a further frame; the extents that follow go there.
    ///
    /// # Errors
    ///
    /// [`MoveError::FrameUnaligned`], [`MoveError::FrameOverwritten`]: the frame can't hold a list.
    pub fn add_frame(&mut self, frame: ListFrame<'f>) -> Result<(), MoveError> {
        check_frame(self.segments, frame.pa)?;
        write_record(self.frame, self.used, [frame.pa.0, 0, LENGTH_OF_LINK]);
        self.frame = frame.words;
        self.used = 0;
        self.last = None;
        self.list.frames += 1;
        Ok(())
    }

    /// Ends the list.
    pub fn finish(self) -> MoveList {
        write_record(self.frame, self.used, [0, 0, LENGTH_OF_END]);
        self.list
    }
}

fn check_frame(segments: Segments<'_>, frame: Pa) -> Result<(), MoveError> {
    match PaRange::from_len(frame, LIST_FRAME_LEN) {
        Some(range) if frame.0.is_multiple_of(LIST_FRAME_LEN) => {
            segments.check_outside(range).map_err(MoveError::FrameOverwritten)
        }
        _ => Err(MoveError::FrameUnaligned { frame }),
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::move_list::{RECORD_WORDS, WireError};

    type Frame = Box<[u64; LIST_FRAME_WORDS]>;

    fn extent(source: u64, destination: u64, len: u64) -> Extent {
        Extent { source: Pa(source), destination: Pa(destination), len }
    }

    fn frames(at: impl Iterator<Item = u64>) -> Vec<(u64, Frame)> {
        // Old content must not matter.
        at.map(|pa| (pa, Box::new([0x5a5a_5a5a_5a5a_5a5a; LIST_FRAME_WORDS]))).collect()
    }

    /// Makes a plan of all extents in the frames given, taking each only when it is needed.
    fn build(destinations: &[PaRange], extents: &[Extent], frames: &mut [(u64, Frame)]) -> MoveList {
        let segments = Segments::new(destinations).unwrap();
        let mut frames = frames.iter_mut().map(|(pa, words)| ListFrame { pa: Pa(*pa), words });
        let mut plan = MovePlan::new(segments, frames.next().unwrap()).unwrap();
        for &extent in extents {
            match plan.push(extent) {
                Err(MoveError::Full) => {
                    plan.add_frame(frames.next().unwrap()).unwrap();
                    plan.push(extent).unwrap();
                }
                pushed => pushed.unwrap(),
            }
        }
        plan.finish()
    }

    fn read(list: MoveList, frames: &[(u64, Frame)]) -> Vec<Result<Extent, WireError>> {
        let at = |pa: Pa| frames.iter().find(|(at, _)| *at == pa.0).map(|(_, words)| &**words);
        list.extents(at).collect()
    }

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn extents_that_go_on_at_both_sides_become_one() {
        let mut list_frames = frames([0x9000].into_iter());
        let pushed = [
            extent(0x10_0000, 0, 0x1000),
            extent(0x10_1000, 0x1000, 0x2000),
            // Goes on at the destination alone, then at the source alone.
            extent(0x20_0000, 0x3000, 0x1000),
            extent(0x20_1000, 0x6000, 0x1000),
        ];
        let list = build(&[range(0, 0x7000)], &pushed, &mut list_frames);
        let read: Vec<_> = read(list, &list_frames).into_iter().map(Result::unwrap).collect();
        assert_eq!(read, [extent(0x10_0000, 0, 0x3000), pushed[2], pushed[3]]);
        assert_eq!((list.frames, list.extents, list.bytes), (1, 3, 0x5000));
    }

    #[test]
    fn the_wire_form_is_three_words_a_record_and_ends_with_a_record_of_zeros() {
        let mut list_frames = frames([0x9000].into_iter());
        build(&[range(0, 0x1000)], &[extent(0x10_0000, 0, 0x1000)], &mut list_frames);
        let words = list_frames[0].1.map(u64::from_le);
        assert_eq!(words[..6], [0x10_0000, 0, 0x1000, 0, 0, 0]);
        assert_eq!((LIST_FRAME_LEN, RECORDS_PER_FRAME), (4096, 170));
    }

    #[test]
    fn a_full_frame_links_to_the_next_in_its_last_record() {
        let copies = RECORDS_PER_FRAME as u64 - 1;
        // Every other page, so that nothing can be joined.
        let pushed: Vec<_> =
            (0..=copies).map(|n| extent(0x100_0000 + n * 0x2000, n * 0x1000, 0x1000)).collect();
        let mut list_frames = frames([0x80_0000, 0x70_0000].into_iter());
        let list = build(&[range(0, (copies + 1) * 0x1000)], &pushed, &mut list_frames);
        assert_eq!((list.first, list.frames, list.extents), (Pa(0x80_0000), 2, copies + 1));
        let last = RECORD_WORDS * (RECORDS_PER_FRAME - 1);
        assert_eq!(list_frames[0].1.map(u64::from_le)[last..last + 3], [0x70_0000, 0, u64::MAX]);
        let read: Vec<_> = read(list, &list_frames).into_iter().map(Result::unwrap).collect();
        assert_eq!(read, pushed);
    }

    #[test]
    fn a_frame_that_ends_exactly_full_needs_no_other() {
        let copies = RECORDS_PER_FRAME as u64 - 1;
        let pushed: Vec<_> =
            (0..copies).map(|n| extent(0x100_0000 + n * 0x2000, n * 0x1000, 0x1000)).collect();
        let mut list_frames = frames([0x80_0000].into_iter());
        let list = build(&[range(0, copies * 0x1000)], &pushed, &mut list_frames);
        assert_eq!(read(list, &list_frames).len() as u64, copies);
    }

    #[test]
    fn an_extent_is_not_joined_with_one_in_an_earlier_frame() {
        let destinations = [range(0, 0x2000)];
        let pushed = [extent(0x10_0000, 0, 0x1000), extent(0x10_1000, 0x1000, 0x1000)];
        let mut list_frames = frames([0x80_0000, 0x70_0000].into_iter());
        let mut given = list_frames.iter_mut().map(|(pa, words)| ListFrame { pa: Pa(*pa), words });
        let mut plan = MovePlan::new(Segments::new(&destinations).unwrap(), given.next().unwrap()).unwrap();
        plan.push(pushed[0]).unwrap();
        plan.add_frame(given.next().unwrap()).unwrap();
        plan.push(pushed[1]).unwrap();
        let list = plan.finish();
        assert_eq!(read(list, &list_frames), pushed.map(Ok));
    }

    #[test]
    fn address_zero_is_a_source_a_destination_and_a_list_frame_like_any_other() {
        let mut at_zero = frames([0].into_iter());
        let list = build(&[range(0x1000, 0x2000)], &[extent(0x5000, 0x1000, 0x1000)], &mut at_zero);
        assert_eq!(read(list, &at_zero), [Ok(extent(0x5000, 0x1000, 0x1000))]);
        let mut list_frames = frames([0x9000].into_iter());
        let list = build(&[range(0x1000, 0x2000)], &[extent(0, 0x1000, 0x1000)], &mut list_frames);
        assert_eq!(read(list, &list_frames), [Ok(extent(0, 0x1000, 0x1000))]);
    }

    #[test]
    fn what_already_lies_in_place_is_not_moved() {
        let mut list_frames = frames([0x9000].into_iter());
        let list = build(&[range(0, 0x3000)], &[extent(0, 0, 0x3000)], &mut list_frames);
        assert_eq!((list.extents, list.bytes, list.in_place), (0, 0, 0x3000));
        assert!(read(list, &list_frames).is_empty());
    }

    #[test]
    fn a_refused_extent_is_named_and_changes_nothing() {
        let destinations = [range(0, 0x3000), range(0x8000, 0xa000)];
        let segments = Segments::new(&destinations).unwrap();
        let mut list_frames = frames([0x2_0000].into_iter());
        let frame = ListFrame { pa: Pa(0x2_0000), words: &mut list_frames[0].1 };
        let mut plan = MovePlan::new(segments, frame).unwrap();
        let good = extent(0x10_0000, 0, 0x1000);
        plan.push(good).unwrap();

        let unaligned =
            [extent(0x10_1008, 0x1000, 0x1000), extent(0x10_1000, 0x1000, 0x800), extent(0, 0, 0)];
        for extent in unaligned {
            assert_eq!(plan.push(extent), Err(MoveError::Unaligned { extent }));
        }
        let beyond = extent(!0xfff, 0, 0x1000);
        assert_eq!(plan.push(beyond), Err(MoveError::Overflow { extent: beyond }));
        for outside in [extent(0x10_0000, 0x3000, 0x1000), extent(0x10_0000, 0x2000, 0x2000)] {
            assert_eq!(plan.push(outside), Err(MoveError::NotInSegment { extent: outside }));
        }
        for (lost, destination) in [
            (extent(0x9000, 0, 0x1000), destinations[1]),
            (extent(0x1000, 0, 0x1000), destinations[0]),
            (extent(0x7000, 0x1000, 0x2000), destinations[1]),
        ] {
            assert_eq!(plan.push(lost), Err(MoveError::SourceOverwritten { extent: lost, destination }));
        }
        let list = plan.finish();
        assert_eq!(read(list, &list_frames), [Ok(good)]);
    }

    #[test]
    fn a_list_frame_in_a_destination_or_unaligned_is_refused() {
        let destinations = [range(0x8000, 0xa000)];
        let segments = Segments::new(&destinations).unwrap();
        let mut list_frames = frames([0xa000, 0x9000, 0x800].into_iter());
        let mut list_frames = list_frames.iter_mut().map(|(pa, words)| ListFrame { pa: Pa(*pa), words });
        let mut plan = MovePlan::new(segments, list_frames.next().unwrap()).unwrap();
        assert_eq!(
            plan.add_frame(list_frames.next().unwrap()),
            Err(MoveError::FrameOverwritten(SegmentError::Overwritten {
                range: range(0x9000, 0xa000),
                destination: destinations[0]
            }))
        );
        assert_eq!(
            plan.add_frame(list_frames.next().unwrap()),
            Err(MoveError::FrameUnaligned { frame: Pa(0x800) })
        );
    }

    #[test]
    fn a_list_that_was_damaged_is_an_error_and_never_endless() {
        let list = MoveList { first: Pa(0), frames: 3, extents: 0, bytes: 0, in_place: 0 };
        let damaged = |record: [u64; 3]| {
            let mut list_frames = frames([0].into_iter());
            write_record(&mut list_frames[0].1, 0, record);
            read(list, &list_frames)
        };
        assert_eq!(damaged([0, 0, LENGTH_OF_LINK]), [Err(WireError::TooManyFrames { frame: Pa(0) })]);
        assert_eq!(damaged([0x1000, 0, LENGTH_OF_LINK]), [Err(WireError::NoFrame { frame: Pa(0x1000) })]);
        for words in [[0, 0, 8], [8, 0, 0x1000], [0, 0x1000, 0], [0, 0x1000, LENGTH_OF_LINK]] {
            assert_eq!(damaged(words), [Err(WireError::BadRecord { frame: Pa(0), index: 0, words })]);
        }
        let mut list_frames = frames([0].into_iter());
        for at in 0..RECORDS_PER_FRAME {
            write_record(&mut list_frames[0].1, at, [0x1000, 0x2000, 0x1000]);
        }
        let read = read(list, &list_frames);
        assert_eq!(read.len(), RECORDS_PER_FRAME);
        assert_eq!(read.last(), Some(&Err(WireError::NotEnded { frame: Pa(0) })));
    }

    proptest! {
        /// Memory is a map from page number to the number written in that page.
        #[test]
        fn following_the_list_puts_every_page_where_it_belongs(
            segments in prop::collection::vec((1u64..150, 1u64..4), 1..4),
            seed in prop::collection::vec(any::<prop::sample::Index>(), 600),
            in_order in any::<bool>(),
        ) {
            let mut destinations = Vec::new();
            let mut next = 0;
            for (pages, gap) in segments {
                destinations.push(range(next << 12, (next + pages) << 12));
                next += pages + gap;
            }
            let wanted: Vec<u64> =
                destinations.iter().flat_map(|range| range.start.0 >> 12..range.end.0 >> 12).collect();
            // Sources from outside all destinations, in order or at random; some pages are in place already.
            let mut outside: Vec<u64> = (1000..2000).collect();
            let mut memory = BTreeMap::new();
            let mut pushed = Vec::new();
            for (&page, index) in wanted.iter().zip(&seed) {
                let source = match index.index(8) {
                    0 => page,
                    _ if in_order => outside.remove(0),
                    _ => outside.swap_remove(index.index(outside.len())),
                };
                memory.insert(source, !page);
                pushed.push(extent(source << 12, page << 12, 0x1000));
            }
            let mut list_frames = frames((3000..3010).map(|page| page << 12));
            let list = build(&destinations, &pushed, &mut list_frames);

            let mut moved = 0;
            for copy in read(list, &list_frames) {
                let copy = copy.unwrap();
                moved += copy.len;
                for page in 0..copy.len >> 12 {
                    let content = memory[&((copy.source.0 >> 12) + page)];
                    memory.insert((copy.destination.0 >> 12) + page, content);
                }
            }
            for &page in &wanted {
                prop_assert_eq!(memory.get(&page), Some(&!page));
            }
            prop_assert_eq!(moved, list.bytes);
            prop_assert_eq!(list.bytes + list.in_place, (wanted.len() as u64) << 12);
        }
    }
}

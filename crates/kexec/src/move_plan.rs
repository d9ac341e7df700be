//! Making a move plan: what has to be copied or cleared where before the payload starts.
//!
//! Extents whose sources lie outside all destinations may be moved in any order: they are dealt out to as many lists
//! as CPUs are to take part. The others are put in [order](crate::order) and stand in the first list, before the rest.

use core::fmt;
use core::num::NonZeroUsize;

use arrayvec::ArrayVec;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::list_writer::{ListFrame, ListWriter};
use crate::move_list::{LIST_FRAME_LEN, LIST_FRAME_WORDS, MoveList, Record, Records, WireError};
use crate::order::{Order, Pending, Step};
use crate::segment::{MAX_SEGMENTS, SEGMENT_ALIGN, SegmentError, Segments};

/// How many lists a plan has at most.
pub const MAX_SHARES: usize = linmap_relocate::MAX_LISTS;
/// How many bytes of the bounce buffer are used at most. More would not make the move faster.
pub const BOUNCE_MAX: u64 = 0x20_0000;
/// An extent is dealt out to several lists in parts of this many bytes, so that all lists get the same within this.
const PART_LEN: u64 = 0x4_0000;

/// What a destination is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The bytes from here on.
    At(Pa),
    /// Zeros.
    Zeros,
}

/// A run of bytes to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where its content is.
    pub source: Source,
    /// Where it has to go.
    pub destination: Pa,
    /// How many bytes; a multiple of [`SEGMENT_ALIGN`], not 0.
    pub len: u64,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::At(source) => write!(f, "{:#x} bytes from {source} to {}", self.len, self.destination),
            Source::Zeros => write!(f, "{:#x} bytes of zeros to {}", self.len, self.destination),
        }
    }
}

/// A move plan being made: extents are pushed, lists are written into frames that the caller hands out.
///
/// The plan takes frames from the iterator it is given when it needs them. It is an error if there is none left.
#[derive(Debug)]
pub struct MovePlan<'s, 'f, 'w> {
    overwritten: Overwritten<'s>,
    /// Up to where each segment has its content.
    filled: ArrayVec<Pa, MAX_SEGMENTS>,
    order: Order<'w>,
    shares: usize,
    lists: ArrayVec<ListWriter<'f>, MAX_SHARES>,
    /// Which of `lists` was written to last.
    current: usize,
    moved: u64,
    cleared: u64,
    in_place: u64,
    failed: Option<MoveError>,
}

/// A finished plan: lists in memory, and what they amount to.
///
/// If nothing has to be moved there is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The lists: the boot CPU's, then one each for other CPUs. [`MoveList`] says what a CPU may do when.
    pub lists: ArrayVec<MoveList, MAX_SHARES>,
    /// How many copies and clears all lists have.
    pub extents: u64,
    /// How many of them are copies that have to go in the order given, before those of the other lists start.
    pub ordered: u64,
    /// How many bytes are copied to their destination.
    pub moved: u64,
    /// How many bytes are cleared.
    pub cleared: u64,
    /// How many bytes already lie where they have to.
    pub in_place: u64,
    /// How many bytes are copied to the bounce buffer, in addition to `moved`.
    pub bounced: u64,
    /// How many frames all lists have.
    pub frames: u64,
}

/// Why there can be no plan, or why an extent can't be part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MoveError {
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
    /// The destination was passed already, so that a page of it could have two contents.
    #[error(
        "cannot move {extent}: its segment is already filled up to {filled}, and only goes on from there"
    )]
    Backwards {
        /// The extent.
        extent: Extent,
        /// Up to where the segment is filled.
        filled: Pa,
    },
    /// The source would be overwritten by what passes through the bounce buffer.
    #[error("cannot move {extent}: its source overlaps the bounce buffer {bounce}")]
    BounceInSource {
        /// The extent.
        extent: Extent,
        /// The bounce buffer.
        bounce: PaRange,
    },
    /// The bounce buffer is empty, or an end isn't aligned to 4 KiB.
    #[error("the bounce buffer {bounce} is not whole pages of 0x1000 bytes")]
    BounceUnaligned {
        /// The bounce buffer.
        bounce: PaRange,
    },
    /// The bounce buffer lies in a destination.
    #[error("bounce buffer: {0}")]
    BounceOverwritten(SegmentError),
    /// Extents overwrite each other's sources in a circle, and there is no bounce buffer. One of 4 KiB is enough.
    #[error(
        "{pending:#x} bytes overwrite each other in a circle: a bounce buffer of at least 0x1000 bytes is needed"
    )]
    NoBounce {
        /// How many bytes can't be moved.
        pending: u64,
    },
    /// Too many extents have to be put in order.
    #[error("more than the {capacity} extents that can be put in order overlap destinations")]
    WorkspaceFull {
        /// How many elements the workspace has.
        capacity: usize,
    },
    /// There is no frame left for the lists.
    #[error("no memory for a frame of the move list")]
    NoFrame,
    /// A list frame isn't aligned to 4 KiB.
    #[error("move list frame {frame} is not aligned to 0x1000")]
    FrameUnaligned {
        /// The frame.
        frame: Pa,
    },
    /// A list frame lies in a destination.
    #[error("move list frame: {0}")]
    FrameOverwritten(SegmentError),
    /// A list frame lies in the bounce buffer.
    #[error("move list frame {frame} lies in the bounce buffer {bounce}")]
    FrameInBounce {
        /// The frame.
        frame: Pa,
        /// The bounce buffer.
        bounce: PaRange,
    },
}

impl<'s, 'f, 'w> MovePlan<'s, 'f, 'w> {
    /// A plan without extents.
    ///
    /// `workspace` holds the extents whose sources lie in destinations while they are put in order; they may be cut for
    /// that, so there should be room for more than are pushed. The memory in `bounce` is overwritten by the move, at
    /// most [`BOUNCE_MAX`] bytes of it. `shares` is how many CPUs take part: as many lists are made as have
    /// something to do, at most [`MAX_SHARES`].
    ///
    /// # Errors
    ///
    /// [`MoveError::BounceUnaligned`], [`MoveError::BounceOverwritten`]: the bounce buffer can't be one.
    pub fn new(
        segments: Segments<'s>,
        workspace: &'w mut [Pending],
        bounce: Option<PaRange>,
        shares: NonZeroUsize,
    ) -> Result<Self, MoveError> {
        let bounce = match bounce {
            Some(given) => checked_bounce(segments, given)?,
            None => PaRange::default(),
        };
        Ok(Self {
            overwritten: Overwritten { segments, bounce },
            filled: segments.destinations().iter().map(|destination| destination.start).collect(),
            order: Order::new(workspace, bounce),
            shares: shares.get().min(MAX_SHARES),
            lists: ArrayVec::new(),
            current: 0,
            moved: 0,
            cleared: 0,
            in_place: 0,
            failed: None,
        })
    }

    /// Adds an extent. Each segment is filled upwards, with gaps where its memory stays as it is; which segment an
    /// extent is for is free. One that goes on where the last one ended, at its source and at its destination, becomes
    /// one with it; one whose source is its destination is only counted.
    ///
    /// # Errors
    ///
    /// The plan is left as it was by
    /// - [`MoveError::Unaligned`], [`MoveError::Overflow`]: the extent isn't whole pages of physical memory;
    /// - [`MoveError::NotInSegment`]: it would overwrite what isn't the payload's;
    /// - [`MoveError::Backwards`]: it would overwrite what another extent filled;
    /// - [`MoveError::BounceInSource`]: it would be overwritten.
    ///
    /// All calls that follow return the same error after
    /// - [`MoveError::NoFrame`]: a frame is needed;
    /// - [`MoveError::FrameUnaligned`], [`MoveError::FrameOverwritten`], [`MoveError::FrameInBounce`]: a frame can't
    ///   hold a list;
    /// - [`MoveError::WorkspaceFull`]: the source lies in a destination.
    pub fn push(
        &mut self,
        extent: Extent,
        frames: &mut impl Iterator<Item = ListFrame<'f>>,
    ) -> Result<(), MoveError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Extent { source, destination, len } = extent;
        let start = match source {
            Source::At(source) => source,
            Source::Zeros => Pa(0),
        };
        if len == 0 || ![start.0, destination.0, len].iter().all(|n| n.is_multiple_of(SEGMENT_ALIGN)) {
            return Err(MoveError::Unaligned { extent });
        }
        let range = |start| PaRange::from_len(start, len).ok_or(MoveError::Overflow { extent });
        let [from, to] = [range(start)?, range(destination)?];
        let segment = self.overwritten.segments.holding(to);
        let Some(filled) = segment.and_then(|segment| self.filled.get_mut(segment)) else {
            return Err(MoveError::NotInSegment { extent });
        };
        if to.start < *filled {
            return Err(MoveError::Backwards { extent, filled: *filled });
        }
        let bounce = self.overwritten.bounce;
        if source != Source::Zeros && from.overlaps(bounce) {
            return Err(MoveError::BounceInSource { extent, bounce });
        }
        *filled = to.end;
        let added = match source {
            Source::Zeros => {
                self.cleared = self.cleared.saturating_add(len);
                self.deal(Record::Clear { destination, len }, frames)
            }
            Source::At(_) if from == to => {
                self.in_place = self.in_place.saturating_add(len);
                Ok(())
            }
            Source::At(_) => {
                self.moved = self.moved.saturating_add(len);
                self.add(from, destination, frames)
            }
        };
        self.failed = added.err();
        added
    }

    /// Ends the lists.
    ///
    /// # Errors
    ///
    /// - What [`MovePlan::push`] returned after which all calls return the same.
    /// - [`MoveError::NoBounce`]: there is a circle and no bounce buffer.
    /// - [`MoveError::WorkspaceFull`]: extents had to be cut to be put in order.
    /// - [`MoveError::NoFrame`], [`MoveError::FrameUnaligned`], [`MoveError::FrameOverwritten`],
    ///   [`MoveError::FrameInBounce`]: as for [`MovePlan::push`].
    pub fn finish(mut self, frames: &mut impl Iterator<Item = ListFrame<'f>>) -> Result<Moves, MoveError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut first: Option<ListWriter<'f>> = None;
        let mut bounced = 0u64;
        while let Some(step) = self.order.next()? {
            let record = match step {
                Step::Fill { source, destination, len } => Record::copy(source, destination, len),
                Step::Save { source, bounce, len } => {
                    bounced = bounced.saturating_add(len);
                    Record::copy(source, bounce, len)
                }
            };
            match &mut first {
                None => first.insert(ListWriter::new(self.overwritten.frame(frames)?)).push(record),
                Some(list) => append(list, record, self.overwritten, frames)?,
            }
        }
        let ordered = first.as_ref().map_or(0, |first| first.list().extents);
        let mut shares = self.lists.into_iter().map(ListWriter::end);
        let first = match (first, shares.next()) {
            (None, share) => share,
            (Some(ordered), None) => Some(ordered.end()),
            (Some(ordered), Some(share)) => Some(ordered.end_with(share)),
        };
        let lists: ArrayVec<MoveList, MAX_SHARES> = first.into_iter().chain(shares).collect();
        Ok(Moves {
            extents: lists.iter().map(|list| list.extents).sum(),
            frames: lists.iter().map(|list| list.frames).sum(),
            ordered,
            moved: self.moved,
            cleared: self.cleared,
            in_place: self.in_place,
            bounced,
            lists,
        })
    }

    /// Adds a copy: what it reads outside all destinations to the lists, what it reads inside to be ordered.
    fn add(
        &mut self,
        source: PaRange,
        destination: Pa,
        frames: &mut impl Iterator<Item = ListFrame<'f>>,
    ) -> Result<(), MoveError> {
        let (mut rest, mut destination) = (source, destination);
        while !rest.is_empty() {
            let (front, in_destination) = self.overwritten.segments.front(rest);
            if in_destination {
                self.order.push(front.start, destination, front.len())?;
            } else {
                self.deal(Record::copy(front.start, destination, front.len()), frames)?;
            }
            rest = PaRange::new(front.end, rest.end);
            destination = Pa(destination.0.saturating_add(front.len()));
        }
        Ok(())
    }

    /// Deals a record out to the lists.
    fn deal(
        &mut self,
        record: Record,
        frames: &mut impl Iterator<Item = ListFrame<'f>>,
    ) -> Result<(), MoveError> {
        let limit = if self.shares == 1 { u64::MAX } else { PART_LEN };
        let mut rest = match self.lists.get_mut(self.current) {
            Some(list) => list.extend(record, limit),
            None => Some(record),
        };
        let overwritten = self.overwritten;
        while let Some(record) = rest {
            let (part, behind) = record.cut(limit);
            rest = behind;
            append(self.least(frames)?, part, overwritten, frames)?;
        }
        Ok(())
    }

    /// The list with the fewest bytes: a new one, as long as there are fewer than CPUs.
    fn least(
        &mut self,
        frames: &mut impl Iterator<Item = ListFrame<'f>>,
    ) -> Result<&mut ListWriter<'f>, MoveError> {
        let count = self.lists.len();
        if count < self.shares {
            let mut list = ListWriter::new(self.overwritten.frame(frames)?);
            if count == 0 && self.shares > 1 {
                list.push(Record::Go);
            }
            self.lists.push(list);
        }
        let least = self.lists.iter_mut().enumerate().min_by_key(|(_, list)| list.list().bytes);
        let (index, list) = least.ok_or(MoveError::NoFrame)?;
        self.current = index;
        Ok(list)
    }
}

fn append<'f>(
    list: &mut ListWriter<'f>,
    record: Record,
    overwritten: Overwritten<'_>,
    frames: &mut impl Iterator<Item = ListFrame<'f>>,
) -> Result<(), MoveError> {
    if list.is_full() {
        list.link(overwritten.frame(frames)?);
    }
    list.push(record);
    Ok(())
}

/// What the move writes to, where no list can be.
#[derive(Clone, Copy, Debug)]
struct Overwritten<'s> {
    segments: Segments<'s>,
    /// Empty, at 0, where there is none.
    bounce: PaRange,
}

impl Overwritten<'_> {
    /// The next frame, checked.
    fn frame<'f>(self, frames: &mut impl Iterator<Item = ListFrame<'f>>) -> Result<ListFrame<'f>, MoveError> {
        let frame = frames.next().ok_or(MoveError::NoFrame)?;
        let unaligned = MoveError::FrameUnaligned { frame: frame.pa };
        if !frame.pa.0.is_multiple_of(LIST_FRAME_LEN) {
            return Err(unaligned);
        }
        let range = PaRange::from_len(frame.pa, LIST_FRAME_LEN).ok_or(unaligned)?;
        self.segments.check_outside(range).map_err(MoveError::FrameOverwritten)?;
        if range.overlaps(self.bounce) {
            return Err(MoveError::FrameInBounce { frame: frame.pa, bounce: self.bounce });
        }
        Ok(frame)
    }
}

fn checked_bounce(segments: Segments<'_>, bounce: PaRange) -> Result<PaRange, MoveError> {
    let ends = [bounce.start, bounce.end];
    if bounce.is_empty() || ends.iter().any(|end| !end.0.is_multiple_of(SEGMENT_ALIGN)) {
        return Err(MoveError::BounceUnaligned { bounce });
    }
    segments.check_outside(bounce).map_err(MoveError::BounceOverwritten)?;
    let len = bounce.len().min(BOUNCE_MAX);
    PaRange::from_len(bounce.start, len).ok_or(MoveError::BounceUnaligned { bounce })
}

impl Moves {
    /// The records of all lists, one list after the other, as the relocation code will read them. For `frame_at` see
    /// [`MoveList::records`].
    pub fn records<'l, 'm, F>(&'l self, frame_at: F) -> Records<'l, 'm, F>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        Records::new(&self.lists, frame_at)
    }

    /// Reads all lists as they are in memory, and checks that none lies on what is to be copied. A plan can't see that
    /// while it is made, since it keeps neither all sources nor all frames.
    ///
    /// # Errors
    ///
    /// - [`WireError::FrameInSource`]: writing the list has destroyed part of the payload.
    /// - The others: the lists were overwritten.
    pub fn check<'m>(
        &self,
        mut frame_at: impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    ) -> Result<(), WireError> {
        /// Frames that are looked for at a time, so that the lists are read once for so many.
        const BATCH: u64 = 64;
        let mut skip = 0u64;
        while skip < self.frames {
            let mut batch = ArrayVec::<Pa, { BATCH as usize }>::new();
            let (mut seen, mut last) = (0u64, None);
            let mut records = self.records(&mut frame_at);
            while let Some((frame, _)) = records.step()? {
                if last != Some(frame) {
                    last = Some(frame);
                    if seen >= skip && batch.try_push(frame).is_err() {
                        break;
                    }
                    seen += 1;
                }
            }
            batch.sort_unstable();
            for record in self.records(&mut frame_at) {
                let source = record?.source();
                // The first frame that ends behind the start of the source.
                let next =
                    batch.partition_point(|frame| frame.0.saturating_add(LIST_FRAME_LEN) <= source.start.0);
                match batch.get(next) {
                    Some(&frame) if frame < source.end => {
                        return Err(WireError::FrameInSource { frame, source_range: source });
                    }
                    _ => {}
                }
            }
            skip += BATCH;
        }
        Ok(())
    }
}

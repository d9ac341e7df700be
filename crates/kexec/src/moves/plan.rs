//! Making a move plan: the copies and clears that place the payload before it starts.
//!
//! An extent whose source lies outside all destinations may be moved at any time: such extents are
//! divided among as many lists as CPUs take part. All other extents are
//! [ordered](super::ordering) at the start of the first list.

use core::num::NonZeroUsize;

use arrayvec::ArrayVec;
use linmap_vmsa::{Pa, PaRange};

use crate::place::{MAX_SEGMENTS, SEGMENT_ALIGN, Segments};

use super::extent::{Extent, ExtentSource};
use super::finished_plan::{MAX_SHARES, Moves};
use super::list::{LIST_FRAME_LEN, MoveList};
use super::list_writer::{ListFrame, ListWriter};
use super::move_error::MoveError;
use super::ordering::{CopyOrdering, Pending, Step};
use super::record::Record;

/// The most bytes of the bounce buffer that are used. More would not make the move faster.
pub const BOUNCE_MAX: u64 = 0x20_0000;
/// An extent is divided among the lists in parts of this many bytes: the lists differ by at most
/// one part.
const PART_LEN: u64 = 0x4_0000;

/// A move plan that is being made: the caller pushes extents, the plan writes lists into the
/// caller's frames.
///
/// The plan takes a frame from the caller's iterator when it needs one. It fails if none is left.
#[derive(Debug)]
pub struct MovePlan<'s, 'f, 'w> {
    overwritten: Overwritten<'s>,
    /// The end of the filled part of each segment.
    filled: ArrayVec<Pa, MAX_SEGMENTS>,
    ordering: CopyOrdering<'w>,
    shares: usize,
    lists: ArrayVec<ListWriter<'f>, MAX_SHARES>,
    /// The index of the list that was written last.
    current: usize,
    moved: u64,
    cleared: u64,
    in_place: u64,
    failed: Option<MoveError>,
}

impl<'s, 'f, 'w> MovePlan<'s, 'f, 'w> {
    /// Returns a plan without extents.
    ///
    /// `workspace` holds the extents whose sources lie in destinations until they are ordered.
    /// Ordering may cut an extent, so the workspace should be larger than the number of such
    /// extents. The move overwrites the first [`BOUNCE_MAX`] bytes of `bounce`. `shares` is the
    /// number of CPUs that take part: the plan makes at most as many lists, and at most
    /// [`MAX_SHARES`].
    ///
    /// # Errors
    ///
    /// [`MoveError::BounceUnaligned`], [`MoveError::BounceOverwritten`]: the bounce buffer cannot
    /// be used.
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
            ordering: CopyOrdering::new(workspace, bounce),
            shares: shares.get().min(MAX_SHARES),
            lists: ArrayVec::new(),
            current: 0,
            moved: 0,
            cleared: 0,
            in_place: 0,
            failed: None,
        })
    }

    /// Adds an extent. Each segment is filled upwards; memory in a gap keeps its content. The
    /// segments may be filled in any order. An extent that continues the last one, at its source
    /// and at its destination, is merged with it. One whose source is its destination is only
    /// counted.
    ///
    /// # Errors
    ///
    /// The plan is unchanged after
    /// - [`MoveError::Unaligned`], [`MoveError::Overflow`]: the extent is not whole pages of
    ///   physical memory;
    /// - [`MoveError::NotInSegment`]: it would overwrite memory outside the payload;
    /// - [`MoveError::Backwards`]: it would overwrite another extent;
    /// - [`MoveError::BounceInSource`]: the move would overwrite its source.
    ///
    /// All later calls return the same error after
    /// - [`MoveError::NoFrame`]: no frame is left;
    /// - [`MoveError::FrameUnaligned`],
    ///   [`MoveError::FrameOverwritten`], [`MoveError::FrameInBounce`]: a frame cannot hold a list;
    /// - [`MoveError::WorkspaceFull`]: the source lies in a destination, and the workspace is full.
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
            ExtentSource::At(source) => source,
            ExtentSource::Zeros => Pa(0),
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
        if source != ExtentSource::Zeros && from.overlaps(bounce) {
            return Err(MoveError::BounceInSource { extent, bounce });
        }
        *filled = to.end;
        let added = match source {
            ExtentSource::Zeros => {
                self.cleared = self.cleared.saturating_add(len);
                self.divide(Record::Clear { destination, len }, frames)
            }
            ExtentSource::At(_) if from == to => {
                self.in_place = self.in_place.saturating_add(len);
                Ok(())
            }
            ExtentSource::At(_) => {
                self.moved = self.moved.saturating_add(len);
                self.add(from, destination, frames)
            }
        };
        self.failed = added.err();
        added
    }

    /// Orders the remaining extents and ends the lists.
    ///
    /// # Errors
    ///
    /// - The error of an earlier [`MovePlan::push`] that all later calls return.
    /// - [`MoveError::NoBounce`]: extents overwrite each other in a circle, and there is no bounce
    ///   buffer.
    /// - [`MoveError::WorkspaceFull`]: ordering had to cut extents, and the workspace is full.
    /// - [`MoveError::NoFrame`], [`MoveError::FrameUnaligned`], [`MoveError::FrameOverwritten`],
    ///   [`MoveError::FrameInBounce`]: as for [`MovePlan::push`].
    pub fn finish(mut self, frames: &mut impl Iterator<Item = ListFrame<'f>>) -> Result<Moves, MoveError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut first: Option<ListWriter<'f>> = None;
        let mut bounced = 0u64;
        while let Some(step) = self.ordering.next()? {
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

    /// Adds a copy: the parts that it reads outside all destinations to the lists, all others to
    /// the ordering.
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
                self.ordering.push(front.start, destination, front.len())?;
            } else {
                self.divide(Record::copy(front.start, destination, front.len()), frames)?;
            }
            rest = PaRange::new(front.end, rest.end);
            destination = Pa(destination.0.saturating_add(front.len()));
        }
        Ok(())
    }

    /// Divides a record among the lists.
    fn divide(
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

    /// Returns the list with the fewest bytes: a new one while there are fewer lists than CPUs.
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

/// The memory that the move overwrites: no list frame can lie there.
#[derive(Clone, Copy, Debug)]
struct Overwritten<'s> {
    segments: Segments<'s>,
    /// The bounce buffer; empty, at 0, if there is none.
    bounce: PaRange,
}

impl Overwritten<'_> {
    /// Takes the next frame and checks it.
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

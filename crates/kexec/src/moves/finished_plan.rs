//! A finished move plan: lists in memory.

use arrayvec::ArrayVec;
use linmap_vmsa::Pa;

use super::frame_finder::FrameFinder;
use super::list::{LIST_FRAME_WORDS, MoveList, Records};
use super::list_error::WireError;

/// The most lists of a plan.
pub const MAX_SHARES: usize = linmap_relocate::MAX_LISTS;

/// A finished plan: lists in memory and their totals. If nothing must be moved, there is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The lists: the boot CPU's, then one for each other CPU. [`MoveList`] gives the order among
    /// them.
    pub lists: ArrayVec<MoveList, MAX_SHARES>,
    /// The number of copies and clears in all lists.
    pub extents: u64,
    /// The number of copies among them that must be made in the given order, before the other lists
    /// start.
    pub ordered: u64,
    /// The number of bytes copied to their destination.
    pub moved: u64,
    /// The number of bytes cleared.
    pub cleared: u64,
    /// The number of bytes whose source is their destination.
    pub in_place: u64,
    /// The number of bytes copied to the bounce buffer, in addition to `moved`.
    pub bounced: u64,
    /// The number of frames of all lists.
    pub frames: u64,
}

impl Moves {
    /// Returns the records of all lists, one list after the other, as the relocation code will read
    /// them. For `frame_at` see [`MoveList::records`].
    pub fn records<'l, 'm, F>(&'l self, frame_at: F) -> Records<'l, 'm, F>
    where
        F: FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    {
        Records::new(&self.lists, frame_at)
    }

    /// Reads all lists in memory and checks that they write as many bytes as when they were
    /// finished, and that no list frame lies in the source of a copy.
    /// [`MovePlan`](crate::MovePlan) cannot check the latter, since it stores neither all sources
    /// nor all frames.
    ///
    /// `room` is for the addresses of the frames. With room for all [`Moves::frames`], each record
    /// is read twice and looked up by binary search. With less, it is read once more each time the
    /// room is full.
    ///
    /// # Errors
    ///
    /// - [`WireError::FrameInSource`]: a frame of the list has overwritten part of the payload.
    /// - All others: the lists were overwritten.
    pub fn check<'m>(
        &self,
        room: &mut [Pa],
        mut frame_at: impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    ) -> Result<(), WireError> {
        let mut one = [Pa(0)];
        let room = if room.is_empty() { &mut one } else { room };
        let mut skip = 0u64;
        while skip < self.frames {
            let used = frames_after(self.records(&mut frame_at), skip, room)?;
            self.check_sources(room.get_mut(..used).unwrap_or_default(), &mut frame_at)?;
            if used < room.len() {
                break;
            }
            skip = skip.saturating_add(used as u64);
        }
        Ok(())
    }

    /// Checks the records' bytes, and that none of `frames` lies in a source.
    fn check_sources<'m>(
        &self,
        frames: &mut [Pa],
        frame_at: impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    ) -> Result<(), WireError> {
        frames.sort_unstable();
        let mut finder = FrameFinder::new(frames.len());
        let mut bytes = 0u64;
        for record in self.records(frame_at) {
            let record = record?;
            bytes = bytes.saturating_add(record.len());
            let source_range = record.source();
            if let Some(frame) = finder.lowest_in(source_range, |index| frames.get(index).copied()) {
                return Err(WireError::FrameInSource { frame, source_range });
            }
        }
        let expected = self.moved.saturating_add(self.cleared).saturating_add(self.bounced);
        if bytes == expected { Ok(()) } else { Err(WireError::Len { bytes, expected }) }
    }
}

/// Writes the addresses of frames to `room`, without the first `skip` of them, until it is full.
/// Returns how many it wrote.
fn frames_after<'m>(
    mut records: Records<'_, 'm, impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>>,
    skip: u64,
    room: &mut [Pa],
) -> Result<usize, WireError> {
    let (mut seen, mut last) = (0u64, None);
    let mut used = 0;
    while let Some((frame, _)) = records.step()? {
        if last == Some(frame) {
            continue;
        }
        last = Some(frame);
        if seen >= skip {
            let Some(slot) = room.get_mut(used) else { break };
            *slot = frame;
            used += 1;
        }
        seen += 1;
    }
    Ok(used)
}

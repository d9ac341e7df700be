//! A finished move plan: lists in memory.

use arrayvec::ArrayVec;
use linmap_vmsa::Pa;

use super::list::{LIST_FRAME_LEN, LIST_FRAME_WORDS, MoveList, Records};
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

    /// Reads all lists in memory and checks that no list frame lies in the source of a copy.
    /// [`MovePlan`](crate::MovePlan) cannot check that, since it stores neither all sources nor all
    /// frames.
    ///
    /// # Errors
    ///
    /// - [`WireError::FrameInSource`]: a frame of the list has overwritten part of the payload.
    /// - All others: the lists were overwritten.
    pub fn check<'m>(
        &self,
        mut frame_at: impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]>,
    ) -> Result<(), WireError> {
        /// The number of frames that are checked while the lists are read once.
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
                // The first frame that ends above the start of the source.
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

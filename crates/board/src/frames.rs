//! A source of frames that tells the machine what is freed.

use linmap_table::{FrameSource, OutOfFrames};
use linmap_trace::Event;
use linmap_vmsa::Pa;

use crate::board::Board;
use crate::state::Shared;

/// A source of frames that tells the machine what is freed: no walk may reach a freed frame, which
/// holds garbage afterwards.
#[derive(Debug)]
pub struct BoardFrames<F> {
    shared: Shared,
    /// Where the frames come from.
    pub source: F,
}

impl<F> BoardFrames<F> {
    /// The frames of `source`, which must lie in the board's memory.
    pub fn new(board: &Board, source: F) -> Self {
        Self { shared: board.shared.clone(), source }
    }
}

// SAFETY: passes on what `source` does.
unsafe impl<F: FrameSource> FrameSource for BoardFrames<F> {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.source.alloc()
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        self.source.alloc_consecutive(bytes)
    }

    unsafe fn free(&mut self, frame: Pa) {
        let mut state = self.shared.synced();
        let len = state.granule();
        state.event(Event::Free { pa: frame.0, len });
        state.memory.spoil(frame.0);
        drop(state);
        // SAFETY: the caller's.
        unsafe { self.source.free(frame) };
    }
}

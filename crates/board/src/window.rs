//! Table frames as a CPU of the board reaches them.

use std::ptr::NonNull;

use linmap_table::TableWindow;
use linmap_vmsa::{Level, Pa};

use crate::state::{OpenFrame, Shared};

/// Levels −1 to 3.
const LEVELS: usize = 5;

/// Table frames as a CPU of the board reaches them.
#[derive(Debug)]
pub struct BoardWindow {
    shared: Shared,
    cpu: usize,
    offset: Option<u64>,
    open: [Option<OpenFrame>; LEVELS],
}

impl BoardWindow {
    pub(crate) fn new(shared: Shared, cpu: usize, offset: Option<u64>) -> Self {
        Self { shared, cpu, offset, open: [None; LEVELS] }
    }
}

// SAFETY: a frame is always the same allocation of one granule, aligned to it, that lives as long
// as the board.
unsafe impl TableWindow for BoardWindow {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        self.close(level);
        let va = self.offset.map(|offset| table.0.wrapping_add(offset));
        let open = OpenFrame { cpu: self.cpu, frame: table.0, va };
        self.open[level.above_pages() as usize] = Some(open);
        self.shared.state().open(open)
    }

    fn close(&mut self, level: Level) {
        if let Some(open) = self.open[level.above_pages() as usize].take() {
            self.shared.state().close(open);
        }
    }
}

impl Drop for BoardWindow {
    fn drop(&mut self) {
        for open in self.open.iter_mut().filter_map(Option::take) {
            self.shared.state().close(open);
        }
    }
}

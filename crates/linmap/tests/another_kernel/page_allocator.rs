//! The other kernel's allocator: a note for each page.

use linmap_table::{FrameSource, OutOfFrames, PhysicalMemory, Unmappable};
use linmap_vmsa::{Pa, PaRange};

const PAGE: u64 = 0x1000;

/// Whether each page is used.
pub struct PageAllocator {
    memory: PaRange,
    used: Vec<bool>,
}

impl PageAllocator {
    /// All of `memory` is free.
    pub fn new(memory: PaRange) -> Self {
        Self { memory, used: vec![false; (memory.len() / PAGE) as usize] }
    }

    /// Notes that `range`, a part of the memory, is used or no longer.
    pub fn note(&mut self, range: PaRange, is_used: bool) {
        let [start, end] = [range.start, range.end].map(|pa| ((pa.0 - self.memory.start.0) / PAGE) as usize);
        self.used[start..end].fill(is_used);
    }
}

// SAFETY: a free page is handed out once until it is freed; none of them is frame 0.
unsafe impl FrameSource for PageAllocator {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let free = self.used.iter().rposition(|is_used| !is_used);
        let nth = free.ok_or(OutOfFrames { wanted: PAGE, largest_free: 0 })?;
        self.used[nth] = true;
        Ok(Pa(self.memory.start.0 + nth as u64 * PAGE))
    }

    unsafe fn free(&mut self, frame: Pa) {
        self.note(PaRange::new(frame, Pa(frame.0 + PAGE)), false);
    }
}

impl PhysicalMemory for PageAllocator {
    fn first_unmappable(&self, range: PaRange) -> Option<Unmappable> {
        if !self.memory.contains(range.start) {
            return Some(Unmappable::NotMemory(range.start));
        }
        (range.end > self.memory.end).then_some(Unmappable::NotMemory(self.memory.end))
    }
}

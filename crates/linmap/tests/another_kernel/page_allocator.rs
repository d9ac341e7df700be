//! The other kernel's allocator: a note for each page.

use linmap_table::{FrameSource, OutOfFrames, PhysicalMemory, RecordError, Unmappable};
use linmap_vmsa::{Pa, PaRange};

const PAGE: u64 = 0x1000;

#[derive(Clone, Copy, Default)]
struct Page {
    is_memory: bool,
    is_used: bool,
}

/// A note for each page of the addresses where memory may be.
pub struct PageAllocator {
    first: Pa,
    pages: Vec<Page>,
}

impl PageAllocator {
    /// All of `memory` is there and free.
    pub fn new(memory: PaRange) -> Self {
        let free = Page { is_memory: true, is_used: false };
        Self { first: memory.start, pages: vec![free; (memory.len() / PAGE) as usize] }
    }

    /// The first page in `range` for which `is` is true.
    fn find(&self, range: PaRange, is: fn(Page) -> bool) -> Option<PaRange> {
        let page = |pa: u64| self.pages.get((pa.wrapping_sub(self.first.0) / PAGE) as usize);
        let mut pages = (range.start.0..range.end.0).step_by(PAGE as usize);
        let found = pages.find(|pa| is(page(*pa).copied().unwrap_or_default()))?;
        Some(PaRange::new(Pa(found), Pa(found + PAGE)))
    }

    fn note(&mut self, range: PaRange, note: fn(&mut Page)) -> Result<(), RecordError> {
        let [start, end] =
            [range.start, range.end].map(|pa| (pa.0.wrapping_sub(self.first.0) / PAGE) as usize);
        let refused = RecordError::Refused { range, reason: "memory can't be there" };
        self.pages.get_mut(start..end).ok_or(refused)?.iter_mut().for_each(note);
        Ok(())
    }
}

// SAFETY: a free page is handed out once until it is freed; none of them is frame 0.
unsafe impl FrameSource for PageAllocator {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let free = self.pages.iter().rposition(|page| page.is_memory && !page.is_used);
        let nth = free.ok_or(OutOfFrames { wanted: PAGE, largest_free: 0 })?;
        self.pages[nth].is_used = true;
        Ok(Pa(self.first.0 + nth as u64 * PAGE))
    }

    unsafe fn free(&mut self, frame: Pa) {
        self.release(PaRange::new(frame, Pa(frame.0 + PAGE)));
    }
}

impl PhysicalMemory for PageAllocator {
    fn first_unmappable(&self, range: PaRange) -> Option<Unmappable> {
        self.find(range, |page| !page.is_memory).map(|page| Unmappable::NotMemory(page.start))
    }

    fn overlapping_memory(&self, range: PaRange) -> Option<PaRange> {
        self.find(range, |page| page.is_memory)
    }

    fn overlapping_reserved(&self, range: PaRange) -> Option<PaRange> {
        self.find(range, |page| page.is_used)
    }

    fn add(&mut self, range: PaRange) -> Result<(), RecordError> {
        self.note(range, |page| page.is_memory = true)
    }

    fn remove(&mut self, range: PaRange) -> Result<(), RecordError> {
        self.note(range, |page| page.is_memory = false)
    }

    fn reserve(&mut self, range: PaRange) -> Result<(), RecordError> {
        self.note(range, |page| page.is_used = true)
    }

    fn release(&mut self, range: PaRange) {
        self.note(range, |page| page.is_used = false).expect("a range that was reserved");
    }
}

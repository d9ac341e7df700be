//! The kernel's allocator: one bit for each page of RAM.

use linmap_table::{FrameSource, OutOfFrames, PhysicalMemory, Unmappable};
use linmap_vmsa::{Pa, PaRange};

use crate::layout::RAM;

const PAGE: u64 = 0x1000;
const PAGES: usize = (RAM.len() / PAGE) as usize;

/// Which pages of RAM are used.
#[derive(Clone)]
pub struct Pages {
    used: [u64; PAGES / 64],
}

impl Pages {
    /// All pages are free, except those of `used`.
    pub fn all_except(used: impl IntoIterator<Item = PaRange>) -> Self {
        let mut pages = Self { used: [0; PAGES / 64] };
        for range in used {
            (range.start.0..range.end.0).step_by(PAGE as usize).for_each(|pa| pages.set(Pa(pa), true));
        }
        pages
    }

    fn set(&mut self, pa: Pa, is_used: bool) {
        let nth = ((pa.0 - RAM.start.0) / PAGE) as usize;
        let bit = 1 << (nth % 64);
        self.used[nth / 64] = self.used[nth / 64] & !bit | if is_used { bit } else { 0 };
    }
}

// SAFETY: a page whose bit is clear is handed out once until it is freed; RAM is not at 0.
unsafe impl FrameSource for Pages {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let word = self.used.iter().position(|word| *word != u64::MAX);
        let word = word.ok_or(OutOfFrames { wanted: PAGE, largest_free: 0 })?;
        let nth = word as u64 * 64 + u64::from(self.used[word].trailing_ones());
        let frame = Pa(RAM.start.0 + nth * PAGE);
        self.set(frame, true);
        Ok(frame)
    }

    unsafe fn free(&mut self, frame: Pa) {
        self.set(frame, false);
    }
}

impl PhysicalMemory for Pages {
    fn first_unmappable(&self, range: PaRange) -> Option<Unmappable> {
        if !RAM.contains(range.start) {
            return Some(Unmappable::NotMemory(range.start));
        }
        (range.end > RAM.end).then_some(Unmappable::NotMemory(RAM.end))
    }
}

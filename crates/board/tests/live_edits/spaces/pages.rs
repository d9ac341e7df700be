//! The memory of processes: frames for tables, which the model knows, and frames for pages, of
//! which it knows the addresses alone.

use std::cell::RefCell;
use std::rc::Rc;

use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::Pa;

/// How far the frames are from each other: the largest granule.
pub const FRAME: u64 = 0x1_0000;
/// Where the frames for tables begin.
pub const TABLES: u64 = 0x8000_0000;
/// How many there are.
pub const TABLE_COUNT: u64 = 96;
/// Where the frames for pages begin.
const PAGES: u64 = 0x10_0000;

/// Frames for tables; the one that was freed last comes first.
#[derive(Clone, Debug)]
pub struct Tables(Rc<RefCell<List>>);

#[derive(Debug)]
struct List {
    free: Vec<Pa>,
    /// How many more can be allocated, if not all.
    left: Option<u64>,
}

impl Tables {
    pub fn new() -> Self {
        let all = (0..TABLE_COUNT).rev().map(|nth| Pa(TABLES + nth * FRAME));
        Self(Rc::new(RefCell::new(List { free: all.collect(), left: None })))
    }

    pub fn free_count(&self) -> usize {
        self.0.borrow().free.len()
    }

    pub fn limit(&self, left: Option<u64>) {
        self.0.borrow_mut().left = left;
    }
}

// SAFETY: a frame is in the list, or handed out.
unsafe impl FrameSource for Tables {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let List { free, left } = &mut *self.0.borrow_mut();
        let none = OutOfFrames { wanted: FRAME, largest_free: 0 };
        if let Some(left) = left {
            *left = left.checked_sub(1).ok_or(none)?;
        }
        free.pop().ok_or(none)
    }

    unsafe fn free(&mut self, frame: Pa) {
        self.0.borrow_mut().free.push(frame);
    }
}

/// Frames for pages, by how many processes hold each; the lowest that is free comes first.
#[derive(Debug, Default)]
pub struct Pages(Vec<u32>);

impl Pages {
    pub fn take(&mut self) -> Pa {
        let free = self.0.iter().position(|holders| *holders == 0).unwrap_or(self.0.len());
        if free == self.0.len() {
            self.0.push(0);
        }
        self.0[free] = 1;
        Pa(PAGES + free as u64 * FRAME)
    }

    pub fn holders(&mut self, page: Pa) -> &mut u32 {
        &mut self.0[((page.0 - PAGES) / FRAME) as usize]
    }

    pub fn held(&self) -> usize {
        self.0.iter().filter(|holders| **holders > 0).count()
    }
}

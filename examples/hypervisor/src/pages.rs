//! Sets of pages of the guest's RAM.

use core::mem;
use core::ops::Range;

use linmap_vmsa::{Pa, PaRange};

use crate::machine::GUEST_RAM;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Pages of the guest's RAM.
pub const PAGES: usize = ((GUEST_RAM.end.0 - GUEST_RAM.start.0) / PAGE) as usize;

/// The number of the page at `pa` of the guest's RAM.
pub fn number(pa: Pa) -> usize {
    ((pa.0 - GUEST_RAM.start.0) / PAGE) as usize
}

/// The page with this number.
pub fn page(number: usize) -> PaRange {
    let start = GUEST_RAM.start.0 + number as u64 * PAGE;
    PaRange { start: Pa(start), end: Pa(start + PAGE) }
}

/// A set of pages.
pub struct PageSet([u64; PAGES / 64]);

impl PageSet {
    /// No page.
    pub const EMPTY: Self = Self([0; PAGES / 64]);

    /// Adds a page.
    pub fn insert(&mut self, page: usize) {
        self.0[page / 64] |= 1 << (page % 64);
    }

    /// Whether the page is in the set.
    pub fn contains(&self, page: usize) -> bool {
        self.0[page / 64] >> (page % 64) & 1 != 0
    }

    /// Moves the pages of `range`, which is blocks, from `other` to this set.
    pub fn take(&mut self, range: PaRange, other: &mut Self) {
        for word in words(range) {
            self.0[word] |= mem::take(&mut other.0[word]);
        }
    }

    /// How many pages of `range`, which is blocks, are in the set.
    pub fn count(&self, range: PaRange) -> usize {
        self.0[words(range)].iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Adds all pages.
    pub fn fill(&mut self) {
        self.0.fill(u64::MAX);
    }

    /// Removes the pages of `range`, which is blocks.
    pub fn clear(&mut self, range: PaRange) {
        self.0[words(range)].fill(0);
    }
}

fn words(range: PaRange) -> Range<usize> {
    number(range.start) / 64..number(range.end) / 64
}

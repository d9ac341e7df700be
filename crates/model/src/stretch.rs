//! Stretches of a table whose leaves are in step: identical except for their addresses, which
//! follow each other. What holds for the first holds for all, so one comparison serves a table.

use crate::descriptor::{Entry, is_cacheable, read};
use crate::machine::{Machine, Root};
use crate::space::{Shape, Space};

/// Whether `words`, entries at `level`, are leaves in step.
fn are_in_step(shape: Shape, space: Space, level: i8, words: &[u64]) -> bool {
    let (Some(&first), Some(&last)) = (words.first(), words.last()) else { return false };
    // Bits of the address that lie where the address has them.
    let address = if shape.has_ds { 0x0003_ffff_ffff_f000 } else { 0x0000_ffff_ffff_f000_u64 };
    let size = 1u64 << shape.shift(level);
    if !matches!(read(shape, space, level, first), Entry::Leaf(_)) || (first ^ last) & !address != 0 {
        return false;
    }
    let mut differ = 0;
    let mut expected = first;
    for word in words {
        differ |= word ^ expected;
        expected = expected.wrapping_add(size);
    }
    differ == 0
}

impl Machine {
    /// Whether the entries `from..=to` of the table of `root` at `table` are leaves in step that
    /// may be cached, in one page, and whole contiguous runs if they are in any.
    pub(crate) fn is_in_step_between(&self, root: u32, table: u64, level: i8, from: u64, to: u64) -> bool {
        let Root { shape, space, .. } = self.roots[root as usize];
        let run = (shape.run(level) as u64).clamp(1, shape.entries(level) as u64);
        let count = to - from + 1;
        if count < 2 || !from.is_multiple_of(run) || !count.is_multiple_of(run) {
            return false;
        }
        let words = self.memory.words(table + 8 * from, count as usize);
        words.len() as u64 == count
            && is_cacheable(shape, level, words[0])
            && are_in_step(shape, space, level, words)
    }

    /// Whether all words of the page at `page`, entries at `level`, are known to all walkers and
    /// invalid.
    pub(crate) fn is_empty_page(&self, page: u64) -> bool {
        self.memory.is_settled_page(page)
            && self.memory.words(page, 512).iter().fold(0, |any, word| any | word) & 1 == 0
    }

    /// Whether all words of the page at `page`, entries at `level` of a table of `root`, are known
    /// to all walkers and leaves in step.
    pub(crate) fn is_page_in_step(&self, root: u32, level: i8, page: u64) -> bool {
        let Root { shape, space, .. } = self.roots[root as usize];
        self.memory.is_settled_page(page) && are_in_step(shape, space, level, self.memory.words(page, 512))
    }
}

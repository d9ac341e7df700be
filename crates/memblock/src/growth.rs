//! Longer lists: memory from the memory map itself.

use linmap_vmsa::{Pa, PaRange};

/// Storage consists of whole pages of this size, so that whoever maps it maps nothing else.
const PAGE: u64 = 0x1000;
/// The number of lists that share the storage.
pub(crate) const LISTS: usize = 3;
/// The capacity of a list after its first growth is at least this.
const LEAST: usize = 64;

/// How a memory map gets longer lists when one is full: see
/// [`Memblock::allow_growth`](crate::Memblock::allow_growth).
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Where storage may lie. All of its free memory must be memory that `reach` reaches and that
    /// nobody uses although it is not reserved yet.
    pub limit: PaRange,
    /// Returns the free memory at a physical address as storage, of any content. `None` means that
    /// the caller cannot reach it; then the list does not grow.
    ///
    /// The memory is the map's until the map frees it: after it has moved on to longer storage, and
    /// when it is cleared.
    pub reach: fn(PaRange) -> Option<&'static mut [PaRange]>,
}

/// Returns the number of bytes that lists need in order to be twice as long as `capacity`.
pub(crate) fn storage_bytes(capacity: usize) -> u64 {
    let ranges = (capacity * 2).max(LEAST) * LISTS;
    ((ranges * size_of::<PaRange>()) as u64).next_multiple_of(PAGE)
}

/// Returns the highest `bytes` bytes, in whole pages, that lie in one of the `free` ranges and not
/// in `not`. `free` descends. The page at address 0 is left alone, as by every allocation.
pub(crate) fn place(free: impl Iterator<Item = PaRange>, bytes: u64, not: PaRange) -> Option<PaRange> {
    let parts = free.flat_map(|free| {
        let above = PaRange::new(free.start.max(not.end), free.end);
        let below = PaRange::new(free.start, free.end.min(not.start));
        if free.overlaps(not) { [above, below] } else { [free, PaRange::default()] }
    });
    parts.map(|part| PaRange::new(part.start.max(Pa(PAGE)), part.end).align_inward(PAGE)).find_map(|part| {
        let start = part.end.0.checked_sub(bytes).filter(|start| *start >= part.start.0)?;
        Some(PaRange::new(Pa(start), part.end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn storage_is_the_highest_free_place_beside_the_range_that_is_about_to_be_taken() {
        let free = [range(0x9000, 0xc800), range(0, 0x4000)];
        let found = |bytes, not| place(free.into_iter(), bytes, not);
        assert_eq!(found(0x2000, range(0, 0)), Some(range(0xa000, 0xc000)));
        assert_eq!(found(0x2000, range(0xbfff, 0xc000)), Some(range(0x9000, 0xb000)));
        assert_eq!(found(0x2000, range(0xa000, 0xb000)), Some(range(0x2000, 0x4000)));
        assert_eq!(found(0x4000, range(0, 0)), None, "the page at 0 is never taken");
    }
}

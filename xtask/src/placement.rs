//! Where Image, archive and device tree go when we, and not QEMU, put them into the machine's
//! memory.

use std::ops::Range;

/// The rule for where an Image may be: 2 MiB boundaries (booting.rst).
pub const IMAGE_ALIGN: u64 = 2 << 20;
/// A tree of at most 2 MiB that starts on a 2 MiB boundary does not cross one.
pub const TREE_ALIGN: u64 = 2 << 20;
/// Archives and stubs: any frame.
pub const FRAME: u64 = 4096;

/// Free physical memory, in ascending ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeMemory(Vec<Range<u64>>);

/// No free range is large enough.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {what}: {size:#x} bytes at a multiple of {align:#x}")]
pub struct NoRoom {
    /// What was to be placed.
    pub what: &'static str,
    /// Its size, bytes.
    pub size: u64,
    /// The alignment it needs, bytes.
    pub align: u64,
}

impl FreeMemory {
    /// The parts of `ram` that `usable` has as well, without `taken`.
    pub fn new(ram: &[Range<u64>], usable: &[Range<u64>], taken: &[Range<u64>]) -> Self {
        let common = |a: &Range<u64>, b: &Range<u64>| a.start.max(b.start)..a.end.min(b.end);
        let mut ranges: Vec<_> =
            ram.iter().flat_map(|bank| usable.iter().map(move |range| common(bank, range))).collect();
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| range.start);
        let mut free = Self(Vec::new());
        for range in ranges {
            match free.0.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => free.0.push(range),
            }
        }
        taken.iter().for_each(|hole| free.remove(hole));
        free
    }

    fn remove(&mut self, hole: &Range<u64>) {
        let around = |range: &Range<u64>| {
            [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end]
        };
        self.0 = self.0.iter().flat_map(around).filter(|range| !range.is_empty()).collect();
    }

    /// Takes the lowest `size` bytes that start at a multiple of `align` (a power of two).
    pub fn take(&mut self, what: &'static str, size: u64, align: u64) -> Result<Range<u64>, NoRoom> {
        let fitting = |free: &Range<u64>| {
            let start = free.start.checked_next_multiple_of(align)?;
            let end = start.checked_add(size)?;
            (end <= free.end).then_some(start..end)
        };
        let place = self.0.iter().find_map(fitting).ok_or(NoRoom { what, size, align })?;
        self.remove(&place);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_memory_that_both_sides_have_and_nobody_took_is_free() {
        let ram = [0x4000_0000..0x8000_0000];
        let usable = [0..0x4100_0000, 0x5000_0000..0x9000_0000, 0x10..0x20];
        let taken = [0x4000_0000..0x4020_0000, 0x6000_0000..0x6000_1000];
        let free = FreeMemory::new(&ram, &usable, &taken);
        assert_eq!(free.0, [0x4020_0000..0x4100_0000, 0x5000_0000..0x6000_0000, 0x6000_1000..0x8000_0000]);
    }

    #[test]
    fn pieces_are_aligned_and_never_overlap() {
        let ram = [0..64 * MIB];
        let mut free = FreeMemory::new(&ram, &ram, &[0..MIB]);
        assert_eq!(free.take("Image", 3 * MIB, IMAGE_ALIGN), Ok(2 * MIB..5 * MIB));
        assert_eq!(free.take("stub", 64, FRAME), Ok(MIB..MIB + 64));
        assert_eq!(free.take("archive", 100, FRAME), Ok(MIB + FRAME..MIB + FRAME + 100));
        assert_eq!(free.take("tree", 2 * MIB, TREE_ALIGN), Ok(6 * MIB..8 * MIB));
    }

    #[test]
    fn overlapping_memory_nodes_do_not_hand_out_memory_twice() {
        let ram = [0..8 * MIB];
        let mut free = FreeMemory::new(&ram, &[0..4 * MIB, 0..4 * MIB, MIB..4 * MIB], &[]);
        let first = free.take("a", 3 * MIB, FRAME).unwrap();
        let second = free.take("b", MIB, FRAME).unwrap();
        assert!(first.end <= second.start || second.end <= first.start, "{first:?} {second:?}");
        assert!(free.take("c", FRAME, FRAME).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let top = u64::MAX - FRAME + 1;
        let ram = [top..u64::MAX];
        let mut free = FreeMemory::new(&ram, &ram, &[]);
        assert!(free.take("x", FRAME, FRAME).is_err());
        assert_eq!(free.take("x", u64::MAX, FRAME), Err(NoRoom { what: "x", size: u64::MAX, align: FRAME }));
    }
}

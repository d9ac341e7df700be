//! Which physical ranges a change may name: pages that the linear region reaches, all of them memory.

use linmap_live::PlanError;
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange, Va, VaRange};

use super::{ChangeError, LinearMap};
use crate::layout::Layout;

/// The linear region, as every change asks for it: what follows from the layout, worked out once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    /// First physical address with a linear one.
    memstart: u64,
    /// What to add (wrapping) to a physical address for its linear one.
    offset: u64,
    /// log2 of the bytes of the region, half of what the tree translates.
    bits: u32,
    /// The bits of an address within its page.
    within_page: u64,
}

impl Region {
    pub fn new(layout: Layout) -> Self {
        let geometry = layout.geometry();
        Self {
            memstart: layout.memstart().0,
            offset: layout.offset(),
            bits: u32::from(geometry.va_bits()) - 1,
            within_page: geometry.granule().bytes() - 1,
        }
    }
}

impl LinearMap {
    /// The addresses of the linear region, all of which have a linear address.
    pub(super) fn reach(&self) -> PaRange {
        let Region { memstart, bits, .. } = self.region;
        PaRange::new(Pa(memstart), Pa(memstart + (1 << bits)))
    }

    /// Where `range` is in the linear map.
    #[inline]
    pub(super) fn linear(&self, range: PaRange) -> Result<VaRange, ChangeError> {
        let Region { memstart, offset, bits, within_page } = self.region;
        let (first, last) = (range.start.0, range.end.0.wrapping_sub(1));
        let is_pages = first < range.end.0 && (first | range.end.0) & within_page == 0;
        let in_reach = memstart <= first && last.wrapping_sub(memstart).wrapping_shr(bits) == 0;
        if !is_pages || !in_reach {
            return Err(self.not_linear(range, is_pages));
        }
        Ok(VaRange::new(Va(first.wrapping_add(offset)), range.end.0.wrapping_sub(first)))
    }

    #[cold]
    #[inline(never)]
    fn not_linear(&self, range: PaRange, is_pages: bool) -> ChangeError {
        if !is_pages {
            return ChangeError::Unaligned { range, granule: self.layout.geometry().granule().bytes() };
        }
        ChangeError::OutOfReach { range, reach: self.reach() }
    }

    /// Whether `range` is whole pages of memory that are mapped.
    ///
    /// # Errors
    /// [`ChangeError`] that says what is not.
    pub fn is_memory<const N: usize>(
        &self,
        memblock: &Memblock<N>,
        range: PaRange,
    ) -> Result<(), ChangeError> {
        self.linear(range)?;
        self.all_mapped(memblock, range)
    }

    /// Refuses a range, not empty, that is not all memory, or that must not be mapped in parts.
    pub(super) fn all_mapped<const N: usize>(
        &self,
        memblock: &Memblock<N>,
        range: PaRange,
    ) -> Result<(), ChangeError> {
        let bytes = self.region.within_page.wrapping_add(1);
        let mut next = range.start;
        for mapped in memblock.mapped(bytes) {
            if mapped.start > next {
                break;
            }
            next = next.max(mapped.end);
            if next >= range.end {
                return Ok(());
            }
        }
        Err(hole(memblock, range, next, bytes).unwrap_or(ChangeError::NotMemory { range, pa: next }))
    }

    /// Says of a hole in the linear addresses of `range` why it is one.
    #[cold]
    #[inline(never)]
    pub(super) fn explained<const N: usize>(
        &self,
        memblock: &Memblock<N>,
        range: PaRange,
        error: ChangeError,
    ) -> ChangeError {
        let ChangeError::Plan(PlanError::Hole { va }) = error else { return error };
        let pa = Pa(va.0.wrapping_sub(self.layout.offset()));
        let bytes = self.layout.geometry().granule().bytes();
        hole(memblock, range, pa, bytes).unwrap_or(error)
    }
}

/// Why the page of `bytes` bytes at `pa` is not mapped, by memblock; `None` when memblock has all of it.
fn hole<const N: usize>(memblock: &Memblock<N>, range: PaRange, pa: Pa, bytes: u64) -> Option<ChangeError> {
    if memblock.is_no_map(pa) {
        return Some(ChangeError::NoMap { range, pa });
    }
    // Only whole pages are mapped, so that it may be a part of the page that is missing.
    let page = PaRange::new(pa, Pa(pa.0 + bytes));
    let mut next = pa;
    for region in memblock.regions().filter(|region| region.range.overlaps(page)) {
        if region.range.start > next {
            break;
        }
        if region.no_map {
            return Some(ChangeError::NoMap { range, pa: next });
        }
        next = region.range.end;
    }
    (next < page.end).then_some(ChangeError::NotMemory { range, pa: next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ImageParts;
    use linmap_live::{Half, LiveTree};
    use linmap_table::Leaves;
    use linmap_vmsa::Geometry;
    use linmap_vmsa::id::BbmLevel;

    #[test]
    fn only_whole_pages_within_reach_have_linear_addresses() {
        let geometry = Geometry::K4_48;
        let range = |start, end| PaRange { start: Pa(start), end: Pa(end) };
        for memstart in [0, 0x4000_0000] {
            let layout = Layout::new(geometry, range(memstart, 0x8000_0000)).unwrap();
            let end = memstart + (1 << 47);
            // SAFETY: nothing walks or changes the tree.
            let tree = unsafe { LiveTree::new(geometry, Pa(0x1000), Half::High, BbmLevel::L3) };
            let (read_only, data) =
                (range(memstart, memstart + 0x1000), range(memstart + 0x1000, memstart + 0x2000));
            let image = ImageParts { read_only, data, va: Va(0xffff_8000_8000_0000) };
            let map = LinearMap::new(tree, layout, image, Leaves::ContiguousBlocks);
            let whole = map.linear(range(memstart, end)).unwrap();
            assert_eq!(whole, VaRange::new(Va(0xffff_0000_0000_0000), 1 << 47));
            let last = map.linear(range(end - 0x1000, end)).unwrap();
            assert_eq!(last, VaRange::new(Va(0xffff_7fff_ffff_f000), 0x1000));
            for bad in
                [(0, 0), (memstart, memstart), (0x5000_0000, 0x4000_0000), (memstart, memstart + 0x800)]
            {
                let found = map.linear(range(bad.0, bad.1));
                assert!(matches!(found, Err(ChangeError::Unaligned { .. })), "{bad:x?}: {found:?}");
            }
            let beyond = [
                (end, end + 0x1000),
                (memstart, end + 0x1000),
                (1 << 63, (1 << 63) + 0x1000),
                (0, 0u64.wrapping_sub(0x1000)),
            ];
            for bad in beyond {
                let found = map.linear(range(bad.0, bad.1));
                assert!(matches!(found, Err(ChangeError::OutOfReach { .. })), "{bad:x?}: {found:?}");
            }
            let below = map.linear(range(memstart.wrapping_sub(0x1000), memstart));
            assert!(below.is_err(), "{below:?}");
        }
    }
}

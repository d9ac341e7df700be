//! The linear region: which physical ranges a change may name.

use linmap_vmsa::{Pa, PaRange, Va, VaRange};

use super::change_error::ChangeError;
use crate::layout::Layout;

/// What every change needs of the linear region, computed once from the layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    /// The first physical address with a linear one.
    memstart: u64,
    /// What to add (wrapping) to a physical address for its linear one.
    offset: u64,
    /// The bytes from there on that have linear addresses.
    len: u64,
    /// The bits of an address within its page.
    within_page: u64,
}

impl Region {
    pub fn new(layout: Layout) -> Self {
        let geometry = layout.geometry();
        Self {
            memstart: layout.memstart().0,
            offset: layout.offset(),
            len: layout.reachable().len(),
            within_page: geometry.page_bytes() - 1,
        }
    }

    /// Returns the physical addresses that have a linear address.
    pub fn reach(&self) -> PaRange {
        PaRange::new(Pa(self.memstart), Pa(self.memstart + self.len))
    }

    /// Returns where `range`, which must be whole pages in reach, is in the linear map.
    #[inline]
    pub fn linear(&self, range: PaRange) -> Result<VaRange, ChangeError> {
        let Self { memstart, offset, len, within_page } = *self;
        let (first, last) = (range.start.0, range.end.0.wrapping_sub(1));
        let is_pages = first < range.end.0 && (first | range.end.0) & within_page == 0;
        let in_reach = memstart <= first && last.wrapping_sub(memstart) < len;
        if !is_pages || !in_reach {
            return Err(self.not_linear(range, is_pages));
        }
        Ok(VaRange::new(Va(first.wrapping_add(offset)), range.end.0.wrapping_sub(first)))
    }

    #[cold]
    #[inline(never)]
    fn not_linear(&self, range: PaRange, is_pages: bool) -> ChangeError {
        if !is_pages {
            return ChangeError::Unaligned { range, granule: self.within_page.wrapping_add(1) };
        }
        ChangeError::OutOfReach { range, reach: self.reach() }
    }

    /// Returns the memory that `range`, linear addresses, translates to.
    pub fn physical(&self, range: VaRange) -> PaRange {
        let start = Pa(range.start.0.wrapping_sub(self.offset));
        PaRange::new(start, Pa(start.0 + range.len))
    }

    /// Returns the page that has the linear address `va`.
    pub fn page_at(&self, va: Va) -> PaRange {
        let start = va.0.wrapping_sub(self.offset) & !self.within_page;
        PaRange::new(Pa(start), Pa(start.saturating_add(self.within_page + 1)))
    }

    /// Cuts `range` in two at its most aligned inner address, or returns `None` for a single page.
    pub fn halves(&self, range: PaRange) -> Option<(PaRange, PaRange)> {
        let (first, last) = (range.start.0, range.end.0 - 1);
        let bit = 63 - (first ^ last).max(1).leading_zeros();
        let middle = last >> bit << bit;
        let can_be_cut = 1u64 << bit > self.within_page && middle > first;
        let middle = Pa(middle);
        can_be_cut.then(|| (PaRange::new(range.start, middle), PaRange::new(middle, range.end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Geometry;

    #[test]
    fn only_whole_pages_within_reach_have_linear_addresses() {
        let geometry = Geometry::K4_48;
        let range = |start, end| PaRange { start: Pa(start), end: Pa(end) };
        for memstart in [0, 0x4000_0000] {
            let layout = Layout::new(geometry, range(memstart, 0x8000_0000)).unwrap();
            let end = memstart + (1 << 47);
            let region = Region::new(layout);
            let whole = region.linear(range(memstart, end)).unwrap();
            assert_eq!(whole, VaRange::new(Va(0xffff_0000_0000_0000), 1 << 47));
            let last = region.linear(range(end - 0x1000, end)).unwrap();
            assert_eq!(last, VaRange::new(Va(0xffff_7fff_ffff_f000), 0x1000));
            for bad in
                [(0, 0), (memstart, memstart), (0x5000_0000, 0x4000_0000), (memstart, memstart + 0x800)]
            {
                let found = region.linear(range(bad.0, bad.1));
                assert!(matches!(found, Err(ChangeError::Unaligned { .. })), "{bad:x?}: {found:?}");
            }
            let beyond = [
                (end, end + 0x1000),
                (memstart, end + 0x1000),
                (1 << 63, (1 << 63) + 0x1000),
                (0, 0u64.wrapping_sub(0x1000)),
            ];
            for bad in beyond {
                let found = region.linear(range(bad.0, bad.1));
                assert!(matches!(found, Err(ChangeError::OutOfReach { .. })), "{bad:x?}: {found:?}");
            }
            let below = region.linear(range(memstart.wrapping_sub(0x1000), memstart));
            assert!(below.is_err(), "{below:?}");
        }
    }
}

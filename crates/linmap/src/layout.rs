//! The linear region: the virtual address of every physical address in reach.
//!
//! The linear map comes first in the kernel's half of the address space. Everything else that the
//! kernel maps lies behind it: its image, stacks and devices. Up to 48 bits each has half of it.
//! With more bits all that is gained belongs to the linear map, as far as it shares no table below
//! the root with what lies behind it:
//!
//! ```text
//!                 4K        16K       64K
//! −2^52           the linear map, memstart first; with a seed further on
//! its end         −2^48     −2^47     −2^47
//! its size        3.75 PiB  3.88 PiB  3.88 PiB
//! ```

use linmap_vmsa::{Geometry, Granule, Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::kaslr::{Choice, KaslrSeed};

/// Where the linear map lies.
///
/// ```
/// use linmap::{KaslrSeed, Layout};
/// use linmap_vmsa::{Geometry, Pa, PaRange, Va};
///
/// let ram = PaRange::new(Pa(0x4000_0000), Pa(0x8000_0000));
/// let layout = Layout::new(Geometry::K4_48, ram)?;
/// assert_eq!(layout.linear(Pa(0x4020_0000)), Va(0xffff_0000_0020_0000));
///
/// // At a place that a random number chooses. 0 is none.
/// let seed = KaslrSeed::new(0x5eed).expect("a seed");
/// let random = Layout::randomized(Geometry::K4_48, ram, seed)?;
/// assert!(random.reachable().covers(ram));
/// # Ok::<(), linmap::LayoutError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    geometry: Geometry,
    memstart: Pa,
    /// The linear address of memstart.
    start: Va,
}

/// Why memory has no linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The memory spans more than the linear region holds.
    #[error(
        "memory {memory} does not fit the linear region, {region:#x} bytes from {memstart}: \
         {beyond:#x} bytes are beyond its end"
    )]
    TooWide {
        /// From the first byte of memory to the last.
        memory: PaRange,
        /// The physical address at the start of the linear region.
        memstart: Pa,
        /// Size of the linear region in bytes.
        region: u64,
        /// How many bytes lie beyond its end.
        beyond: u64,
    },
    /// The layout is one for other memory, or for another geometry.
    #[error("memory {memory} is not all in {reach}, which has linear addresses, or in another geometry")]
    Outside {
        /// From the first byte of memory to the last.
        memory: PaRange,
        /// The physical addresses that have linear ones.
        reach: PaRange,
    },
}

impl Layout {
    /// Returns the layout for memory that lies within `memory`.
    ///
    /// The region starts at the first byte of memory, rounded down so that leaves line up in VA and
    /// PA: to the largest block or contiguous run that lies in `memory`, if memory then still fits,
    /// and to no less than 1 GiB with 4K and 16K (there a run of 32 MiB blocks), 512 MiB with 64K.
    ///
    /// # Errors
    /// [`LayoutError::TooWide`].
    pub fn new(geometry: Geometry, memory: PaRange) -> Result<Self, LayoutError> {
        let memstart = Pa(memory.start.0 & !(alignment(geometry, memory) - 1));
        let region = Self::region_len(geometry);
        let span = memory.end.0.saturating_sub(memstart.0);
        if span > region {
            return Err(LayoutError::TooWide { memory, memstart, region, beyond: span - region });
        }
        Ok(Self { geometry, memstart, start: Self::base(geometry) })
    }

    /// Returns the layout for memory that lies within `memory`, at a place that `seed` chooses: one
    /// with the same leaves, and with no more tables to hold them, as at the start of the region.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn randomized(geometry: Geometry, memory: PaRange, seed: KaslrSeed) -> Result<Self, LayoutError> {
        let layout = Self::new(geometry, memory)?;
        let span = memory.end.0.saturating_sub(layout.memstart.0).max(1);
        // One table translates all of the memory, and more than one of its entries. Within this
        // table all that is below an entry stays as it is, and above it there is one table a level.
        let (page, index) = (geometry.page_shift(), geometry.granule().index_bits());
        let above_pages = span.ilog2().saturating_sub(page) / index;
        let entry = page + above_pages * index;
        let run = match Level::new(3 - above_pages as i8) {
            Some(level) if geometry.has_leaf(level) => {
                geometry.contiguous_entries(level).unwrap_or(1).trailing_zeros()
            }
            _ => 0,
        };
        let unit = if span >> (entry + run) > 0 { entry + run } else { entry };
        let step = unit.max(alignment(geometry, memory).trailing_zeros());
        let region = Self::region_len(geometry);
        let table = (1 << (entry + index).max(step)).min(region);
        let steps = ((table - span) >> step) + 1;
        let nth = seed.choose(Choice::LinearMap, steps * (region / table));
        Ok(Self { start: Va(layout.start.0 + nth / steps * table + ((nth % steps) << step)), ..layout })
    }

    /// Returns the part of `memory` that a linear region holds together with `kept`: the first part
    /// that does. It is all of `memory` unless that spans more than the region.
    ///
    /// `kept` is what must be mapped, the kernel image for example, and lies in `memory`. If it
    /// spans more than the region, its end is left out.
    pub fn reach(geometry: Geometry, memory: PaRange, kept: PaRange) -> PaRange {
        let (align, region) = (least_alignment(geometry), Self::region_len(geometry));
        let down = |pa: u64| pa & !(align - 1);
        let first = down(memory.start.0);
        let start = match kept.end.0.saturating_sub(first) <= region {
            true => first,
            // The last place that begins no later than what is kept.
            false => {
                let last = memory.end.0.saturating_sub(region).checked_next_multiple_of(align);
                last.map_or(down(kept.start.0), |last| last.min(down(kept.start.0)))
            }
        };
        PaRange::new(Pa(start), Pa(start.saturating_add(region))).intersection(memory)
    }

    /// Returns the geometry of the kernel's half of the address space.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns the physical address at the start of the linear region.
    pub fn memstart(&self) -> Pa {
        self.memstart
    }

    /// Returns the first address of the kernel's half, where the linear region begins.
    pub const fn base(geometry: Geometry) -> Va {
        Va(u64::MAX << geometry.va_bits())
    }

    /// Returns the size of the linear region in bytes: the kernel's half without what lies behind
    /// it, which has half of it up to 48 bits, and at least an entry of the root.
    pub const fn region_len(geometry: Geometry) -> u64 {
        let va_bits = geometry.va_bits();
        let behind = 1 << (if va_bits < 48 { va_bits } else { 48 } - 1);
        let root_entry = geometry.entry_bytes(geometry.start_level());
        (1 << va_bits) - if behind < root_entry { root_entry } else { behind }
    }

    /// Returns the physical address that the first address of the region would have. It wraps below
    /// 0 where a seed moved the map further than memory begins.
    pub fn region_memstart(&self) -> Pa {
        Pa(Self::base(self.geometry).0.wrapping_sub(self.offset()))
    }

    /// Returns the linear address of memstart.
    pub fn start(&self) -> Va {
        self.start
    }

    /// Returns the physical addresses that have a linear address.
    pub fn reachable(&self) -> PaRange {
        let skipped = self.start.0 - Self::base(self.geometry).0;
        PaRange::new(self.memstart, Pa(self.memstart.0 + Self::region_len(self.geometry) - skipped))
    }

    /// Whether this is a layout for `memory` in `geometry`.
    pub(crate) fn has(&self, geometry: Geometry, memory: PaRange) -> bool {
        self.geometry == geometry && self.reachable().covers(memory)
    }

    /// Returns VA − PA of the linear map, wrapping.
    pub fn offset(&self) -> u64 {
        self.start.0.wrapping_sub(self.memstart.0)
    }

    /// Returns the linear address of `pa`, which must not lie below [`memstart`](Self::memstart).
    pub fn linear(&self, pa: Pa) -> Va {
        Va(pa.0.wrapping_add(self.offset()))
    }
}

/// What the start of the linear region is a multiple of at least.
const fn least_alignment(geometry: Geometry) -> u64 {
    match geometry.granule() {
        Granule::K4 | Granule::K16 => 1 << 30,
        Granule::K64 => geometry.entry_bytes(Level::L2),
    }
}

/// What the start of the linear region is a multiple of, so that leaves in `memory` line up in VA
/// and PA.
fn alignment(geometry: Geometry, memory: PaRange) -> u64 {
    let least = least_alignment(geometry);
    let leaves = [Level::L0, Level::L1, Level::L2].into_iter().filter(|level| geometry.has_leaf(*level));
    // The largest first.
    let sizes = leaves.flat_map(|level| {
        let block = geometry.entry_bytes(level);
        [block * geometry.new_run_entries(level).unwrap_or(1) as u64, block]
    });
    let is_gain = |size: &u64| {
        let first = memory.start.0.checked_next_multiple_of(*size);
        let ends_in_memory =
            first.and_then(|first| first.checked_add(*size)).is_some_and(|end| end <= memory.end.0);
        ends_in_memory && memory.end.0 - (memory.start.0 & !(size - 1)) <= Layout::region_len(geometry)
    };
    sizes.take_while(|size| *size > least).find(is_gain).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Geometry = Geometry::K4_48;

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn linear_addresses_stay_congruent_to_physical_ones_at_the_largest_block() {
        let layout = Layout::new(G, range(0x4800_0000, 0x8_0000_0000)).unwrap();
        assert_eq!(layout.memstart(), Pa(0x4000_0000));
        assert_eq!(layout.linear(Pa(0x4800_0000)), Va(0xffff_0000_0800_0000));
    }

    #[test]
    fn memory_that_holds_a_larger_leaf_lines_up_for_it_where_it_still_fits() {
        const GIB: u64 = 1 << 30;
        for (granule, va_bits, start, end, memstart) in [
            // Blocks of 512 GiB, 64 GiB and 4 TiB.
            (Granule::K4, 52, 513 * GIB, 1536 * GIB, 512),
            (Granule::K4, 52, 513 * GIB, 1535 * GIB, 513),
            (Granule::K16, 52, 65 * GIB, 192 * GIB, 64),
            (Granule::K64, 52, 4097 * GIB, 12288 * GIB, 4096),
            // Runs of 16 GiB.
            (Granule::K64, 52, 17 * GIB, 48 * GIB, 16),
            (Granule::K64, 42, 17 * GIB, 48 * GIB, 16),
            (Granule::K64, 42, 17 * GIB, 47 * GIB, 17),
            // The linear region has 2 TiB.
            (Granule::K64, 42, 17 * GIB, 2064 * GIB, 16),
            (Granule::K64, 42, 17 * GIB, 2065 * GIB, 17),
            // 1 GiB is the largest.
            (Granule::K4, 48, 513 * GIB, 1536 * GIB, 513),
            (Granule::K16, 47, 65 * GIB, 192 * GIB, 65),
        ] {
            let pa_bits = if va_bits == 52 { 52 } else { 48 };
            let geometry = Geometry::new(granule, va_bits, pa_bits).unwrap();
            let layout = Layout::new(geometry, range(start, end)).unwrap();
            assert_eq!(layout.memstart().0 / GIB, memstart, "{granule:?} {va_bits} {start:#x} {end:#x}");
        }
    }

    #[test]
    fn memory_from_pa_0_has_the_first_linear_address() {
        let layout = Layout::new(G, range(0, 1 << 31)).unwrap();
        assert_eq!(layout.linear(Pa(0)), Va(0xffff_0000_0000_0000));
    }

    #[test]
    fn memory_that_spans_more_than_the_region_is_refused() {
        let error = Layout::new(G, range(0, (1 << 47) + 0x1000)).unwrap_err();
        assert!(matches!(error, LayoutError::TooWide { beyond: 0x1000, .. }));
        assert!(Layout::new(G, range(0, 1 << 47)).is_ok());
    }

    #[test]
    fn a_seed_moves_the_map_and_leaves_stay_congruent() {
        let sizes = [(Granule::K4, 39), (Granule::K4, 48), (Granule::K16, 47), (Granule::K64, 42)];
        for (granule, va_bits) in sizes {
            let geometry = Geometry::new(granule, va_bits, 48).unwrap();
            let memory = range(0x4800_0000, 0x1_2345_0000);
            let fixed = Layout::new(geometry, memory).unwrap();
            let mut starts = std::collections::BTreeSet::new();
            for seed in (1..=64).filter_map(KaslrSeed::new) {
                let layout = Layout::randomized(geometry, memory, seed).unwrap();
                assert_eq!(layout, Layout::randomized(geometry, memory, seed).unwrap());
                assert_eq!(layout.memstart(), fixed.memstart());
                assert!(layout.start().0.is_multiple_of(alignment(geometry, memory)));
                assert!(layout.reachable().covers(memory), "{granule:?} {va_bits}");
                let end = layout.linear(Pa(memory.end.0 - 1)).0;
                assert!(fixed.start() <= layout.start() && end < u64::MAX << (va_bits - 1));
                starts.insert(layout.start());
            }
            assert!(starts.len() > 40, "{granule:?} {va_bits}: {}", starts.len());
        }
    }

    #[test]
    fn memory_that_fills_the_region_has_one_place() {
        let memory = range(0, 1 << 47);
        let seed = KaslrSeed::new(77).unwrap();
        assert_eq!(Layout::randomized(G, memory, seed), Layout::new(G, memory));
    }

    #[test]
    fn memory_beyond_the_region_is_out_of_reach_but_what_is_kept_is_not() {
        const GIB: u64 = 1 << 30;
        let narrow = Geometry::new(Granule::K4, 39, 48).unwrap();
        let reach = |memory: (u64, u64), kept: (u64, u64)| {
            let gib = |(start, end): (u64, u64)| range(start * GIB, end * GIB);
            let PaRange { start, end } = Layout::reach(narrow, gib(memory), gib(kept));
            assert!(Layout::new(narrow, PaRange { start, end }).is_ok());
            (start.0 / GIB, end.0 / GIB)
        };
        // The region of 39 bits has 256 GiB.
        assert_eq!(reach((1, 257), (1, 2)), (1, 257));
        assert_eq!(reach((1, 1025), (1, 2)), (1, 257));
        assert_eq!(reach((1, 1025), (256, 257)), (1, 257));
        assert_eq!(reach((1, 1025), (257, 258)), (257, 513));
        assert_eq!(reach((1, 1025), (1024, 1025)), (769, 1025));
        assert_eq!(reach((1, 1025), (700, 701)), (700, 956));
        // Memory begins within a GiB; the region begins with that GiB.
        let odd = Layout::reach(narrow, range(GIB / 2, 600 * GIB + 0x1000), range(599 * GIB, 600 * GIB));
        assert_eq!(odd, range(345 * GIB, 600 * GIB + 0x1000));
    }

    #[test]
    fn more_than_48_bits_are_the_linear_regions_up_to_the_last_entry_of_the_root() {
        const TIB: u64 = 1 << 40;
        for (granule, va_bits, len) in [
            (Granule::K4, 36, 1 << 35),
            (Granule::K4, 39, 1 << 38),
            (Granule::K16, 47, 64 * TIB),
            (Granule::K64, 48, 128 * TIB),
            (Granule::K4, 49, 256 * TIB),
            (Granule::K4, 52, 4096 * TIB - 256 * TIB),
            (Granule::K16, 52, 4096 * TIB - 128 * TIB),
            (Granule::K64, 52, 4096 * TIB - 128 * TIB),
        ] {
            let geometry = Geometry::new(granule, va_bits, 52).unwrap();
            assert_eq!(Layout::region_len(geometry), len, "{granule:?} {va_bits}");
        }
    }
}

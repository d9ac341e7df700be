//! The linear region: the virtual address of every physical address in reach.
//!
//! The linear map is the first half of the kernel's half of the address space:
//!
//! ```text
//! −2^va_bits       the linear map, memstart first; with a seed it begins further on
//! −2^(va_bits−1)   everything else that the kernel maps: its image, stacks and devices
//! ```

use linmap_vmsa::{Geometry, Granule, Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::kaslr::{Choice, KaslrSeed};

/// Where the linear map lies.
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
}

impl Layout {
    /// Returns the layout for memory that lies within `memory`.
    ///
    /// The region starts at the first byte of memory, rounded down to the largest leaf, so that
    /// blocks line up in VA and PA: 1 GiB with 4K and 16K (there a contiguous run of 32 MiB
    /// blocks), 512 MiB with 64K.
    ///
    /// # Errors
    /// [`LayoutError::TooWide`].
    pub fn new(geometry: Geometry, memory: PaRange) -> Result<Self, LayoutError> {
        let align = Self::align(geometry);
        let memstart = Pa(memory.start.0 & !(align - 1));
        let region = Self::region(geometry);
        let span = memory.end.0.saturating_sub(memstart.0);
        if span > region {
            return Err(LayoutError::TooWide { memory, memstart, region, beyond: span - region });
        }
        Ok(Self { geometry, memstart, start: Self::base(geometry) })
    }

    /// Returns the layout for memory that lies within `memory`, at a place that `seed` chooses: one
    /// that fits, and with the same leaves: between places is the largest leaf or contiguous run
    /// that the memory may have.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn randomized(geometry: Geometry, memory: PaRange, seed: KaslrSeed) -> Result<Self, LayoutError> {
        let layout = Self::new(geometry, memory)?;
        let span = memory.end.0.saturating_sub(layout.memstart.0);
        let step = Self::largest_unit(geometry, span);
        let spare = Self::region(geometry) - span;
        let nth = seed.choose(Choice::LinearMap, spare / step + 1);
        Ok(Self { start: Va(layout.start.0 + nth * step), ..layout })
    }

    /// The bytes of the largest leaf or contiguous run that is no longer than `span`.
    fn largest_unit(geometry: Geometry, span: u64) -> u64 {
        let mut level = geometry.start_level();
        loop {
            let leaf = geometry.entry_bytes(level);
            if geometry.has_leaf(level) && leaf <= span {
                let run = leaf * geometry.contiguous_entries(level).unwrap_or(1) as u64;
                return if run <= span { run } else { leaf }.max(Self::align(geometry));
            }
            match level.next() {
                Some(next) => level = next,
                None => return Self::align(geometry),
            }
        }
    }

    /// What memstart is a multiple of.
    const fn align(geometry: Geometry) -> u64 {
        match geometry.granule() {
            Granule::K4 | Granule::K16 => 1 << 30,
            Granule::K64 => geometry.entry_bytes(Level::L2),
        }
    }

    /// The bytes of the linear region.
    const fn region(geometry: Geometry) -> u64 {
        1 << (geometry.va_bits() - 1)
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
    pub fn reach(&self) -> PaRange {
        let skipped = self.start.0 - Self::base(self.geometry).0;
        PaRange::new(self.memstart, Pa(self.memstart.0 + Self::region(self.geometry) - skipped))
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
                assert!(layout.start().0.is_multiple_of(Layout::align(geometry)));
                assert!(layout.reach().covers(memory), "{granule:?} {va_bits}");
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
}

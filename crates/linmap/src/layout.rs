//! The linear region: a virtual address for every physical one in reach.
//!
//! The linear map takes the first half of the kernel's half of the address space:
//!
//! ```text
//! −2^va_bits       the linear map, memstart first
//! −2^(va_bits−1)   what else the kernel maps: its image, its stacks, its devices
//! ```

use linmap_vmsa::{Geometry, Granule, Level, Pa, PaRange, Va};
use thiserror::Error;

/// The linear map's place: a virtual address for every physical one in reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    geometry: Geometry,
    memstart: Pa,
}

/// Why memory can't be given a linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// The memory spans more than the linear region holds.
    #[error(
        "memory {memory} does not fit the linear region of {region:#x} bytes from {memstart}: {beyond:#x} bytes too many"
    )]
    TooWide {
        /// From the first to the last byte of memory.
        memory: PaRange,
        /// What the linear region begins with.
        memstart: Pa,
        /// Size of the linear region in bytes.
        region: u64,
        /// How many bytes lie beyond it.
        beyond: u64,
    },
}

impl Layout {
    /// The layout for memory that lies within `memory`.
    ///
    /// memstart is rounded down to the largest block, so that VA and PA stay congruent and blocks line up: 1 GiB with 4K
    /// and 16K (there a contiguous run of 32 MiB blocks), 512 MiB with 64K.
    ///
    /// # Errors
    /// [`LayoutError::TooWide`].
    pub fn new(geometry: Geometry, memory: PaRange) -> Result<Self, LayoutError> {
        let align: u64 = match geometry.granule() {
            Granule::K4 | Granule::K16 => 1 << 30,
            Granule::K64 => geometry.entry_bytes(Level::L2),
        };
        let memstart = Pa(memory.start.0 & !(align - 1));
        let region = 1 << (geometry.va_bits() - 1);
        let span = memory.end.0.saturating_sub(memstart.0);
        if span > region {
            return Err(LayoutError::TooWide { memory, memstart, region, beyond: span - region });
        }
        Ok(Self { geometry, memstart })
    }

    /// The shape of the kernel's half of the address space.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The physical address at the start of the linear region.
    pub fn memstart(&self) -> Pa {
        self.memstart
    }

    /// The first address of the kernel's half, where the linear region begins.
    pub const fn base(geometry: Geometry) -> Va {
        Va(u64::MAX << geometry.va_bits())
    }

    /// VA − PA of the linear map, wrapping.
    pub fn offset(&self) -> u64 {
        Self::base(self.geometry).0.wrapping_sub(self.memstart.0)
    }

    /// Where the linear map has `pa`, which must not lie below memstart.
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
}

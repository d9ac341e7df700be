//! Where everything lies in the kernel's half of the address space.
//!
//! ```text
//! −2^va_bits       the linear map: half of the space, memstart first
//! −2^(va_bits−1)   nothing for 2 GiB
//!   + 2 GiB        the kernel image, 2 MiB
//!   + 2.5 GiB      the stacks of CPUs, 32 KiB each, 8 MiB
//!   + 3 GiB − 8 MiB  the DTB's window, 4 MiB of blocks
//!   + 3 GiB − 2 MiB  the fixmap, one table of pages
//! ```
//! (with the 4K granule and 48 bits, the shape that boots). Image, stacks, DTB window and
//! fixmap share one table at level 2.

use linmap_vmsa::{Geometry, Granule, Level, Pa, PaRange, Va};
use thiserror::Error;

/// The shape of the kernel's own half, TTBR1.
pub const GEOMETRY: Geometry = Geometry::K4_48;
/// Where the kernel image is linked and mapped, away from the linear map.
pub const IMAGE: Va = Va(0xffff_8000_8000_0000);
/// The most that the image may span: one table of pages.
pub const IMAGE_MAX_LEN: u64 = 2 << 20;
/// Where the CPUs' stacks are: one [`stack::SLOT`] for each of [`MAX_CPUS`]. The first is empty, since the boot CPU's
/// stacks are in the image.
pub const STACKS: Va = Va(0xffff_8000_a000_0000);
/// The most CPUs that the kernel runs on.
pub const MAX_CPUS: usize = 256;
/// Where the DTB is mapped by 2 MiB blocks before memory is known: up to two, since a DTB of at most 2 MiB may begin
/// anywhere in a block.
pub const DTB_WINDOW: Va = Va(0xffff_8000_bf80_0000);
/// The first fixmap slot.
pub const FIXMAP: Va = Va(0xffff_8000_bfe0_0000);

/// One CPU's slot of [`STACKS`], in bytes from its start: a page that is mapped nowhere, the stack that grows down to it, and
/// the same again for exceptions.
pub mod stack {
    /// Bytes from one CPU's slot to the next.
    pub const SLOT: u64 = 32 << 10;
    /// Where the guard below the stack is: a page.
    pub const GUARD: u64 = 0;
    /// Where the stack begins.
    pub const MAIN: u64 = 4 << 10;
    /// Length of the stack.
    pub const MAIN_LEN: u64 = 16 << 10;
    /// Where the guard below the exceptions' stack is: a page.
    pub const EXCEPTION_GUARD: u64 = MAIN + MAIN_LEN;
    /// Where the exceptions' stack begins.
    pub const EXCEPTION: u64 = EXCEPTION_GUARD + (4 << 10);
    /// Length of the exceptions' stack.
    pub const EXCEPTION_LEN: u64 = 8 << 10;

    const _: () = assert!(EXCEPTION + EXCEPTION_LEN == SLOT);
}

/// Fixmap slots by use.
pub mod slot {
    /// The console's registers.
    pub const CONSOLE: usize = 0;
    /// Five slots for tables being written, one a level: that of level 3 first, level −1 last.
    pub const TABLES: usize = 1;
    /// Sixteen slots for leaf tables that are cleared in a batch.
    pub const LAZY_LEAF_TABLES: core::ops::Range<usize> = 8..24;
    /// The interrupt controller's distributor.
    pub const DISTRIBUTOR: usize = 24;
    /// A GICv2's CPU interface.
    pub const CPU_INTERFACE: usize = 25;
    /// A GICv3 redistributor's control frame, while one is read or set up.
    pub const REDISTRIBUTOR: usize = 26;
    /// The same redistributor's SGI frame.
    pub const REDISTRIBUTOR_SGI: usize = 27;
    /// A frame with something to be written once: a spin-table CPU's mailbox.
    pub const MOMENT: usize = 28;
}

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

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    #[test]
    fn linear_addresses_stay_congruent_to_physical_ones_at_the_largest_block() {
        let layout = Layout::new(GEOMETRY, range(0x4800_0000, 0x8_0000_0000)).unwrap();
        assert_eq!(layout.memstart(), Pa(0x4000_0000));
        assert_eq!(layout.linear(Pa(0x4800_0000)), Va(0xffff_0000_0800_0000));
    }

    #[test]
    fn memory_from_pa_0_has_the_first_linear_address() {
        let layout = Layout::new(GEOMETRY, range(0, 1 << 31)).unwrap();
        assert_eq!(layout.linear(Pa(0)), Va(0xffff_0000_0000_0000));
    }

    #[test]
    fn memory_that_spans_more_than_the_region_is_refused() {
        let error = Layout::new(GEOMETRY, range(0, (1 << 47) + 0x1000)).unwrap_err();
        assert!(matches!(error, LayoutError::TooWide { beyond: 0x1000, .. }));
        assert!(Layout::new(GEOMETRY, range(0, 1 << 47)).is_ok());
    }

    #[test]
    fn image_stacks_dtb_window_and_fixmap_share_a_table_at_level_2_and_do_not_overlap() {
        let gib = |va: Va| va.0 >> 30;
        assert_eq!(gib(IMAGE), gib(FIXMAP));
        assert_eq!(gib(IMAGE), gib(STACKS));
        assert_eq!(gib(IMAGE), gib(DTB_WINDOW));
        const { assert!(IMAGE.0 + IMAGE_MAX_LEN <= STACKS.0) };
        const { assert!(STACKS.0 + MAX_CPUS as u64 * stack::SLOT <= DTB_WINDOW.0) };
        assert_eq!(STACKS.0 % GEOMETRY.entry_bytes(Level::L2), 0, "whole tables of pages");
        const { assert!(DTB_WINDOW.0 + (4 << 20) <= FIXMAP.0) };
        assert!(IMAGE.0 >= Layout::base(GEOMETRY).0 + (1 << 47), "outside the linear region");
    }
}

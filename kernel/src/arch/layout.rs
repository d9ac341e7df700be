//! Where everything lies in the kernel's half of the address space, and who uses which fixmap slot.
//!
//! ```text
//! −2^va_bits       the linear map: half of the space, memstart first
//! −2^(va_bits−1)   nothing
//! −31 GiB          the kernel image
//! −512 MiB         the stacks of CPUs, a slot each
//! end − 4 tables   the DTB's window
//! end − 1 table    the fixmap, one table of pages
//! ```
//! A table of pages spans 2 MiB with the 4K granule, 32 MiB with 16K, 512 MiB with 64K. The end is
//! one table before the end of the address space, so that no range wraps. With 64K the stacks begin
//! at −4 GiB. Stacks, DTB window and fixmap share the last table at level 2.
//!
//! All of this lies in the last 32 GiB, which belong to the rest beside the linear map at every VA
//! size from 36 bits on: its addresses do not depend on the VA size.

use linmap::{BuilderSlots, Layout};
use linmap_vmsa::{Geometry, Granule, Level, Va};

// GRANULE, VA_BITS and IMAGE, which the linker script needs as well.
include!(concat!(env!("OUT_DIR"), "/granule.rs"));

const fn of(va_bits: u8) -> Geometry {
    match Geometry::new(GRANULE, va_bits, 48) {
        Ok(geometry) => geometry,
        Err(_) => panic!("no such geometry"),
    }
}

/// The geometry of the kernel's half, TTBR1, unless the command line asks for another. What this
/// boot uses is [`geometry`](crate::arch::geometry::geometry).
pub const DEFAULT: Geometry = of(VA_BITS);
/// The geometry with the most levels. What it says of a table that is not the root holds for every
/// VA size: of levels 2 and 3 above all.
pub const WIDEST: Geometry = of(52);
/// The levels of the identity map in the image. It reaches every address to which the boot protocol
/// lets a boot loader load the image (booting.rst: below 2^48), which smaller VA sizes do not.
pub const IDENTITY: Geometry = of(48);
/// How many tables lead to a page of the kernel's half at the largest VA size.
pub const LEVELS: usize = (4 - WIDEST.start_level().number()) as usize;
/// Bytes that a table of pages maps.
pub const TABLE: u64 = WIDEST.entry_bytes(Level::L2);
/// The end of what the kernel maps besides the linear map.
const END: u64 = 0u64.wrapping_sub(TABLE);
/// Where the stacks begin, below [`END`]: 512 MiB, and room for the rest with larger tables.
const STACKS_BELOW: u64 = if 8 * TABLE > 512 << 20 { 8 * TABLE } else { 512 << 20 };
/// The most mappings that the linear map is built from: one for each range of memory, and two for
/// the image.
pub const MAX_MAPPINGS: usize = 512;
/// Where the CPUs' stacks are: one [`stack::SLOT`] for each of [`MAX_CPUS`]. The first is empty,
/// since the boot CPU's stacks are in the image.
pub const STACKS: Va = Va(0u64.wrapping_sub(STACKS_BELOW));
/// The most CPUs that the kernel runs on.
pub const MAX_CPUS: usize = 256;
/// The level of the leaves that map the DTB before memory is known. The boot protocol allows blocks
/// of at most 2 MiB, since what lies around the DTB may have to be mapped otherwise (booting.rst).
pub const DTB_LEVEL: Level = if TABLE <= 2 << 20 { Level::L2 } else { Level::L3 };
/// Where the DTB is mapped: up to its greatest length and one leaf, since it may begin anywhere in
/// a leaf.
pub const DTB_WINDOW: Va = Va(FIXMAP.0 - 3 * TABLE);
/// The first fixmap slot.
pub const FIXMAP: Va = Va(END - TABLE);

/// The early tables of the kernel's half by their order in memory, in frames. First the tables that
/// lead to [`FIXMAP`], a level each. A smaller VA size leaves the first ones empty: the root is
/// further on, all others stay where they are.
pub mod frame {
    use linmap_vmsa::Level;

    use super::{DTB_LEVEL, FIXMAP, IMAGE, LEVELS, WIDEST};

    /// The table at level 1, if there is one at any VA size.
    pub const LEVEL_1: usize = LEVELS.saturating_sub(3);
    /// The table at level 2 for all but the image.
    pub const LEVEL_2: usize = LEVELS - 2;
    /// The fixmap's table of pages.
    pub const FIXMAP_PAGES: usize = LEVELS - 1;
    /// The table of pages of the DTB's window, if it has one.
    pub const DTB_PAGES: usize = LEVELS;
    /// Whether the image has a table at level 2 of its own.
    pub const IMAGE_HAS_LEVEL_2: bool =
        IMAGE.0 >> WIDEST.shift(Level::L1) != FIXMAP.0 >> WIDEST.shift(Level::L1);
    /// The image's table at level 2, if it has its own.
    pub const IMAGE_LEVEL_2: usize = LEVELS + (DTB_LEVEL.number() == Level::L3.number()) as usize;
    /// The first of the image's tables of pages.
    pub const IMAGE_PAGES: usize = IMAGE_LEVEL_2 + IMAGE_HAS_LEVEL_2 as usize;
}

/// One CPU's slot of [`STACKS`], in bytes from its start: a page that is mapped nowhere, the stack
/// that grows down to it, and the same again for exceptions.
pub mod stack {
    use super::GRANULE;

    const PAGE: u64 = GRANULE.bytes();

    /// Bytes from one CPU's slot to the next.
    pub const SLOT: u64 = (EXCEPTION + EXCEPTION_LEN).next_power_of_two();
    /// Where the guard below the stack is: a page.
    pub const GUARD: u64 = 0;
    /// Where the stack begins.
    pub const MAIN: u64 = PAGE;
    /// Length of the stack.
    pub const MAIN_LEN: u64 = (16u64 << 10).next_multiple_of(PAGE);
    /// Where the guard below the exceptions' stack is: a page.
    pub const EXCEPTION_GUARD: u64 = MAIN + MAIN_LEN;
    /// Where the exceptions' stack begins.
    pub const EXCEPTION: u64 = EXCEPTION_GUARD + PAGE;
    /// Length of the exceptions' stack.
    pub const EXCEPTION_LEN: u64 = (8u64 << 10).next_multiple_of(PAGE);
}

/// Fixmap slots by use.
pub mod slot {
    /// The console's registers.
    pub const CONSOLE: usize = 0;
    /// Five slots for tables being written, one a level: that of level 3 first, level −1 last.
    pub const TABLES: usize = 1;
    /// How many these are.
    pub const TABLE_LEVELS: usize = 5;
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
    /// The first of the slots for long lists of memory. All slots from here on are for them.
    pub const LISTS: usize = 32;
}

/// The slots that the linear map's builders use.
pub const BUILDER_SLOTS: BuilderSlots = BuilderSlots {
    tables: [slot::TABLES, slot::TABLES + 1, slot::TABLES + 2, slot::TABLES + 3, slot::TABLES + 4],
    leaf_tables: slot::LAZY_LEAF_TABLES,
};

const _: () = {
    const fn in_last_table(va: Va) -> bool {
        va.0 >> WIDEST.shift(Level::L1) == u64::MAX >> WIDEST.shift(Level::L1)
    }
    assert!(in_last_table(FIXMAP), "the fixmap is in the last table at level 2");
    assert!(in_last_table(STACKS), "the stacks are in the last table at level 2");
    assert!(in_last_table(DTB_WINDOW), "the DTB window is in the last table at level 2");
    assert!(IMAGE.0.is_multiple_of(2 << 20), "the image lies on a multiple of 2 MiB, as in memory");
    assert!(IMAGE.0 < STACKS.0, "the image lies below the stacks");
    assert!(STACKS.0 + MAX_CPUS as u64 * stack::SLOT <= DTB_WINDOW.0, "the stacks end below the DTB window");
    assert!(STACKS.0.is_multiple_of(TABLE), "stacks have whole tables of pages");
    assert!(DTB_WINDOW.0 + (4 << 20) <= FIXMAP.0, "the DTB window ends below the fixmap");
    let mut sizes = GRANULE.va_sizes();
    while let [va_bits, rest @ ..] = sizes {
        let linear_end = Layout::base(of(*va_bits)).0 + Layout::region_len(of(*va_bits));
        assert!(IMAGE.0 >= linear_end, "the image lies outside the linear region");
        sizes = rest;
    }
    assert!(
        !frame::IMAGE_HAS_LEVEL_2
            || LEVELS > 2 && IMAGE.0 >> WIDEST.shift(Level::L0) == u64::MAX >> WIDEST.shift(Level::L0),
        "the image shares the last table at level 1"
    );
};

//! Where everything lies in the kernel's half of the address space, and who uses which fixmap slot.
//!
//! ```text
//! −2^va_bits       the linear map: half of the space, memstart first
//! −2^(va_bits−1)   nothing for 2 GiB
//!   + 2 GiB        the kernel image, 2 MiB
//!   + 2.5 GiB      the stacks of CPUs, 32 KiB each, 8 MiB
//!   + 3 GiB − 8 MiB  the DTB's window, 4 MiB of blocks
//!   + 3 GiB − 2 MiB  the fixmap, one table of pages
//! ```
//! (with the 4K granule and 48 bits). Image, stacks, DTB window and fixmap share one table at level
//! 2.

use linmap::BuilderSlots;
use linmap_vmsa::{Geometry, Level, Va};

/// The geometry of the kernel's own half, TTBR1.
pub const GEOMETRY: Geometry = Geometry::K4_48;
/// Where the kernel image is linked and mapped, away from the linear map.
pub const IMAGE: Va = Va(0xffff_8000_8000_0000);
/// The most that the image may span: one table of pages.
const IMAGE_MAX_LEN: u64 = 2 << 20;
/// The most mappings that the linear map is built from: one for each range of memory, and two for
/// the image.
pub const MAX_MAPPINGS: usize = 512;
/// Where the CPUs' stacks are: one [`stack::SLOT`] for each of [`MAX_CPUS`]. The first is empty,
/// since the boot CPU's stacks are in the image.
pub const STACKS: Va = Va(0xffff_8000_a000_0000);
/// The most CPUs that the kernel runs on.
pub const MAX_CPUS: usize = 256;
/// Where the DTB is mapped by 2 MiB blocks before memory is known: up to two, since a DTB of at
/// most 2 MiB may begin anywhere in a block.
pub const DTB_WINDOW: Va = Va(0xffff_8000_bf80_0000);
/// The first fixmap slot.
pub const FIXMAP: Va = Va(0xffff_8000_bfe0_0000);

/// One CPU's slot of [`STACKS`], in bytes from its start: a page that is mapped nowhere, the stack
/// that grows down to it, and the same again for exceptions.
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
}

/// The slots that the linear map's builders use.
pub const BUILDER_SLOTS: BuilderSlots = BuilderSlots {
    tables: [slot::TABLES, slot::TABLES + 1, slot::TABLES + 2, slot::TABLES + 3, slot::TABLES + 4],
    leaf_tables: slot::LAZY_LEAF_TABLES,
};

const _: () = {
    const GIB: u32 = 30;
    assert!(IMAGE.0 >> GIB == FIXMAP.0 >> GIB, "image and fixmap share a table at level 2");
    assert!(IMAGE.0 >> GIB == STACKS.0 >> GIB, "image and stacks share a table at level 2");
    assert!(IMAGE.0 >> GIB == DTB_WINDOW.0 >> GIB, "image and DTB window share a table at level 2");
    assert!(IMAGE.0 + IMAGE_MAX_LEN <= STACKS.0, "the image ends below the stacks");
    assert!(STACKS.0 + MAX_CPUS as u64 * stack::SLOT <= DTB_WINDOW.0, "the stacks end below the DTB window");
    assert!(STACKS.0.is_multiple_of(GEOMETRY.entry_bytes(Level::L2)), "stacks have whole tables of pages");
    assert!(DTB_WINDOW.0 + (4 << 20) <= FIXMAP.0, "the DTB window ends below the fixmap");
    assert!(IMAGE.0 >= u64::MAX << (GEOMETRY.va_bits() - 1), "the image lies outside the linear region");
};

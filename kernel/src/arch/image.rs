//! The running image: where its parts and its early tables are in memory.

use core::ptr::{self, NonNull};

use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Level, Pa, PaRange, Va};

use crate::arch::layout::{GEOMETRY, IMAGE};

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __rodata_end: u8;
    static __idmap_tables: u8;
    static __swapper: u8;
    static __reserved_table: u8;
    static __stack_guard: u8;
    static __exception_stack_guard: u8;
}

/// The physical addresses of the image's parts.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    start: Pa,
}

impl Image {
    /// The image that was loaded at `start`.
    pub fn at(start: Pa) -> Self {
        assert_eq!(&raw const __image_start as u64, IMAGE.0, "linker script and layout disagree");
        Self { start }
    }

    /// The physical address of `symbol`, which is in the image.
    pub fn physical(self, symbol: *const u8) -> Pa {
        Pa(symbol as u64 - IMAGE.0 + self.start.0)
    }

    /// VA − PA of the image.
    pub fn offset(self) -> u64 {
        IMAGE.0.wrapping_sub(self.start.0)
    }

    /// All of the image in whole pages, the zeroed part included.
    pub fn range(self) -> PaRange {
        PaRange::new(self.start, self.physical(&raw const __image_end))
    }

    /// The TTBR value for `root`, one of the image's root tables.
    pub fn ttbr(self, root: Pa) -> u64 {
        ttbr(GEOMETRY, root, 0).expect("the image begins at a page, and its tables are pages")
    }

    /// The root table of the kernel's half.
    pub fn swapper(self) -> Pa {
        self.physical(&raw const __swapper)
    }

    /// Text and read-only data, whole pages.
    pub fn read_only(self) -> PaRange {
        PaRange::new(self.start, self.physical(&raw const __rodata_end))
    }

    /// The root table of the early identity map. It maps the code that switches tables, and little
    /// else.
    pub fn identity_map(self) -> Pa {
        self.physical(&raw const __idmap_tables)
    }

    /// An empty table, for a TTBR that has to translate nothing.
    pub fn reserved_table(self) -> Pa {
        self.physical(&raw const __reserved_table)
    }
}

/// The address of a table in the image, `frames` frames after the symbol `first`. The linker script
/// reserves the memory of the tables; Rust knows their symbols but not their sizes, so only the
/// address of the symbol is used.
fn table(first: *const u8, frames: usize) -> NonNull<u64> {
    let address = first.expose_provenance() + frames * GEOMETRY.granule().bytes() as usize;
    // SAFETY: the image is linked into the upper half of the address space, far from address 0.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
}

/// The entry of the live level-2 table that translates `va`, an address in the 1 GiB of the image.
pub fn level_2_entry(va: Va) -> NonNull<u64> {
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __swapper, 2).add(GEOMETRY.index(va, Level::L2)) }
}

/// The entry of the identity map's table of pages for `va`, an address in the 2 MiB of the image.
pub fn identity_page(va: Va) -> NonNull<u64> {
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __idmap_tables, 3).add(GEOMETRY.index(va, Level::L3)) }
}

/// The fixmap's live table of pages.
pub fn fixmap_table() -> NonNull<u64> {
    table(&raw const __swapper, 4)
}

/// The unmapped pages below the boot CPU's two stacks.
pub fn guards() -> [Va; 2] {
    [&raw const __stack_guard, &raw const __exception_stack_guard]
        .map(|guard| Va(guard.expose_provenance() as u64))
}

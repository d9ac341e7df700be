//! The running image: where its parts and its early tables are in memory.

use core::ptr::{self, NonNull};

use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Level, Pa, PaRange, Va};

use crate::arch::layout::{DTB_LEVEL, DTB_WINDOW, FIXMAP, GEOMETRY, IDENTITY, IMAGE, LEVELS};

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __idmap_start: u8;
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

    /// The executable part, whole pages.
    pub fn text(self) -> PaRange {
        PaRange::new(self.start, self.physical(&raw const __text_end))
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

    /// The page of code that the early identity map maps.
    pub fn identity_text(self) -> Pa {
        self.physical(&raw const __idmap_start)
    }

    /// The identity map's table at `level`.
    pub fn identity_table(self, level: Level) -> Pa {
        frame_behind(self.identity_map(), level.number() - IDENTITY.start_level().number())
    }

    /// The live table at `level` that translates from `va` on, if `entry.S` made it: those that
    /// lead to image and fixmap, all in the image. Other tables are allocated later.
    pub fn early_table(self, va: Va, level: Level) -> Option<Pa> {
        let last = va.0 | ((GEOMETRY.entries(level) as u64) << GEOMETRY.shift(level)).wrapping_sub(1);
        let leads_to = |to: Va| va <= to && to.0 <= last;
        let frames = match level {
            Level::L3 if leads_to(FIXMAP) => LEVELS as i8,
            Level::L3 if DTB_LEVEL == Level::L3 && leads_to(DTB_WINDOW) => LEVELS as i8 + 1,
            _ if leads_to(IMAGE) => level.number() - GEOMETRY.start_level().number(),
            _ => return None,
        };
        Some(frame_behind(self.swapper(), frames))
    }

    /// An empty table, for a TTBR that has to translate nothing.
    pub fn reserved_table(self) -> Pa {
        self.physical(&raw const __reserved_table)
    }
}

/// The frame `frames` frames behind `first`.
fn frame_behind(first: Pa, frames: i8) -> Pa {
    Pa(first.0 + u64::from(frames.unsigned_abs()) * GEOMETRY.granule().bytes())
}

/// The address of a table in the image, `frames` frames after the symbol `first`. The linker script
/// reserves the memory of the tables; Rust knows their symbols but not their sizes, so only the
/// address of the symbol is used.
fn table(first: *const u8, frames: usize) -> NonNull<u64> {
    let address = first.expose_provenance() + frames * GEOMETRY.granule().bytes() as usize;
    // SAFETY: the image is linked into the upper half of the address space, far from address 0.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
}

/// The entry of the live level-2 table that translates `va`, an address that this table reaches.
pub fn level_2_entry(va: Va) -> NonNull<u64> {
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __swapper, LEVELS - 2).add(GEOMETRY.index(va, Level::L2)) }
}

/// The entry of the identity map's table of pages for `va`, an address that shares it with the
/// image.
pub fn identity_page(va: Va) -> NonNull<u64> {
    let last = (3 - IDENTITY.start_level().number()) as usize;
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __idmap_tables, last).add(IDENTITY.index(va, Level::L3)) }
}

/// The fixmap's live table of pages.
pub fn fixmap_table() -> NonNull<u64> {
    table(&raw const __swapper, LEVELS)
}

/// The entry of the live leaf that translates `va`, an address of the DTB's window.
pub fn dtb_entry(va: Va) -> NonNull<u64> {
    if DTB_LEVEL == Level::L2 {
        return level_2_entry(va);
    }
    debug_assert_eq!(GEOMETRY.index(va, Level::L2), GEOMETRY.index(DTB_WINDOW, Level::L2));
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __swapper, LEVELS + 1).add(GEOMETRY.index(va, Level::L3)) }
}

/// The unmapped pages below the boot CPU's two stacks.
pub fn guards() -> [Va; 2] {
    [&raw const __stack_guard, &raw const __exception_stack_guard]
        .map(|guard| Va(guard.expose_provenance() as u64))
}

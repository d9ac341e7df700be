//! The running image: where its parts and its early tables are in memory.

use core::ptr::{self, NonNull};

use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Geometry, Level, Pa, PaRange, Va, VaRange};

use crate::arch::geometry::geometry;
use crate::arch::layout::{DTB_LEVEL, DTB_WINDOW, FIXMAP, GRANULE, LEVELS, WIDEST, frame};

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __idmap_start: u8;
    static __idmap_tables: u8;
    static __swapper: u8;
    static __surgery_tables: u8;
    static __surgery_tables_end: u8;
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
        Self { start }
    }

    /// Where the image is mapped.
    pub fn va(self) -> Va {
        Va(&raw const __image_start as u64)
    }

    /// The virtual addresses of the image, as many as it has bytes in memory.
    pub fn va_range(self) -> VaRange {
        VaRange::new(self.va(), self.range().len())
    }

    /// The physical address of `symbol`, which is in the image.
    pub fn physical(self, symbol: *const u8) -> Pa {
        Pa((symbol as u64).wrapping_sub(self.offset()))
    }

    /// The virtual address of `pa`, which is in the image.
    pub fn virtual_address(self, pa: Pa) -> Va {
        Va(pa.0.wrapping_add(self.offset()))
    }

    /// VA − PA of the image.
    pub fn offset(self) -> u64 {
        self.va().0.wrapping_sub(self.start.0)
    }

    /// All of the image in whole pages, the zeroed part included.
    pub fn range(self) -> PaRange {
        PaRange::new(self.start, self.physical(&raw const __image_end))
    }

    /// The TTBR value for `root`, one of the image's root tables.
    pub fn ttbr(self, root: Pa) -> u64 {
        ttbr(geometry(), root, 0).expect("the image begins at a page, and its tables are pages")
    }

    /// The root table of the kernel's half.
    pub fn swapper(self) -> Pa {
        let levels = 4 - geometry().start_level().number();
        self.early_frame(LEVELS - levels.unsigned_abs() as usize)
    }

    /// One of the early tables, by its place in [`frame`].
    fn early_frame(self, frames: usize) -> Pa {
        frame_after(self.physical(&raw const __swapper), frames)
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

    /// The live table at `level` that translates from `va` on, if `entry.S` made it: those that
    /// lead to image and fixmap, all in the image. Other tables are allocated later.
    pub fn early_table(self, va: Va, level: Level) -> Option<Pa> {
        let geometry = geometry();
        let leads_to = |to| leads_to(geometry, va, level, to);
        let image = self.va_range();
        let reached = geometry.entry_bytes(level).wrapping_mul(geometry.entries(level) as u64);
        let has_image = || {
            let last = Va(va.0.wrapping_add(reached.wrapping_sub(1)));
            image.last().is_some_and(|image_last| va <= image_last && image.start <= last)
        };
        let frames = match level {
            Level::L3 if leads_to(FIXMAP) => frame::FIXMAP_PAGES,
            Level::L3 if DTB_LEVEL == Level::L3 && leads_to(DTB_WINDOW) => frame::DTB_PAGES,
            Level::L3 if has_image() => {
                let first = image.start.0 & !(reached - 1);
                frame::IMAGE_PAGES + ((va.0 - first) / reached) as usize
            }
            Level::L2 if frame::IMAGE_HAS_LEVEL_2 && has_image() => frame::IMAGE_LEVEL_2,
            Level::L3 => return None,
            _ if leads_to(FIXMAP) => (level.number() - WIDEST.start_level().number()) as usize,
            _ => return None,
        };
        Some(self.early_frame(frames))
    }

    /// Memory for the tables of the surgery root: for as many as `entry.S` makes.
    pub fn surgery_tables(self) -> PaRange {
        let end = self.physical(&raw const __surgery_tables_end);
        PaRange::new(self.physical(&raw const __surgery_tables), end)
    }

    /// An empty table, for a TTBR that has to translate nothing.
    pub fn reserved_table(self) -> Pa {
        self.physical(&raw const __reserved_table)
    }
}

/// Whether a table at `level` that translates from `va` on is on the way to `to`.
pub fn leads_to(geometry: Geometry, va: Va, level: Level, to: Va) -> bool {
    let last = va.0 | ((geometry.entries(level) as u64) << geometry.shift(level)).wrapping_sub(1);
    va <= to && to.0 <= last
}

/// The frame `frames` frames after `first`.
pub fn frame_after(first: Pa, frames: usize) -> Pa {
    Pa(first.0 + frames as u64 * GRANULE.bytes())
}

/// The address of a table in the image, `frames` frames after the symbol `first`. The linker script
/// reserves the memory of the tables; Rust knows their symbols but not their sizes, so only the
/// address of the symbol is used.
fn table(first: *const u8, frames: usize) -> NonNull<u64> {
    let address = first.expose_provenance() + frames * GRANULE.bytes() as usize;
    // SAFETY: the image is linked into the upper half of the address space, far from address 0.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
}

/// The entry of the live level-2 table that translates `va`, an address in the last table but the
/// image's.
pub fn level_2_entry(va: Va) -> NonNull<u64> {
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __swapper, frame::LEVEL_2).add(WIDEST.index(va, Level::L2)) }
}

/// The fixmap's live table of pages.
pub fn fixmap_table() -> NonNull<u64> {
    table(&raw const __swapper, frame::FIXMAP_PAGES)
}

/// The entry of the live leaf that translates `va`, an address of the DTB's window.
pub fn dtb_entry(va: Va) -> NonNull<u64> {
    if DTB_LEVEL == Level::L2 {
        return level_2_entry(va);
    }
    debug_assert_eq!(WIDEST.index(va, Level::L2), WIDEST.index(DTB_WINDOW, Level::L2));
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __swapper, frame::DTB_PAGES).add(WIDEST.index(va, Level::L3)) }
}

/// The unmapped pages below the boot CPU's two stacks.
pub fn guards() -> [Va; 2] {
    [&raw const __stack_guard, &raw const __exception_stack_guard]
        .map(|guard| Va(guard.expose_provenance() as u64))
}

//! The surgery root: what the boot CPU runs on while nobody may walk the live tables. It has the image, its stacks and a
//! fixmap at the addresses where they always are, in tables of its own, and no linear region.

use core::ptr::{self, NonNull};

use linmap_table::TableWindow;
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, Va};

use crate::arch::cpu::ThisCpu;
use crate::arch::image::{self, Image};
use crate::arch::layout::{self, GEOMETRY, slot};

const WORDS: usize = GEOMETRY.entries(Level::L3);

#[repr(C, align(4096))]
struct Tables {
    levels: [[u64; WORDS]; 3],
    image: [u64; WORDS],
    fixmap: [u64; WORDS],
}

static mut TABLES: Tables = Tables { levels: [[0; WORDS]; 3], image: [0; WORDS], fixmap: [0; WORDS] };

/// The surgery root and its windows.
#[derive(Debug)]
pub struct Surgery {
    /// Its root table.
    pub root: Pa,
    /// Its TTBR1 value.
    pub ttbr1: u64,
    /// How tables are reached from it.
    pub window: SurgeryWindow,
}

impl Surgery {
    /// Makes the root, once the console is where it stays.
    ///
    /// # Safety
    /// To be called once.
    pub unsafe fn new(image: Image) -> Self {
        let tables = &raw mut TABLES;
        let pa = |table: *mut u64| image.physical(table.cast());
        // SAFETY: the caller's: nothing else refers to these tables until the root is in use. The live tables are only read,
        // while nothing changes them.
        unsafe {
            let levels: [*mut u64; 3] = [0, 1, 2].map(|nth| (&raw mut (*tables).levels[nth]).cast());
            let image_pages: *mut u64 = (&raw mut (*tables).image).cast();
            let fixmap_pages: *mut u64 = (&raw mut (*tables).fixmap).cast();
            ptr::copy_nonoverlapping(image::image_table().as_ptr(), image_pages, WORDS);
            // What is printed in a panic goes through the console's slot.
            let live = image::fixmap_table().as_ptr();
            fixmap_pages.add(slot::CONSOLE).write(live.add(slot::CONSOLE).read());
            let link = |table: *mut u64, va: Va, level: Level, below: *mut u64| {
                table.add(GEOMETRY.index(va, level)).write(Descriptor::table(GEOMETRY, pa(below)).0);
            };
            link(levels[0], layout::IMAGE, Level::L0, levels[1]);
            link(levels[1], layout::IMAGE, Level::L1, levels[2]);
            link(levels[2], layout::IMAGE, Level::L2, image_pages);
            link(levels[2], layout::FIXMAP, Level::L2, fixmap_pages);
            // Before the walks that a later write of TTBR1 starts.
            ThisCpu.dsb(Dsb::Ishst);
            let window = SurgeryWindow { ptes: NonNull::new_unchecked(fixmap_pages), open: [None; LEVELS] };
            let root = pa(levels[0]);
            Self { root, ttbr1: ttbr(GEOMETRY, root, 0), window }
        }
    }
}

/// Levels −1 to 3.
const LEVELS: usize = 5;

/// Table frames reached through the surgery root's fixmap: one slot a level, which stays on its frame until another one is
/// opened. Only one CPU ever walks that root, so that nothing has to be broadcast.
#[derive(Debug)]
pub struct SurgeryWindow {
    ptes: NonNull<u64>,
    open: [Option<Pa>; LEVELS],
}

impl SurgeryWindow {
    fn set(&mut self, slot: usize, descriptor: Descriptor) {
        // SAFETY: the fixmap's table has an entry for each slot, which nobody else changes.
        unsafe { ThisCpu.store(self.ptes.add(slot), descriptor) };
    }

    /// Unmaps all frames: once everybody is back they may go to somebody else, or be no memory any more. The caller leaves the
    /// surgery root next and invalidates everything.
    pub fn close_all(&mut self) {
        for above in 0..LEVELS {
            if self.open[above].take().is_some() {
                self.set(slot::TABLES + above, Descriptor::INVALID);
            }
        }
        ThisCpu.dsb(Dsb::Nsh);
    }
}

// SAFETY: a slot maps the frame readable and writable until another one is opened at its level or all are closed. The
// addresses mean this only on the surgery root, and only `crate::memory::live` has the window, which it passes on there alone.
unsafe impl TableWindow for SurgeryWindow {
    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let above = level.above_pages() as usize;
        let slot = slot::TABLES + above;
        let cpu = &mut ThisCpu;
        if self.open[above] != Some(table) {
            // Another output address: break-before-make (Arm ARM D8.16.1, RWHZWS), on this CPU alone.
            if self.open[above].take().is_some() {
                self.set(slot, Descriptor::INVALID);
                cpu.dsb(Dsb::Nsh);
                cpu.tlbi(Tlbi::AllLocal);
                cpu.dsb(Dsb::Nsh);
                cpu.isb();
            }
            self.set(slot, Descriptor::leaf(GEOMETRY, Level::L3, table, Attributes::KERNEL_DATA));
            cpu.dsb(Dsb::Nsh);
            cpu.isb();
            self.open[above] = Some(table);
        }
        cpu.reach(Va(layout::FIXMAP.0 + slot as u64 * GEOMETRY.granule().bytes()))
    }

    fn close(&mut self, _level: Level) {}
}

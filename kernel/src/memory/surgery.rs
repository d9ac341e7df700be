//! The surgery root: the tables on which the boot CPU runs while no CPU may walk the live tables.
//! It maps the image, with the boot CPU's stacks, and the console.

use linmap_park::{SurgeryLayout, SurgeryRoot, SurgeryWindow};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Level, Pa, PaRange, Va, VaRange};

use crate::arch::cpu::ThisCpu;
use crate::arch::image::Image;
use crate::arch::layout::{self, GEOMETRY, LEVELS, slot};

/// The surgery root.
pub type Surgery = SurgeryRoot<ThisCpu>;

/// How tables are reached from it.
pub type Window = SurgeryWindow<ThisCpu>;

/// A table a level, for the image, and the fixmap's table of pages.
const TABLES: usize = LEVELS + 1;

const WORDS: usize = GEOMETRY.entries(Level::L3);

#[repr(C)]
#[cfg_attr(feature = "granule-16k", repr(align(0x4000)))]
#[cfg_attr(feature = "granule-64k", repr(align(0x1_0000)))]
#[cfg_attr(not(any(feature = "granule-16k", feature = "granule-64k")), repr(align(0x1000)))]
struct Tables([[u64; WORDS]; TABLES]);

const _: () = assert!(align_of::<Tables>() as u64 == GEOMETRY.granule().bytes(), "tables are frames");

static mut MEMORY: Tables = Tables([[0; WORDS]; TABLES]);

/// Whether `frame` is one of the root's tables, or may become one.
pub fn has_table(image: Image, frame: Pa) -> bool {
    let first = image.physical((&raw const MEMORY).cast());
    PaRange::new(first, Pa(first.0 + size_of::<Tables>() as u64)).contains(frame)
}

/// The tables' memory in the image.
struct ImageFrames {
    image: Image,
    used: usize,
}

// SAFETY: each of the tables is handed out once; the image is not at physical address 0.
unsafe impl FrameSource for ImageFrames {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        if self.used == TABLES {
            return Err(OutOfFrames { wanted: GEOMETRY.granule().bytes(), largest_free: 0 });
        }
        let table = (&raw const MEMORY).cast::<[u64; WORDS]>().wrapping_add(self.used);
        table.expose_provenance();
        self.used += 1;
        Ok(self.image.physical(table.cast()))
    }

    unsafe fn free(&mut self, _frame: Pa) {}
}

/// Builds the root, once the console has its final place.
///
/// # Safety
/// Called once.
pub unsafe fn surgery_root(image: Image) -> Surgery {
    let page = GEOMETRY.granule().bytes();
    let fixmap = |slot: usize| Va(layout::FIXMAP.0 + slot as u64 * page);
    let layout = SurgeryLayout {
        geometry: GEOMETRY,
        mapped_as_live: &[
            VaRange::new(layout::IMAGE, image.range().len()),
            // A panic prints through the console's slot.
            VaRange::new(fixmap(slot::CONSOLE), page),
        ],
        windows: fixmap(slot::TABLES),
    };
    let offset = layout::IMAGE.0.wrapping_sub(image.range().start.0);
    // SAFETY: all tables on the way to the image and the fixmap lie in the image, which is mapped
    // at this offset by both roots, as is the memory of `ImageFrames`. The pages of the image never
    // change, nor does the console's slot from now on.
    let root = unsafe {
        SurgeryRoot::build(&layout, image.swapper(), offset, &mut ImageFrames { image, used: 0 }, ThisCpu)
    };
    root.expect("these tables hold the image and the fixmap")
}

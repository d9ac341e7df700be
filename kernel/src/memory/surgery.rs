//! The surgery root: the tables on which the boot CPU runs while no CPU may walk the live tables.
//! It maps the image, with the boot CPU's stacks, and the console.

use linmap_park::{SurgeryLayout, SurgeryRoot, SurgeryWindow};
use linmap_table::{FrameSource, OutOfFrames};
use linmap_vmsa::{Pa, Va, VaRange};

use crate::arch::cpu::ThisCpu;
use crate::arch::geometry::geometry;
use crate::arch::image::Image;
use crate::arch::layout::{self, GRANULE, slot};

/// The surgery root.
pub type Surgery = SurgeryRoot<ThisCpu>;

/// How tables are reached from it.
pub type Window = SurgeryWindow<ThisCpu>;

/// The tables' memory in the image.
struct ImageFrames {
    next: Pa,
    end: Pa,
}

// SAFETY: the linker script reserves these frames for this alone, and each is handed out once; the
// image is not at physical address 0.
unsafe impl FrameSource for ImageFrames {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let frame = self.next;
        if frame >= self.end {
            return Err(OutOfFrames { wanted: GRANULE.bytes(), largest_free: 0 });
        }
        self.next = Pa(frame.0 + GRANULE.bytes());
        Ok(frame)
    }

    unsafe fn free(&mut self, _frame: Pa) {}
}

/// Builds the root, once the console has its final place.
///
/// # Safety
/// Called once.
pub unsafe fn surgery_root(image: Image) -> Surgery {
    let page = GRANULE.bytes();
    let fixmap = |slot: usize| Va(layout::FIXMAP.0 + slot as u64 * page);
    let layout = SurgeryLayout {
        geometry: geometry(),
        mapped_as_live: &[
            image.va_range(),
            // A panic prints through the console's slot.
            VaRange::new(fixmap(slot::CONSOLE), page),
        ],
        windows: fixmap(slot::TABLES),
    };
    let frames = image.surgery_tables();
    let mut frames = ImageFrames { next: frames.start, end: frames.end };
    // SAFETY: all tables on the way to the image and the fixmap lie in the image, which is mapped
    // at this offset by both roots, as is the memory of `ImageFrames`. The pages of the image never
    // change, nor does the console's slot from now on.
    let root = unsafe { SurgeryRoot::build(&layout, image.swapper(), image.offset(), &mut frames, ThisCpu) };
    root.expect("these tables hold the image and the fixmap")
}

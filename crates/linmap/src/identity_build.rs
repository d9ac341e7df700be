//! The default builder: a temporary 1:1 map of memory in TTBR0, through which the linear map's
//! tables are written.
//!
//! The 1:1 map is built through fixmap slots, by the largest leaves, so it takes few tables. Once
//! it is in TTBR0, every frame is at VA = PA: the linear map is built as a detached tree without a
//! barrier or an invalidation, and published by one store for each root entry. One local TLBI
//! removes the 1:1 map.

use linmap_table::cpu::Cpu;
use linmap_table::{
    Built, DetachedTree, Fixmap, FixmapWindow, FrameSource, Mappings, ReachableFrames, Reserved,
};
use linmap_vmsa::Pa;

use crate::build_error::BuildError;
use crate::layout::Layout;
use crate::slots::BuilderSlots;

/// Builds the linear map into the live root table `root` through a temporary 1:1 map.
///
/// # Errors
/// [`BuildError`]. Then TTBR0 is on the reserved table, nothing is mapped, and every frame is free
/// again.
///
/// # Safety
/// - `linear` maps every frame that `frames` hands out, at `layout`'s address, and `identity` maps
///   the same memory and the frame `root` at VA = PA.
/// - TTBR1 leads to `root`. TTBR0 and TCR hold what `reserved` says, and no TLB holds a translation
///   of TTBR0. No other CPU runs, and no code uses TTBR0's half of the address space during the
///   build.
/// - The frames are memory that nothing else accesses. The slots are free.
#[expect(clippy::too_many_arguments, reason = "each is one of the seams that the builder joins")]
pub unsafe fn build_by_identity<C: Cpu, F: FrameSource>(
    layout: &Layout,
    linear: &Mappings<'_>,
    identity: &Mappings<'_>,
    root: Pa,
    reserved: Reserved,
    slots: &BuilderSlots,
    fixmap: &mut Fixmap,
    cpu: &mut C,
    frames: &mut F,
) -> Result<Built, BuildError> {
    // SAFETY: frames fresh from `frames` are accessed by nothing else (this function's contract).
    let mut window = unsafe { FixmapWindow::new(fixmap, cpu, slots.tables) };
    // SAFETY: the fixmap reaches all of memory.
    let tree = DetachedTree::build(identity, &mut unsafe { ReachableFrames::new(&mut window, frames) })?;
    // SAFETY: TTBR0 and TCR are as `reserved` says, with nothing cached (this function's contract).
    // The fixmap's last clear ordered the tables' stores (DSB ISHST, DSB ISH). The tree maps memory
    // by a cacheable type, as the linear map does.
    let installed = match unsafe { reserved.install(tree, cpu) } {
        Ok(installed) => installed,
        Err((tree, error)) => {
            // SAFETY: as above.
            let mut window = unsafe { FixmapWindow::new(fixmap, cpu, slots.tables) };
            // SAFETY: as above.
            tree.release(&mut unsafe { ReachableFrames::new(&mut window, frames) });
            return Err(error.into());
        }
    };

    // SAFETY: until it is removed, TTBR0 maps all of `identity` at VA = PA, which holds every frame
    // of `frames` and the root table.
    let mut one_to_one = unsafe { cpu.frames_at(0) };
    // SAFETY: as above.
    let mut memory = unsafe { ReachableFrames::new(&mut one_to_one, frames) };
    let built = match DetachedTree::build(linear, &mut memory) {
        // SAFETY: `root` is the live root of the half in which `linear` lies, and only this
        // function changes it (its contract).
        Ok(tree) => match unsafe { tree.publish(root, &mut memory, cpu) } {
            Ok(built) => Ok(built),
            Err((tree, error)) => {
                tree.release(&mut memory);
                Err(error.into())
            }
        },
        Err(error) => Err(error.into()),
    };

    let tree = installed.remove(cpu);
    match built {
        Ok(built) => {
            // SAFETY: the linear map is live now and maps every frame of `frames` at this offset.
            let mut window = unsafe { cpu.frames_at(layout.offset()) };
            // SAFETY: as above.
            tree.release(&mut unsafe { ReachableFrames::new(&mut window, frames) });
            Ok(built)
        }
        Err(error) => {
            // SAFETY: as for building it; there is no linear map to reach the tables through.
            let mut window = unsafe { FixmapWindow::new(fixmap, cpu, slots.tables) };
            // SAFETY: the fixmap reaches all of memory.
            tree.release(&mut unsafe { ReachableFrames::new(&mut window, frames) });
            Err(error)
        }
    }
}

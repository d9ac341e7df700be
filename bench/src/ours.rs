//! linmap's own builder, as the kernel runs it once its 1:1 map stands.

use anyhow::Result;
use linmap::MemblockFrames;
use linmap_memblock::Memblock;
use linmap_table::{DetachedTree, FrameSource, Leaves, Mappings, OffsetWindow, ReachableFrames};
use linmap_vmsa::PaRange;

use crate::arena::{BumpFrames, TableMemory};
use crate::case::{Case, LeafKind};
use crate::geometry::GEOMETRY;
use crate::run::Run;

/// As many ranges as the kernel's own memblock holds.
const REGIONS: usize = 256;

/// With frames from memblock, whose other memory is all in use.
///
/// # Errors
/// Those of memblock and of the builder.
pub fn from_memblock(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    build_from_memblock(case, plain(case), memory)
}

/// With frames handed out one after the other.
///
/// # Errors
/// Those of the builder.
pub fn from_bump_frames(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let offset = memory.offset();
    build(case, plain(case), offset, &mut BumpFrames::new(memory))
}

/// With the contiguous bit, and frames from memblock.
///
/// # Errors
/// Those of memblock and of the builder.
pub fn with_contiguous_bit(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    build_from_memblock(case, Leaves::ContiguousBlocks, memory)
}

/// The case's leaves without the contiguous bit.
fn plain(case: Case) -> Leaves {
    match case.leaf {
        LeafKind::Page => Leaves::Pages,
        LeafKind::Block => Leaves::Blocks,
    }
}

#[expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the exclusive borrow is what keeps others from the frames"
)]
fn build_from_memblock(case: Case, leaves: Leaves, memory: &mut TableMemory<'_>) -> Result<Run> {
    let ram = case.ram();
    let offset = memory.offset();
    let mut memblock = Box::new(Memblock::<REGIONS>::new());
    memblock.add(ram)?;
    memblock.reserve(PaRange::new(ram.start, memory.frames().start))?;
    // SAFETY: the arena is borrowed exclusively, and what lies before it is reserved.
    build(case, leaves, offset, &mut unsafe { MemblockFrames::new(&mut memblock, GEOMETRY) })
}

/// Builds the map of `case` by `leaves`, in `frames`, which lie at `offset` on the host.
///
/// # Errors
/// Those of the builder.
pub fn build<F: FrameSource>(case: Case, leaves: Leaves, offset: u64, frames: &mut F) -> Result<Run> {
    let list = [case.mapping(leaves)];
    // SAFETY: both sources hand out frames of a `TableMemory` alone, which lie at this offset,
    // writable and with exposed provenance, and are borrowed exclusively by our caller.
    let mut window = unsafe { OffsetWindow::new(offset) };
    Run::timed(|| {
        let mappings = Mappings::new(GEOMETRY, &list)?;
        // SAFETY: as above.
        let mut memory = unsafe { ReachableFrames::new(&mut window, frames) };
        let tree = DetachedTree::build(&mappings, &mut memory)?;
        Ok(tree.root())
    })
}

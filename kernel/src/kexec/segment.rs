//! The parts of a payload.

use linmap_kexec::SEGMENT_ALIGN;
use linmap_vmsa::{Pa, PaRange};

/// How many segments a payload has at most: image, initrd, device tree, ELF core header.
pub const MAX_SEGMENTS: usize = 4;

/// Where a segment's bytes are until the hand-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staged {
    /// At the destination.
    InPlace,
    /// In one piece from here.
    At(Pa),
    /// In unrelated pages.
    Pages,
}

/// One part of the payload.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// What it is.
    pub name: &'static str,
    /// Its destination, in whole pages.
    pub destination: PaRange,
    /// Where it is until then.
    pub staged: Staged,
    /// Its length in bytes, without the rest of the last page.
    pub len: u64,
    /// The number of bytes that are cleared instead of moved, because they are zero.
    pub zero: u64,
}

/// The pages that `range` touches.
pub fn whole_pages(range: PaRange) -> PaRange {
    range.align_outward(SEGMENT_ALIGN).unwrap_or(range)
}

//! What a linear map has to be, from the rules alone: the leaves in ascending order, and how many
//! tables they need at least.

use linmap::ImageParts;
use linmap_table::Leaves;
use linmap_vmsa::{Geometry, Granule, PaRange};

/// A leaf size: log2 of its bytes, and how many make a contiguous run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub shift: u32,
    pub run: u64,
}

const fn size(shift: u32, run: u64) -> Size {
    Size { shift, run }
}

/// The leaf sizes of a geometry from pages on: Arm ARM, "The VMSAv8-64 translation table formats",
/// and the contiguous runs that linmap makes.
pub fn sizes(geometry: Geometry) -> Vec<Size> {
    let is_wide = geometry.va_bits() > 48 || geometry.pa_bits() > 48;
    let (mut sizes, widest) = match geometry.granule() {
        Granule::K4 => (vec![size(12, 16), size(21, 16), size(30, 0)], size(39, 0)),
        Granule::K16 => (vec![size(14, 128), size(25, 32)], size(36, 0)),
        Granule::K64 => (vec![size(16, 32), size(29, 32)], size(42, 0)),
    };
    // The 64K granule has its largest blocks with 52 bits of physical address, and no LPA2.
    if is_wide && (geometry.granule() != Granule::K64 || geometry.pa_bits() == 52) {
        sizes.push(widest);
    }
    sizes
}

/// A leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    pub va: u64,
    pub pa: u64,
    pub shift: u32,
    pub contiguous: bool,
    pub read_only: bool,
}

/// A part of memory whose leaves have the same attributes.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub range: PaRange,
    pub leaves: Leaves,
    pub read_only: bool,
}

/// The parts of `memory` around the `image`. The alias of its text is read-only and has no
/// contiguous bit; its data has none. `pages` is made of pages.
pub fn parts(memory: &[PaRange], image: ImageParts, pages: &[PaRange], leaves: Leaves) -> Vec<Part> {
    let alias = if leaves == Leaves::Pages { leaves } else { Leaves::Blocks };
    let around = |range: &PaRange| {
        let below = PaRange::new(range.start, range.end.min(image.read_only.start));
        let above = PaRange::new(range.start.max(image.data.end), range.end);
        let data = |range| Part { range, leaves, read_only: false };
        let text = Part { range: range.intersection(image.read_only), leaves: alias, read_only: true };
        [data(below), text, data(above)]
    };
    let cut = |part: Part| {
        let mut parts = Vec::new();
        let mut next = part.range.start;
        for inside in pages.iter().map(|range| range.intersection(part.range)) {
            if !inside.is_empty() {
                parts.push(Part { range: PaRange::new(next, inside.start), ..part });
                parts.push(Part { range: inside, leaves: Leaves::Pages, ..part });
                next = inside.end;
            }
        }
        parts.push(Part { range: PaRange::new(next, part.range.end), ..part });
        parts
    };
    let parts = memory.iter().flat_map(around).filter(|part| !part.range.is_empty()).flat_map(cut);
    parts.filter(|part| !part.range.is_empty()).collect()
}

/// Calls `each` with the leaves of `parts` in ascending order: at each address the largest that
/// both alignments and the rest of the part allow. `offset` is VA − PA.
pub fn leaves(sizes: &[Size], parts: &[Part], offset: u64, mut each: impl FnMut(Leaf)) {
    for part in parts {
        let (mut pa, end) = (part.range.start.0, part.range.end.0);
        let mut run_end = 0;
        while pa < end {
            let va = pa.wrapping_add(offset);
            let fits = |bytes: u64| (va | pa) & (bytes - 1) == 0 && end - pa >= bytes;
            let allowed = if part.leaves == Leaves::Pages { &sizes[..1] } else { sizes };
            let size = allowed.iter().rev().find(|size| fits(1 << size.shift)).expect("whole pages");
            let run = size.run << size.shift;
            if part.leaves == Leaves::ContiguousBlocks && run != 0 && pa >= run_end && fits(run) {
                run_end = pa + run;
            }
            let contiguous = pa < run_end;
            each(Leaf { va, pa, shift: size.shift, contiguous, read_only: part.read_only });
            pa += 1 << size.shift;
        }
    }
}

/// Counts the tables below the root that leaves need: one for each different address of a table on
/// the path to any leaf.
pub struct Tables {
    /// log2 of what an entry covers, from pages to the root.
    shifts: Vec<u32>,
    last: Vec<Option<u64>>,
    pub count: u64,
    /// At each level, from pages up.
    pub by_level: [u64; 5],
}

impl Tables {
    pub fn new(geometry: Geometry) -> Self {
        let page = geometry.granule().bytes().trailing_zeros();
        let index_bits = page - 3;
        let shifts: Vec<u32> = (0..)
            .map(|level| page + level * index_bits)
            .take_while(|s| *s < u32::from(geometry.va_bits()))
            .collect();
        let last = vec![None; shifts.len()];
        Self { shifts, last, count: 0, by_level: [0; 5] }
    }

    pub fn add(&mut self, leaf: Leaf) {
        // The table of a level translates what one entry of the level above does. The root is not
        // counted.
        for (nth, above) in self.shifts.iter().enumerate().skip(1) {
            let table = leaf.va >> above;
            if self.shifts[nth - 1] >= leaf.shift && self.last[nth] != Some(table) {
                self.last[nth] = Some(table);
                self.count += 1;
                self.by_level[nth - 1] += 1;
            }
        }
    }
}

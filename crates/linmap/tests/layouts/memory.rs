//! The layouts that are tried.

use linmap::{Builder, ImageParts};
use linmap_memblock::Memblock;
use linmap_table::Leaves;
use linmap_vmsa::{Geometry, Pa, PaRange, Va};

use crate::random::Random;
use crate::rules::build::Wanted;
use crate::rules::expected::{parts, sizes};
use crate::rules::geometries::GEOMETRIES;

/// At most this much memory is mapped by pages.
const PAGE_LEAVES: u64 = 64 << 20;
const GIB: u64 = 1 << 30;

/// Memory, and how it is mapped.
#[derive(Debug)]
pub struct Setting {
    pub geometry: Geometry,
    pub leaves: Leaves,
    pub builder: Builder,
    /// All memory as firmware says it: in any order, with ends within pages.
    pub ram: Vec<PaRange>,
    pub no_map: Vec<PaRange>,
    /// What is to be mapped.
    pub memory: Vec<PaRange>,
    pub image: ImageParts,
    /// Made of pages whatever the rest is.
    pub pages: Vec<PaRange>,
}

fn range(start: u64, end: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(end))
}

impl Setting {
    pub fn wanted(&self) -> Wanted<'_> {
        let Self { geometry, leaves, builder, memory, image, pages, .. } = self;
        Wanted { geometry: *geometry, leaves: *leaves, builder: *builder, memory, image: *image, pages }
    }

    pub fn random(random: &mut Random) -> Self {
        let geometry = random.pick(&GEOMETRIES);
        let kinds = [Leaves::ContiguousBlocks, Leaves::ContiguousBlocks, Leaves::Blocks, Leaves::Pages];
        let leaves = random.pick(&kinds);
        let ram = ram(geometry, random);
        let no_map = holes(&ram, geometry, random);
        let mut memblock = Box::new(Memblock::<64>::new());
        let from = random.below(ram.len() as u64) as usize;
        for range in ram.iter().cycle().skip(from).take(ram.len()) {
            memblock.add(*range).expect("room");
        }
        for range in &no_map {
            memblock.mark_no_map(*range).expect("room");
        }
        let page = geometry.granule().bytes();
        let mut memory: Vec<_> = memblock.mappable(page).collect();
        let mut image = image(&memory, page, random);
        if by_pages(geometry, &memory, image, leaves) > PAGE_LEAVES {
            image = ImageParts::default();
        }
        // Whatever would take too long is left out, not made smaller: the ends stay odd.
        let mut left = PAGE_LEAVES;
        memory.retain(|range| {
            let bytes = by_pages(geometry, &[*range], image, leaves);
            let fits = bytes <= left || range.overlaps(image.range());
            left = left.saturating_sub(if fits { bytes } else { 0 });
            fits
        });
        let builder = random.pick(&Builder::ALL);
        let pages = pages(&memory, page, random);
        Self { geometry, leaves, builder, ram, no_map, memory, image, pages }
    }
}

/// Regions from one end of the address space to the other.
fn ram(geometry: Geometry, random: &mut Random) -> Vec<PaRange> {
    let sizes = sizes(geometry);
    let page = 1 << sizes[0].shift;
    let block = 1 << sizes[1].shift;
    let limit = 1u64 << geometry.pa_bits();
    let reach = 1u64 << (geometry.va_bits() - 1);
    let top = limit.saturating_sub(reach / 2);
    let first =
        random.pick(&[0, GIB, GIB, 1 << 35, reach / 2, top]) + random.pick(&[0, 0, page, block, 0x800]);
    let mut ram = Vec::new();
    let mut next = first;
    for _ in 0..1 + random.below(10) {
        let gap = match random.below(8) {
            0 => random.below(page),
            1..4 => random.below(64) * page,
            4..6 => random.below(8) * block,
            6 => random.below(64) * GIB,
            _ => random.below(reach / 4),
        };
        let start = next.saturating_add(gap);
        let (start, end) = if random.percent(40) {
            // Anywhere, and short.
            let start = start & !(random.pick(&[page, 0x800, 0x10]) - 1);
            let most = random.pick(&[page, 64 * page, 8 << 20]);
            (start, start.saturating_add(1 + random.below(most)))
        } else {
            // Around whole blocks, with some pages at either end.
            let whole = random.pick(&[1, 2, 40, 600]);
            let start = start.next_multiple_of(random.pick(&[block, block, GIB.max(block)]));
            let end = start.saturating_add(random.below(whole) * block);
            let some = |random: &mut Random| random.pick(&[0, 0, 1, 17, 70]) * page;
            (start.saturating_sub(some(random)).max(next), end.saturating_add(some(random)))
        };
        let region = range(start.max(next), end.min(limit));
        if region.start < region.end {
            ram.push(region);
            next = region.end.0;
        }
    }
    if ram.is_empty() {
        ram.push(range(GIB, GIB + 4 * block));
    }
    ram
}

fn holes(ram: &[PaRange], geometry: Geometry, random: &mut Random) -> Vec<PaRange> {
    let page = geometry.granule().bytes();
    let hole = |random: &mut Random| {
        let within = random.pick(ram);
        let start = within.start.0 + random.below(within.len()) / 0x400 * 0x400;
        let most = random.pick(&[2, 8 * page / 0x400]);
        range(start, start + 0x400 * (1 + random.below(most)))
    };
    (0..random.below(4)).map(|_| hole(random)).collect()
}

/// An image in one of the ranges, or none.
fn image(memory: &[PaRange], page: u64, random: &mut Random) -> ImageParts {
    if memory.is_empty() || random.percent(20) {
        return ImageParts::default();
    }
    let within = random.pick(memory);
    let pages = within.len() / page;
    let near = random.pick(&[0, 2 << 20, within.len()]) / page;
    let start = within.start.0 + near.min(random.below(pages)) * page;
    let left = (within.end.0 - start) / page;
    let read_only = random.below(left.min(40) + 1);
    let data = if read_only == left { 0 } else { 1 + random.below((left - read_only).min(40)) };
    let middle = start + read_only * page;
    ImageParts {
        read_only: range(start, middle),
        data: range(middle, middle + data * page),
        va: Va(u64::MAX << 30),
    }
}

/// Memory that is made of pages whatever the rest is, at most one part of each range.
fn pages(memory: &[PaRange], page: u64, random: &mut Random) -> Vec<PaRange> {
    let some: Vec<_> = memory.iter().filter(|_| random.percent(20)).take(8).collect();
    let part = |of: &PaRange, random: &mut Random| {
        let count = of.len() / page;
        let first = random.below(count);
        let end = first + 1 + random.below((count - first).min(700));
        range(of.start.0 + first * page, of.start.0 + end * page)
    };
    some.into_iter().map(|of| part(of, random)).collect()
}

/// The bytes that are mapped by pages.
fn by_pages(geometry: Geometry, memory: &[PaRange], image: ImageParts, kind: Leaves) -> u64 {
    let parts = parts(memory, image, &[], kind);
    if kind == Leaves::Pages {
        return memory.iter().map(|range| range.len()).sum();
    }
    // Whatever the layout, VA and PA have the same place in a block.
    let block = 1 << sizes(geometry)[1].shift;
    let ends = |range: PaRange| {
        let whole = range.align_inward(block);
        if whole.is_empty() { range.len() } else { range.len() - whole.len() }
    };
    parts.iter().map(|part| ends(part.range)).sum()
}

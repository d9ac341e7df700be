//! Building a map, and comparing it.

use linmap::{
    Builder, BuilderSlots, ConfigError, ImageParts, KaslrSeed, Layout, LayoutError, LinearMapConfig,
    MappingLists, PageRanges,
};
use linmap_table::cpu::{Counted, InstructionCounts};
use linmap_table::{Fixmap, Leaves, Reserved};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::{tcr, ttbr};
use linmap_vmsa::{Geometry, Granule, MemoryType, PaRange, TablePermissions, Va};

use super::cost::Counts;
use super::cpu::{HostCpu, OneToOne};
use super::expected::{Leaf, Part, Tables, leaves, parts, sizes};
use super::host::Host;
use super::read::read;

const SLOTS: BuilderSlots = BuilderSlots { tables: [1, 2, 3, 4, 5], leaf_tables: 8..24 };

/// What is to be mapped, and how.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    pub geometry: Geometry,
    pub leaves: Leaves,
    pub builder: Builder,
    /// Whole pages, ascending, disjoint.
    pub memory: &'w [PaRange],
    pub image: ImageParts,
    /// Chooses where the map begins.
    pub seed: Option<KaslrSeed>,
    /// What is mapped by pages alone. Ascending, disjoint.
    pub pages: &'w [PaRange],
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was built.
    Built(Built),
    /// It is wider than the linear region or the 1:1 map.
    TooWide,
}

/// A map that is as the rules say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Built {
    /// The tables below the root, in bytes.
    pub table_bytes: u64,
    pub bytes: u64,
    pub leaves: Mix,
}

/// How many leaves of each kind there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mix {
    pub pages: u64,
    pub pages_in_runs: u64,
    pub blocks: u64,
    pub blocks_in_runs: u64,
}

impl Mix {
    fn add(&mut self, leaf: Leaf, page: u64) {
        let kind = match (1 << leaf.shift == page, leaf.contiguous) {
            (true, false) => &mut self.pages,
            (true, true) => &mut self.pages_in_runs,
            (false, false) => &mut self.blocks,
            (false, true) => &mut self.blocks_in_runs,
        };
        *kind += 1;
    }
}

/// Builds a linear map and compares it with what the rules say.
pub fn build(wanted: &Wanted<'_>, host: &mut Host, lists: &mut MappingLists) -> Result<Outcome, String> {
    let geometry = wanted.geometry;
    let page = geometry.granule().bytes();
    host.reset(geometry);
    let (root, empty, fixmap) = (host.cleared(), host.cleared(), host.cleared());
    let fixed = host.out();
    let mut pages = PageRanges::new();
    for range in wanted.pages {
        pages.insert(*range).map_err(|error| error.to_string())?;
    }
    let mut config = LinearMapConfig {
        geometry,
        image: wanted.image,
        leaves: wanted.leaves,
        pages,
        tables: TablePermissions::UNRESTRICTED,
        memory: MemoryType::Normal,
        builder: wanted.builder,
        slots: SLOTS,
        root,
        reserved: Reserved {
            ttbr0: ttbr(geometry, empty, 0).map_err(|error| error.to_string())?,
            tcr: tcr(geometry, geometry, true).map_err(|error| error.to_string())?,
        },
        bbm: BbmLevel::L0,
        layout: None,
    };
    let (Some(first), Some(last)) = (wanted.memory.first(), wanted.memory.last()) else {
        let error = config.prepare([], lists).map(|_| ()).expect_err("no memory");
        return if error == ConfigError::NoMemory { Ok(Outcome::TooWide) } else { Err(error.to_string()) };
    };
    let memory = PaRange::new(first.start, last.end);
    config.layout = wanted.seed.and_then(|seed| Layout::randomized(geometry, memory, seed).ok());
    // The linear region begins at a multiple of the largest leaf that memory may hold, as long as
    // memory fits then.
    let least = if geometry.granule() == Granule::K64 { 1u64 << 29 } else { 1 << 30 };
    let down = |align: u64| first.start.0 / align * align;
    let mut memstart = down(least);
    let is_too_wide = last.end.0 - memstart > region(geometry);
    for bytes in sizes(geometry).iter().flat_map(|size| [1 << size.shift, size.run.max(1) << size.shift]) {
        let holds_one = first.start.0.next_multiple_of(bytes).saturating_add(bytes) <= last.end.0;
        if bytes > least && holds_one && last.end.0 - down(bytes) <= region(geometry) {
            memstart = memstart.min(down(bytes));
        }
    }
    // T0SZ has 48 bits, or the 52 that the kernel's half shows that the CPUs have.
    let reach = if geometry.lpa2() || geometry.va_bits() > 48 { 52 } else { 48 };
    let is_beyond_1_to_1 = wanted.builder == Builder::Identity && last.end.0 > 1u64 << reach;
    let prepared = match config.prepare(wanted.memory.iter().copied(), lists) {
        Ok(_) if is_too_wide || is_beyond_1_to_1 => return Err("it can't be in reach".into()),
        Ok(prepared) => prepared,
        Err(ConfigError::Layout(LayoutError::TooWide { .. })) if is_too_wide => return Ok(Outcome::TooWide),
        Err(ConfigError::Identity(_)) if is_beyond_1_to_1 => return Ok(Outcome::TooWide),
        Err(error) => return Err(error.to_string()),
    };
    let base = u64::MAX << geometry.va_bits();
    let fixmap_base = Va(u64::MAX << 29);
    let cpu = HostCpu::new(geometry, host.frames, fixmap, fixmap_base);
    let mut cpu = Counted { cpu, counts: InstructionCounts::default() };
    // SAFETY: a table of empty entries that nothing else changes.
    let mut slots = unsafe { Fixmap::new(geometry, host.frames.pointer(fixmap), fixmap_base) };
    let cost = prepared.cost();
    host.forget_most();
    // SAFETY: nothing walks the tables, and all frames are host memory.
    let map = unsafe { prepared.build(&mut slots, &mut cpu, host) }.map_err(|error| error.to_string())?;
    let (built, offset) = (map.built(), map.layout().offset());
    let first_offset = base.wrapping_sub(memstart);
    let moved = offset.wrapping_sub(first_offset);
    let room = region(geometry) - (last.end.0 - memstart);
    if moved > if wanted.seed.is_some() { room } else { 0 } {
        return Err(format!("memstart is {}, not {memstart:#x} + {moved:#x}", map.layout().memstart()));
    }
    match (wanted.builder, cpu.cpu.one_to_one) {
        (Builder::Identity, Some(found)) => check_one_to_one(&found?, wanted.memory)?,
        (Builder::Fixmap(_), None) => {}
        (builder, _) => return Err(format!("{} with or without TTBR0", builder.name())),
    }
    let found = read(host.frames, geometry, root, base)?;
    let (mut tables, mut leaves_by_level) = (Tables::new(geometry), [[0; 2]; 5]);
    let (mut nth, mut wrong, mut of) = (0, None, Built::default());
    let parts = parts(wanted.memory, wanted.image, wanted.pages, wanted.leaves);
    leaves(&sizes(geometry), &parts, offset, |leaf| {
        if found.get(nth) != Some(&leaf) {
            wrong.get_or_insert((found.get(nth).copied(), leaf));
        }
        nth += 1;
        of.bytes += 1 << leaf.shift;
        of.leaves.add(leaf, page);
        tables.add(leaf);
        let level = (leaf.shift - page.trailing_zeros()) / geometry.granule().index_bits();
        leaves_by_level[level as usize][usize::from(leaf.contiguous)] += 1;
    });
    if let Some((found, leaf)) = wrong {
        return Err(format!("found {found:x?}, should be {leaf:x?}"));
    }
    if let Some(more) = found.get(nth) {
        return Err(format!("{more:x?} is mapped besides"));
    }
    let counted = (built.tables, built.entries, built.bytes, host.out() - fixed);
    let least = (tables.count, nth as u64, of.bytes, tables.count);
    if counted != least {
        return Err(format!("tables, entries, bytes, frames: {counted:?}, should be {least:?}"));
    }
    let counts = Counts {
        built,
        instructions: cpu.counts,
        tables: tables.by_level,
        leaves: leaves_by_level,
        frames: host.most() - fixed,
    };
    counts.check(&cost)?;
    let memory: u64 = wanted.memory.iter().map(|range| range.len()).sum();
    let memory = memory - wanted.image.data.len();
    if of.bytes != memory {
        return Err(format!("{:#x} bytes are mapped of {memory:#x}", of.bytes));
    }
    // Wherever the map begins, it has the leaves and as many tables as at the first place.
    let (mut at_first, mut tables_at_first) = (Mix::default(), Tables::new(geometry));
    leaves(&sizes(geometry), &parts, first_offset, |leaf| {
        at_first.add(leaf, page);
        tables_at_first.add(leaf);
    });
    if (at_first, tables_at_first.count) != (of.leaves, tables.count) {
        return Err(format!("{:?} at +{moved:#x}, but {at_first:?} at the first place", of.leaves));
    }
    of.table_bytes = tables.count * page;
    Ok(Outcome::Built(of))
}

/// The bytes of the linear region: half of what the root translates, and with more than 48 bits all
/// but the last 2^47 bytes, or but the last entry of the root if that has more.
fn region(geometry: Geometry) -> u64 {
    match (geometry.granule(), geometry.va_bits()) {
        (_, bits @ ..=48) => 1 << (bits - 1),
        (Granule::K4, bits) => (1 << bits) - (1 << 48),
        (Granule::K16 | Granule::K64, bits) => (1 << bits) - (1 << 47),
    }
}

/// Checks the temporary map: all memory at VA = PA by the largest leaves, with no more bits than
/// its last address has.
fn check_one_to_one(found: &OneToOne, memory: &[PaRange]) -> Result<(), String> {
    let last = memory.last().map_or(0, |range| range.end.0 - 1);
    let bits = (u64::BITS - last.leading_zeros()).max(25);
    if u32::from(found.geometry.va_bits()) != bits {
        return Err(format!("the 1:1 map has {} bits, should have {bits}", found.geometry.va_bits()));
    }
    let part = |range: &PaRange| Part { range: *range, leaves: Leaves::ContiguousBlocks, read_only: false };
    let parts: Vec<_> = memory.iter().map(part).collect();
    let (mut nth, mut wrong) = (0, None);
    // A walk of these bits begins at a table, so no leaf is as large as all that they translate.
    let mut sizes = sizes(found.geometry);
    sizes.retain(|size| size.shift < bits);
    leaves(&sizes, &parts, 0, |leaf| {
        if found.leaves.get(nth) != Some(&leaf) {
            wrong.get_or_insert((found.leaves.get(nth).copied(), leaf));
        }
        nth += 1;
    });
    match (wrong, found.leaves.get(nth)) {
        (Some((found, leaf)), _) => Err(format!("1:1: found {found:x?}, should be {leaf:x?}")),
        (None, Some(more)) => Err(format!("1:1: {more:x?} is mapped besides")),
        (None, None) => Ok(()),
    }
}

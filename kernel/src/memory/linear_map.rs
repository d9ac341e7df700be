//! The phase that builds the linear map: from a filled memblock to TTBR0 reserved and every
//! temporary table freed.

use linmap::{
    BuildError, Builder, BuiltMap, ConfigError, ImageParts, KaslrSeed, Layout, LayoutError, LeafPolicy,
    LinearMap, LinearMapConfig, MappingLists, MemblockFrames, PageRanges, Repaint, TooManyPageRanges,
    first_unmappable, leaves_name,
};
use linmap_memblock::{AllocError, Memblock, RegionError};
use linmap_platform::{CommandLine, MemoryMap, MemoryMapEntry, MemoryWordError};
use linmap_table::cpu::Counted;
use linmap_table::{Fixmap, Mapping, Unmappable};
use linmap_vmsa::id::Pfr1;
use linmap_vmsa::{MemoryType, PaRange, TablePermissions};
use thiserror::Error;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::geometry::geometry;
use crate::arch::layout::{BUILDER_SLOTS, GRANULE, MAX_MAPPINGS};
use crate::arch::platform::Platform;
use crate::memory::long_lists::{EarlyWindow, REGIONS};
use crate::{report, say};

/// Why the linear map can't be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LinearMapError {
    /// `linmap.build=` has an unknown value.
    #[error("linmap.build= is base, no-cont-remap, batch-barriers, no-alloc-remap, lazy-unmap or identity")]
    UnknownBuilder,
    /// `linmap.leaf=` has an unknown value.
    #[error("linmap.leaf= is auto, block or page")]
    UnknownLeaf,
    /// `linmap.tables=` has an unknown value.
    #[error("linmap.tables= is nx or x")]
    UnknownTables,
    /// `linmap.repaint=` has an unknown value.
    #[error("linmap.repaint= is pages or keep-blocks")]
    UnknownRepaint,
    /// `linmap.pages=` can't be read.
    #[error("linmap.pages=: {0}")]
    Pages(#[from] MemoryWordError),
    /// `linmap.pages=` has something else than memory.
    #[error("linmap.pages= takes SIZE@ADDRESS: nothing is left out of the map")]
    PagesNoMap,
    /// `linmap.pages=` has too many ranges.
    #[error("linmap.pages=: {0}")]
    TooManyPageRanges(#[from] TooManyPageRanges),
    /// `linmap.mte=` has an unknown value.
    #[error("linmap.mte= is on or off")]
    UnknownMte,
    /// The image is not in mapped memory, where its tables are reached.
    #[error("the kernel image at {image} does not lie in one mapped range of memory{reason}")]
    ImageNotMapped {
        /// Its range.
        image: PaRange,
        /// What of it is not memory, or must not be mapped.
        reason: UnmappableReason,
    },
    /// This memory can't be mapped.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Memory has no linear addresses.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no memory for long lists.
    #[error(transparent)]
    Lists(#[from] AllocError),
    /// Memblock refuses the memory of lists back.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The builder failed.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Displays what of a range can't be mapped, if that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnmappableReason(Option<Unmappable>);

impl core::fmt::Display for UnmappableReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(Unmappable::NoMap(pa)) => write!(f, ": {pa} is no-map"),
            Some(Unmappable::NotMemory(pa)) => write!(f, ": {pa} is not memory"),
            // Its ends share a page with something that can't be mapped.
            _ => Ok(()),
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// The size of leaves.
    pub policy: LeafPolicy,
    /// What happens when a CPU lacks the boot CPU's BBM level.
    pub repaint: Repaint,
}

/// Builds the linear map of `memblock` as the command line asks, and reports the phase.
///
/// # Errors
/// [`LinearMapError`].
pub fn build(
    platform: &Platform,
    memblock: &mut Memblock<REGIONS>,
    window: &mut EarlyWindow,
    fixmap: &mut Fixmap,
) -> Result<(LinearMap, Choices), LinearMapError> {
    let Platform { image, reserved, features, seed, command_line, .. } = *platform;
    let builder = match command_line.get("linmap.build") {
        None => Builder::default(),
        Some(name) => Builder::from_name(name).ok_or(LinearMapError::UnknownBuilder)?,
    };
    let policy = match command_line.get("linmap.leaf") {
        None => LeafPolicy::default(),
        Some(name) => LeafPolicy::from_name(name).ok_or(LinearMapError::UnknownLeaf)?,
    };
    let repaint = match command_line.get("linmap.repaint") {
        None => Repaint::default(),
        Some(name) => Repaint::from_name(name).ok_or(LinearMapError::UnknownRepaint)?,
    };
    if !memblock.mappable(GRANULE.bytes()).any(|range| range.covers(image.range())) {
        let reason = UnmappableReason(first_unmappable(memblock, image.range()));
        return Err(LinearMapError::ImageNotMapped { image: image.range(), reason });
    }
    let data = PaRange::new(image.read_only().end, image.range().end);
    let config = LinearMapConfig {
        geometry: geometry(),
        image: ImageParts { read_only: image.read_only(), data, va: image.va() },
        leaves: policy.leaves(),
        pages: pages(command_line)?,
        tables: tables(command_line)?,
        memory: memory_type(command_line)?,
        builder,
        slots: BUILDER_SLOTS,
        root: image.swapper(),
        reserved,
        bbm: features.bbm,
        layout: layout(memblock, seed)?,
    };
    let splits = 1 + config.pages.iter().count();
    let count = memblock.mappable(GRANULE.bytes()).count() + 2 * splits;
    let room = match count > MAX_MAPPINGS {
        true => Some(window.mappings(fixmap, memblock, 2 * count)?),
        false => None,
    };
    let (room_at, room) = room.map_or((PaRange::default(), None), |room| (room.memory, Some(room.room)));
    let mut cpu = Counted { cpu: ThisCpu, counts: Default::default() };
    let started = cpu::counter();
    let painted = paint(&config, memblock, room, fixmap, &mut cpu);
    let ticks = cpu::ticks_since(started);
    let painted = painted?;
    memblock.free(room_at)?;
    let built = painted.built();
    let counts = cpu.counts;
    report!(
        "phase=linear-map build={} leaf={} ticks={ticks}{} tlbi={} dsb={} isb={} tables={} entries={} \
         bytes={}",
        builder.name(),
        leaves_name(config.leaves),
        TicksPerInstruction(command_line),
        counts.tlbi,
        counts.dsb,
        counts.isb,
        built.tables,
        built.entries,
        built.bytes
    );
    Ok((painted.into_map(), Choices { policy, repaint }))
}

/// The memory that is made of pages whatever the rest is: `linmap.pages=SIZE@ADDRESS,...`.
fn pages(command_line: CommandLine<'_>) -> Result<PageRanges, LinearMapError> {
    let mut pages = PageRanges::new();
    let Some(text) = command_line.get("linmap.pages") else { return Ok(pages) };
    for entry in MemoryMap::parse(text)?.entries() {
        let MemoryMapEntry::Memory(range) = entry else { return Err(LinearMapError::PagesNoMap) };
        let whole = range.align_outward(GRANULE.bytes());
        pages.insert(whole.unwrap_or(range))?;
    }
    Ok(pages)
}

/// Where `seed` has the map of `memblock` lie.
fn layout(memblock: &Memblock<REGIONS>, seed: Option<KaslrSeed>) -> Result<Option<Layout>, LayoutError> {
    let mut memory = memblock.mappable(GRANULE.bytes());
    let (Some(seed), Some(first)) = (seed, memory.next()) else { return Ok(None) };
    let end = memory.next_back().unwrap_or(first).end;
    Layout::randomized(geometry(), PaRange::new(first.start, end), seed).map(Some)
}

/// What the linear map's tables take away: with `linmap.tables=nx` nothing below them is ever
/// executed, so no memory becomes text.
fn tables(command_line: CommandLine<'_>) -> Result<TablePermissions, LinearMapError> {
    match command_line.get("linmap.tables") {
        None | Some("x") => Ok(TablePermissions::UNRESTRICTED),
        Some("nx") => Ok(TablePermissions::NEVER_EXECUTE),
        Some(_) => Err(LinearMapError::UnknownTables),
    }
}

/// The type of memory: tagged with `linmap.mte=on`, if this CPU has memory with tags. CPUs without
/// are not let in then.
fn memory_type(command_line: CommandLine<'_>) -> Result<MemoryType, LinearMapError> {
    match command_line.get("linmap.mte") {
        None | Some("off") => Ok(MemoryType::Normal),
        Some("on") if Pfr1(cpu::pfr1()).tagged_memory() => Ok(MemoryType::NormalTagged),
        Some("on") => {
            say!(
                "the CPU has no memory with allocation tags (ID_AA64PFR1_EL1.MTE): linmap.mte=on is ignored"
            );
            report!("warning=mte");
            Ok(MemoryType::Normal)
        }
        Some(_) => Err(LinearMapError::UnknownMte),
    }
}

/// The phase itself. Not inlined, so that instructions can be counted from outside, between its
/// symbol and its return.
#[inline(never)]
fn paint<'c>(
    config: &'c LinearMapConfig,
    memblock: &mut Memblock<REGIONS>,
    room: Option<&mut [Mapping]>,
    fixmap: &mut Fixmap,
    cpu: &mut Counted<ThisCpu>,
) -> Result<BuiltMap<'c>, LinearMapError> {
    let mut lists = MappingLists::<MAX_MAPPINGS>::new();
    if let Some(room) = room {
        lists.lend(room);
    }
    let prepared = config.prepare(memblock.mappable(config.geometry.page_bytes()), &mut lists)?;
    // SAFETY: memblock knows all memory that is in use.
    let mut frames = unsafe { MemblockFrames::new(memblock, config.geometry) };
    // SAFETY: TTBR1 leads to the swapper table. From here on the map alone changes its tree, except
    // the fixmap's own table; hardware updates are off in TCR. TTBR0 has been on the reserved table
    // with nothing cached since the early identity map was left. This CPU is the only one that
    // runs, and its code and data lie in TTBR1's half. Memblock's frames are free memory, and the
    // image, which has all tables in use, lies in memory that is mapped (`build` checked that).
    Ok(unsafe { prepared.build(fixmap, cpu, &mut frames) }?)
}

/// Displays how many ticks an instruction takes with `linmap.icount`, where the emulator executes
/// one instruction a nanosecond. Displays nothing if it takes one whole tick.
struct TicksPerInstruction<'a>(CommandLine<'a>);

impl core::fmt::Display for TicksPerInstruction<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const INSTRUCTIONS_PER_SECOND: u64 = 1_000_000_000;
        let frequency = cpu::counter_frequency();
        if self.0.get("linmap.icount").is_none() || frequency == INSTRUCTIONS_PER_SECOND {
            return Ok(());
        }
        let ratio = frequency.saturating_mul(1_000_000) / INSTRUCTIONS_PER_SECOND;
        write!(f, " ticks_per_insn={}.{:06}", ratio / 1_000_000, ratio % 1_000_000)
    }
}

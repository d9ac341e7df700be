//! The phase that builds the linear map: from a filled memblock to TTBR0 reserved and every
//! temporary table freed.

use linmap::features::Features;
use linmap::{
    BuildError, Builder, BuiltMap, ConfigError, ImageParts, LeafPolicy, LinearMap, LinearMapConfig,
    MappingLists, MemblockFrames, Repaint, leaves_name,
};
use linmap_memblock::Memblock;
use linmap_platform::CommandLine;
use linmap_table::cpu::Counted;
use linmap_table::{Fixmap, Reserved};
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::geometry::geometry;
use crate::arch::image::Image;
use crate::arch::layout::{BUILDER_SLOTS, GRANULE, MAX_MAPPINGS};
use crate::memory::physical::REGIONS;
use crate::report;

/// Why the linear map can't be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LinearMapError {
    /// `linmap.build=` has an unknown value.
    #[error("linmap.build= is base, no-cont-remap, batch-barriers, no-alloc-remap, lazy-unmap or identity")]
    UnknownBuilder,
    /// `linmap.leaf=` has an unknown value.
    #[error("linmap.leaf= is auto, block or page")]
    UnknownLeaf,
    /// `linmap.repaint=` has an unknown value.
    #[error("linmap.repaint= is pages or keep-blocks")]
    UnknownRepaint,
    /// The image is not in mapped memory, where its tables are reached.
    #[error("the kernel image at {image} does not lie in one mapped range of memory")]
    ImageNotMapped {
        /// Its range.
        image: PaRange,
    },
    /// This memory can't be mapped.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The builder failed.
    #[error(transparent)]
    Build(#[from] BuildError),
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
    image: Image,
    reserved: Reserved,
    features: Features,
    command_line: CommandLine<'_>,
    memblock: &mut Memblock<REGIONS>,
    fixmap: &mut Fixmap,
) -> Result<(LinearMap, Choices), LinearMapError> {
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
        return Err(LinearMapError::ImageNotMapped { image: image.range() });
    }
    let data = PaRange::new(image.read_only().end, image.range().end);
    let config = LinearMapConfig {
        geometry: geometry(),
        image: ImageParts { read_only: image.read_only(), data, va: image.va() },
        leaves: policy.leaves(),
        builder,
        slots: BUILDER_SLOTS,
        root: image.swapper(),
        reserved,
        bbm: features.bbm,
    };
    let mut cpu = Counted { cpu: ThisCpu, counts: Default::default() };
    let started = cpu::counter();
    let painted = paint(&config, memblock, fixmap, &mut cpu);
    let ticks = cpu::ticks_since(started);
    let painted = painted?;
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

/// The phase itself. Not inlined, so that instructions can be counted from outside, between its
/// symbol and its return.
#[inline(never)]
fn paint<'c>(
    config: &'c LinearMapConfig,
    memblock: &mut Memblock<REGIONS>,
    fixmap: &mut Fixmap,
    cpu: &mut Counted<ThisCpu>,
) -> Result<BuiltMap<'c>, LinearMapError> {
    let mut lists = MappingLists::<MAX_MAPPINGS>::new();
    let prepared = config.prepare(memblock.mappable(config.geometry.granule().bytes()), &mut lists)?;
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

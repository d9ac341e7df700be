//! The linear map's phase: from memblock ready to TTBR0 reserved and every temporary table back.

use linmap::builder::{BuildError, Builder};
use linmap::change::Repaint;
use linmap::features::Features;
use linmap::fixmap_build::build_by_fixmap;
use linmap::frame_pool::MemblockFrames;
use linmap::identity_build::build_by_identity;
use linmap::layout::{Layout, LayoutError};
use linmap::leaf_policy::{LeafPolicy, leaves_name};
use linmap::mapping_list::{
    MappingList, TooManyRanges, identity_geometry, identity_mappings, linear_mappings,
};
use linmap_memblock::Memblock;
use linmap_platform::CommandLine;
use linmap_table::cpu::Counted;
use linmap_table::{Built, Fixmap, Leaves, MappingError, Mappings, Reserved};
use linmap_vmsa::{Geometry, GeometryError, Level, PaRange};
use thiserror::Error;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::image::Image;
use crate::arch::layout;
use crate::arch::layout::BUILDER_SLOTS;
use crate::memory::physical::REGIONS;
use crate::report;

/// Why there is no linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LinearMapError {
    /// `linmap.build=` names no builder.
    #[error(
        "linmap.build= names no builder; there are base, no-cont-remap, batch-barriers, no-alloc-remap, lazy-unmap and identity"
    )]
    UnknownBuilder,
    /// `linmap.leaf=` names no policy.
    #[error("linmap.leaf= names no policy; there are auto, block and page")]
    UnknownLeaf,
    /// `linmap.repaint=` names no choice.
    #[error("linmap.repaint= names no choice; there are pages and keep-blocks")]
    UnknownRepaint,
    /// The image, whose tables are reached like all others, is not in memory that is mapped.
    #[error("the kernel image at {image} does not lie in one mapped range of memory")]
    ImageNotMapped {
        /// Where the boot loader put it.
        image: PaRange,
    },
    /// Memory does not fit the linear region.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Memory is in too many parts.
    #[error(transparent)]
    Ranges(#[from] TooManyRanges),
    /// Memory can't be mapped as it is.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Memory lies where no 1:1 map reaches.
    #[error("no 1:1 map reaches the end of memory: {0}")]
    Identity(#[from] GeometryError),
    /// The build itself failed.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The linear map as it was painted.
#[derive(Clone, Copy, Debug)]
pub struct Painted {
    /// Where everything is.
    pub layout: Layout,
    /// What the user asked for.
    pub policy: LeafPolicy,
    /// What leaves the map may be made of.
    pub leaves: Leaves,
    /// What becomes of it when a CPU lacks the boot CPU's BBM level.
    pub repaint: Repaint,
}

/// Builds the linear map of `memblock` as the command line asks, and reports the phase. Returns where everything is.
pub fn build(
    image: Image,
    reserved: Reserved,
    features: Features,
    command_line: CommandLine<'_>,
    memblock: &mut Memblock<REGIONS>,
    fixmap: &mut Fixmap,
) -> Result<Painted, LinearMapError> {
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
    let leaves = policy.leaves();
    if !memblock.mapped(layout::GEOMETRY.entry_bytes(Level::L3)).any(|range| range.covers(image.range())) {
        return Err(LinearMapError::ImageNotMapped { image: image.range() });
    }
    let mut cpu = Counted { cpu: ThisCpu, counts: Default::default() };
    let started = cpu::counter();
    let painted = paint(builder, image, reserved, features, leaves, memblock, fixmap, &mut cpu);
    let ticks = cpu::ticks_since(started);
    let (layout, built) = painted?;
    let counts = cpu.counts;
    report!(
        "phase=linear-map build={} leaf={} ticks={ticks}{} tlbi={} dsb={} isb={} tables={} entries={} bytes={}",
        builder.name(),
        leaves_name(leaves),
        TicksPerInstruction(command_line),
        counts.tlbi,
        counts.dsb,
        counts.isb,
        built.tables,
        built.entries,
        built.bytes
    );
    Ok(Painted { layout, policy, leaves, repaint })
}

/// The phase itself. Not inlined, so that instructions can be counted from outside, between its symbol and its return.
#[inline(never)]
#[expect(clippy::too_many_arguments, reason = "what a builder joins, and who builds")]
fn paint(
    builder: Builder,
    image: Image,
    reserved: Reserved,
    features: Features,
    leaves: Leaves,
    memblock: &mut Memblock<REGIONS>,
    fixmap: &mut Fixmap,
    cpu: &mut Counted<ThisCpu>,
) -> Result<(Layout, Built), LinearMapError> {
    let page = layout::GEOMETRY.entry_bytes(Level::L3);
    let first = memblock.mapped(page).next().unwrap_or_default();
    let last = memblock.mapped(page).next_back().unwrap_or_default();
    let memory = PaRange::new(first.start, last.end);
    let geometry = Geometry::new(layout::GEOMETRY.granule(), layout::GEOMETRY.va_bits(), features.pa_bits())?;
    let layout = Layout::new(geometry, memory)?;
    let mut linear_list = MappingList::new();
    linear_mappings(&layout, memblock, image.range(), leaves, &mut linear_list)?;
    let linear = Mappings::new(geometry, &linear_list)?;
    let root = image.swapper();
    let built = match builder {
        Builder::Fixmap(step) => {
            let mut frames = MemblockFrames::new(memblock, geometry);
            // SAFETY: TTBR1 leads to the swapper table, which only this boot changes; memblock's frames are free
            // memory; the table slots of the fixmap are free.
            unsafe { build_by_fixmap(step, &linear, root, &BUILDER_SLOTS, fixmap, cpu, &mut frames) }
        }
        Builder::Identity => {
            let shape = identity_geometry(geometry, memory.end.0)?;
            let mut identity_list = MappingList::new();
            identity_mappings(shape, memblock, &mut identity_list)?;
            let identity = Mappings::new(shape, &identity_list)?;
            let mut frames = MemblockFrames::new(memblock, geometry);
            // SAFETY: both lists map all of memblock's memory, the image with the root table included; TTBR0 has been
            // on the reserved table with nothing cached since the early identity map was left; this CPU is the only
            // one running, and all its code and data lie in TTBR1's half.
            unsafe {
                build_by_identity(
                    &layout,
                    &linear,
                    &identity,
                    root,
                    reserved,
                    &BUILDER_SLOTS,
                    fixmap,
                    cpu,
                    &mut frames,
                )
            }
        }
    }?;
    Ok((layout, built))
}

/// With `linmap.icount`, where the emulator executes one instruction a nanosecond, what part of a tick that is; nothing
/// when it is one whole tick.
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

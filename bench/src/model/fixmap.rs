//! The builder `base` on the model's board.

use std::time::Instant;

use anyhow::{Result, anyhow};
use linmap::{
    Builder, BuilderSlots, FixmapStep, ImageParts, LinearMapConfig, MappingLists, MemblockFrames, PageRanges,
};
use linmap_board::{Board, BoardFrames};
use linmap_memblock::Memblock;
use linmap_model::Event;
use linmap_model::event::{Access, Domain, Register};
use linmap_table::{Fixmap, Leaves, Reserved};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level, MemoryType, Pa, PaRange, TablePermissions, Va};

use super::checked::Checked;
use super::job::Job;
use crate::geometry::GEOMETRY;

/// Where the fixmap is.
const FIXMAP: Va = Va(0xffff_8000_bfe0_0000);
const TABLE: u64 = GEOMETRY.granule().bytes();
/// Tables that stand before the build begins: the root and the fixmap's at levels 1, 2 and 3.
const EARLY: [Level; 4] = [Level::L0, Level::L1, Level::L2, Level::L3];

/// Checks the build of `job`, whose early tables are the first frames of RAM.
pub(super) fn run(job: Job) -> Result<Checked> {
    let case = job.case();
    let ram = case.ram();
    let board = Board::new(&job.config(), false)?;
    let early = |nth: usize| Pa(ram.start.0 + nth as u64 * TABLE);
    turn_on(&board, early);

    let mut memblock = Box::new(Memblock::<4>::new());
    memblock.add(ram)?;
    memblock.reserve(PaRange::new(ram.start, early(EARLY.len())))?;
    let config = LinearMapConfig {
        geometry: GEOMETRY,
        image: ImageParts::default(),
        leaves: Leaves::Pages,
        pages: PageRanges::new(),
        tables: TablePermissions::UNRESTRICTED,
        memory: MemoryType::Normal,
        builder: Builder::Fixmap(FixmapStep::Base),
        slots: BuilderSlots { tables: [1, 2, 3, 4, 5], leaf_tables: 0..0 },
        root: early(0),
        // TTBR0 is off.
        reserved: Reserved { ttbr0: 0, tcr: 0 },
        bbm: BbmLevel::L0,
        layout: None,
    };
    let mut lists = MappingLists::<4>::new();
    let prepared = config.prepare([ram], &mut lists)?;
    // SAFETY: memblock has all that is in use on the board.
    let mut frames = BoardFrames::new(&board, unsafe { MemblockFrames::new(&mut memblock, GEOMETRY) });
    // SAFETY: the live table of the fixmap, empty since it was made.
    let mut fixmap = unsafe { Fixmap::new(GEOMETRY, board.pointer(early(3)), FIXMAP) };
    let mut cpu = board.cpu(0);

    let start = Instant::now();
    // SAFETY: as `turn_on` left the machine: TTBR1 leads to the first frame, and nothing else
    // uses the rest of RAM.
    let built = unsafe { prepared.build(&mut fixmap, &mut cpu, &mut frames)? }.built();
    board.event(Event::Settled);
    board.verdict().map_err(|violation| anyhow!("{violation}"))?;
    let time = start.elapsed();
    let events = board.with_machine(|machine| machine.events() as u64);
    Ok(Checked { events, time, table_bytes: built.tables * TABLE })
}

/// Writes the root table and the fixmap's tables below it, empty except for the links between them,
/// and sets TTBR1 to the root.
fn turn_on(board: &Board, early: impl Fn(usize) -> Pa) {
    for (nth, _) in EARLY.iter().enumerate() {
        board.event(Event::Fill { cpu: 0, pa: early(nth).0, count: TABLE / 8, first: 0, step: 0 });
    }
    for (nth, level) in EARLY.into_iter().enumerate().take(EARLY.len() - 1) {
        let pa = early(nth).0 + 8 * GEOMETRY.index(FIXMAP, level) as u64;
        let value = Descriptor::table(GEOMETRY, early(nth + 1)).0;
        board.event(Event::Store { cpu: 0, pa, value, via: None });
    }
    board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All });
    board.event(Event::Write { cpu: 0, register: Register::Ttbr1, value: early(0).0 });
    board.event(Event::Isb { cpu: 0 });
}

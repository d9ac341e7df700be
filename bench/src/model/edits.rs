//! Edits of a live map as a list of events.

use std::time::Instant;

use anyhow::{Result, anyhow};
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope};
use linmap_model::{Event, Machine, Violation};
use linmap_table::Leaves;
use linmap_vmsa::{Descriptor, Level, Pa};

use super::checked::Checked;
use super::job::Job;
use super::trace::{ENTRIES, TABLE, Takes, order_by, store_by};
use crate::case::Case;
use crate::geometry::GEOMETRY;

/// Makes edits event by event.
type Edits = fn(Case, &mut Machine) -> Result<(), Violation>;

/// `AP[2]`: read-only.
const READ_ONLY: u64 = 1 << 7;

/// Builds the map of `job` in pages, and checks `edits` of it, with all CPUs on it.
pub(super) fn run(job: Job, edits: Edits) -> Result<Checked> {
    let case = job.case();
    let mut machine = Machine::new(&job.config())?;
    let refused = |violation: Violation| anyhow!("{violation}");
    stand(job, &mut machine).map_err(refused)?;
    let before = machine.events() as u64;
    let start = Instant::now();
    edits(case, &mut machine).map_err(refused)?;
    let time = start.elapsed();
    Ok(Checked { events: machine.events() as u64 - before, time, table_bytes: case.table_bytes() })
}

/// Builds the map of `job` in pages, a table an event, and sets all CPUs on it.
pub(super) fn stand(job: Job, machine: &mut impl Takes) -> Result<(), Violation> {
    let case = job.case();
    let mapping = case.mapping(Leaves::Pages);
    let fill = |pa, first, step| Event::Fill { cpu: 0, pa, count: ENTRIES, first, step };
    let link = |to: u64| Descriptor::table(GEOMETRY, Pa(to)).0;
    let mut leaf = Descriptor::page(GEOMETRY, mapping.pa, mapping.attributes).0;
    let (root, level_1) = (root(case), root(case) + TABLE);
    machine.step(&fill(root, 0, 0))?;
    machine.step(&fill(level_1, 0, 0))?;
    for gib in 0..case.gib {
        let level_2 = level_2(case, gib);
        for index in 1..=ENTRIES {
            machine.step(&fill(level_2 + index * TABLE, leaf, TABLE))?;
            leaf += ENTRIES * TABLE;
        }
        machine.step(&fill(level_2, link(level_2 + TABLE), TABLE))?;
        machine.step(&store_by(0, level_1 + 8 * gib, link(level_2)))?;
    }
    machine.step(&store_by(0, root, link(level_1)))?;
    machine.step(&order_by(0))?;
    for cpu in 0..job.config().cpus {
        machine.step(&Event::Write { cpu, register: Register::Ttbr1, value: root })?;
        machine.step(&Event::Isb { cpu })?;
    }
    Ok(())
}

/// The tables: the root, level 1, and for each gigabyte level 2 and its
/// tables of pages.
fn root(case: Case) -> u64 {
    case.ram().end.0 - case.table_bytes()
}

/// The table of level 2 of gigabyte `gib`.
fn level_2(case: Case, gib: u64) -> u64 {
    root(case) + (2 + gib * (ENTRIES + 1)) * TABLE
}

/// Publishes `value` in the entry at `pa` and ends in what relies on it. With a TLBI in between, if
/// one is given.
fn publish(
    machine: &mut impl Takes,
    cpu: usize,
    (pa, value): (u64, u64),
    tlbi: Option<(TlbiScope, u64)>,
) -> Result<(), Violation> {
    machine.step(&store_by(cpu, pa, value))?;
    machine.step(&order_by(cpu))?;
    if let Some((scope, operand)) = tlbi {
        machine.step(&Event::Tlbi { cpu, tlbi: Tlbi { scope, broadcast: true }, operand })?;
        machine.step(&Event::Dsb { cpu, domain: Domain::Ish, access: Access::All })?;
    }
    machine.step(&Event::Isb { cpu })
}

/// Changes the page at `va`, whose entry is at `pa`.
fn change(machine: &mut impl Takes, cpu: usize, (pa, leaf): (u64, u64), va: u64) -> Result<(), Violation> {
    let page = (TlbiScope::VaAnyAsidLast, va >> 12 & 0xfff_ffff_ffff);
    publish(machine, cpu, (pa, leaf), Some(page))?;
    machine.step(&Event::Settled)
}

/// Every page becomes read-only, one by one.
pub(super) fn protect(case: Case, machine: &mut impl Takes) -> Result<(), Violation> {
    let mapping = case.mapping(Leaves::Pages);
    let mut leaf = Descriptor::page(GEOMETRY, mapping.pa, mapping.attributes).0 | READ_ONLY;
    let mut va = mapping.va.0;
    for gib in 0..case.gib {
        for table in (0..ENTRIES).map(|index| level_2(case, gib) + (1 + index) * TABLE) {
            for index in 0..ENTRIES {
                change(machine, 0, (table + 8 * index, leaf), va)?;
                leaf += TABLE;
                va = va.wrapping_add(TABLE);
            }
        }
    }
    Ok(())
}

/// What is mapped by block `nth` of a map, and by what.
struct Block {
    va: u64,
    /// The entry at level 2.
    entry: u64,
    /// The table of pages.
    table: u64,
    /// The block's descriptor.
    block: u64,
    /// The first page's.
    page: u64,
}

impl Block {
    fn of(case: Case, nth: u64) -> Self {
        let mapping = case.mapping(Leaves::Pages);
        let (level_2, index) = (level_2(case, nth / ENTRIES), nth % ENTRIES);
        let bytes = nth * ENTRIES * TABLE;
        let block = Descriptor::leaf(GEOMETRY, Level::L2, mapping.pa, mapping.attributes);
        Self {
            va: mapping.va.0.wrapping_add(bytes),
            entry: level_2 + 8 * index,
            table: level_2 + (1 + index) * TABLE,
            block: block.expect("level 2 has blocks").0 + bytes,
            page: Descriptor::page(GEOMETRY, mapping.pa, mapping.attributes).0 + bytes,
        }
    }

    /// The table of pages becomes a block, and its frame is freed.
    fn fold(&self, machine: &mut impl Takes, cpu: usize) -> Result<(), Violation> {
        // (NUM + 1) << (5 * SCALE + 1) pages of 4K.
        let range = self.va >> 12 & 0x1f_ffff_ffff | 7 << 39 | 1 << 44 | 0b01 << 46;
        publish(machine, cpu, (self.entry, self.block), Some((TlbiScope::RangeAnyAsid, range)))?;
        machine.step(&Event::Free { pa: self.table, len: TABLE })?;
        machine.step(&Event::Settled)
    }

    /// The block becomes a table of pages in the same frame, which one event fills.
    fn split(&self, machine: &mut impl Takes, cpu: usize) -> Result<(), Violation> {
        machine.step(&Event::Fill { cpu, pa: self.table, count: ENTRIES, first: self.page, step: TABLE })?;
        machine.step(&order_by(cpu))?;
        let link = Descriptor::table(GEOMETRY, Pa(self.table)).0;
        publish(machine, cpu, (self.entry, link), None)?;
        machine.step(&Event::Settled)
    }
}

/// Every table of pages becomes a block, then every block a table of pages.
pub(super) fn resize(case: Case, machine: &mut impl Takes) -> Result<(), Violation> {
    let blocks = 0..case.gib * ENTRIES;
    blocks.clone().try_for_each(|nth| Block::of(case, nth).fold(machine, 0))?;
    blocks.clone().try_for_each(|nth| Block::of(case, nth).split(machine, 0))
}

/// What a kernel does with a block while it runs, by one CPU after the other: the table of pages is
/// folded and split again, and 16 of its pages become read-only and writable again.
pub(super) fn mixed(case: Case, machine: &mut impl Takes) -> Result<(), Violation> {
    for nth in 0..case.gib * ENTRIES {
        let block = Block::of(case, nth);
        block.fold(machine, nth as usize % 4)?;
        block.split(machine, (nth + 1) as usize % 4)?;
        for read_only in [READ_ONLY, 0] {
            for page in (0..16).map(|at| (29 * at + nth) % ENTRIES) {
                let at = (block.table + 8 * page, (block.page + TABLE * page) | read_only);
                change(machine, page as usize % 4, at, block.va.wrapping_add(TABLE * page))?;
            }
        }
    }
    Ok(())
}

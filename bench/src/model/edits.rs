//! Edits of a live map as a list of events.

use std::time::Instant;

use anyhow::{Result, anyhow};
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope};
use linmap_model::{Event, Machine, Violation};
use linmap_table::Leaves;
use linmap_vmsa::{Descriptor, Level, Pa};

use super::checked::Checked;
use super::job::Job;
use super::trace::{ENTRIES, ORDER, TABLE, live, store};
use crate::case::Case;
use crate::geometry::GEOMETRY;

/// Makes edits event by event.
type Edits = fn(Case, &mut Machine) -> Result<(), Violation>;

const WAIT: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All };
const ISB: Event = Event::Isb { cpu: 0 };
/// `AP[2]`: read-only.
const READ_ONLY: u64 = 1 << 7;

/// Builds the map of `job` in pages, and checks `edits` of it, with all CPUs on it.
pub(super) fn run(job: Job, edits: Edits) -> Result<Checked> {
    let case = job.case();
    let config = job.config();
    let mut machine = Machine::new(&config)?;
    let refused = |violation: Violation| anyhow!("{violation}");
    live(case, &mut machine).map_err(refused)?;
    for cpu in 1..config.cpus {
        machine.step(&Event::Write { cpu, register: Register::Ttbr1, value: root(case) }).map_err(refused)?;
        machine.step(&Event::Isb { cpu }).map_err(refused)?;
    }
    let before = machine.events() as u64;
    let start = Instant::now();
    edits(case, &mut machine).map_err(refused)?;
    let time = start.elapsed();
    Ok(Checked { events: machine.events() as u64 - before, time, table_bytes: case.table_bytes() })
}

/// The tables as [`live`] places them: the root, level 1, and for each gigabyte level 2 and its
/// tables of pages.
fn root(case: Case) -> u64 {
    case.ram().end.0 - case.table_bytes()
}

/// The table of level 2 of gigabyte `gib`.
fn level_2(case: Case, gib: u64) -> u64 {
    root(case) + (2 + gib * (ENTRIES + 1)) * TABLE
}

fn tlbi(scope: TlbiScope, operand: u64) -> Event {
    Event::Tlbi { cpu: 0, tlbi: Tlbi { scope, broadcast: true }, operand }
}

/// Every page becomes read-only, one by one.
pub(super) fn protect(case: Case, machine: &mut Machine) -> Result<(), Violation> {
    let mapping = case.mapping(Leaves::Pages);
    let mut leaf = Descriptor::leaf(GEOMETRY, Level::L3, mapping.pa, mapping.attributes).0 | READ_ONLY;
    let mut va = mapping.va.0;
    for gib in 0..case.gib {
        for table in (0..ENTRIES).map(|index| level_2(case, gib) + (1 + index) * TABLE) {
            for index in 0..ENTRIES {
                machine.step(&store(table + 8 * index, leaf))?;
                machine.step(&ORDER)?;
                machine.step(&tlbi(TlbiScope::VaAnyAsidLast, va >> 12 & 0xfff_ffff_ffff))?;
                machine.step(&WAIT)?;
                machine.step(&ISB)?;
                machine.step(&Event::Settled)?;
                leaf += TABLE;
                va = va.wrapping_add(TABLE);
            }
        }
    }
    Ok(())
}

/// Every table of pages becomes a block, then every block a table of pages in the same frame, which
/// one event fills.
pub(super) fn resize(case: Case, machine: &mut Machine) -> Result<(), Violation> {
    let mapping = case.mapping(Leaves::Pages);
    let block = Descriptor::leaf(GEOMETRY, Level::L2, mapping.pa, mapping.attributes).0;
    let page = Descriptor::leaf(GEOMETRY, Level::L3, mapping.pa, mapping.attributes).0;
    let bytes = ENTRIES * TABLE;
    let places = |nth: u64| {
        let (level_2, index) = (level_2(case, nth / ENTRIES), nth % ENTRIES);
        (level_2 + 8 * index, level_2 + (1 + index) * TABLE)
    };
    let blocks = 0..case.gib * ENTRIES;
    for nth in blocks.clone() {
        let (entry, table) = places(nth);
        let va = mapping.va.0.wrapping_add(nth * bytes);
        machine.step(&store(entry, block + nth * bytes))?;
        machine.step(&ORDER)?;
        // (NUM + 1) << (5 * SCALE + 1) pages of 4K.
        let range = va >> 12 & 0x1f_ffff_ffff | 7 << 39 | 1 << 44 | 0b01 << 46;
        machine.step(&tlbi(TlbiScope::RangeAnyAsid, range))?;
        machine.step(&WAIT)?;
        machine.step(&ISB)?;
        machine.step(&Event::Free { pa: table, len: TABLE })?;
        machine.step(&Event::Settled)?;
    }
    for nth in blocks {
        let (entry, table) = places(nth);
        let first = page + nth * bytes;
        machine.step(&Event::Fill { cpu: 0, pa: table, count: ENTRIES, first, step: TABLE })?;
        machine.step(&ORDER)?;
        machine.step(&store(entry, Descriptor::table(GEOMETRY, Pa(table)).0))?;
        machine.step(&ORDER)?;
        machine.step(&ISB)?;
        machine.step(&Event::Settled)?;
    }
    Ok(())
}

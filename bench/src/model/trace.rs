//! The map as a list of events.

use std::time::Instant;

use anyhow::{Result, anyhow};
use linmap_model::event::{Access, Domain, Register, Use};
use linmap_model::{Event, Machine, Violation};
use linmap_table::Leaves;
use linmap_vmsa::{Descriptor, Pa};

use super::checked::Checked;
use super::job::Job;
use crate::case::Case;
use crate::geometry::GEOMETRY;

/// Bytes and entries of a table.
pub(super) const TABLE: u64 = GEOMETRY.granule().bytes();
pub(super) const ENTRIES: u64 = GEOMETRY.granule().entries() as u64;

/// Who takes the events of a trace, one by one.
pub(super) trait Takes {
    /// Takes the next event.
    fn step(&mut self, event: &Event) -> Result<(), Violation>;
}

impl Takes for Machine {
    fn step(&mut self, event: &Event) -> Result<(), Violation> {
        Self::step(self, event)
    }
}

/// Makes a trace event by event.
type Trace = fn(Case, &mut Machine) -> Result<(), Violation>;

/// Checks the map of `job` as `trace` builds it, its tables in the last frames of RAM.
pub(super) fn run(job: Job, trace: Trace) -> Result<Checked> {
    let case = job.case();
    let mut machine = Machine::new(&job.config())?;
    let start = Instant::now();
    let legal = trace(case, &mut machine);
    let time = start.elapsed();
    legal.and_then(|()| reaches_the_ends(case, &mut machine)).map_err(|violation| anyhow!("{violation}"))?;
    // `reaches_the_ends` adds two accesses, which are not part of the trace.
    Ok(Checked { events: machine.events() as u64 - 2, time, table_bytes: case.table_bytes() })
}

/// Whether the first page and the last are where they should be.
fn reaches_the_ends(case: Case, machine: &mut Machine) -> Result<(), Violation> {
    let mapping = case.mapping(Leaves::Pages);
    for offset in [0, mapping.len - TABLE] {
        let (va, pa) = (mapping.va.0 + offset, mapping.pa.0 + offset);
        machine.step(&Event::Access { cpu: 0, va, kind: Use::Write, pa })?;
    }
    Ok(())
}

/// In the order of the raw stores: all leaf tables, then the tables above, the root last; then the
/// barriers.
pub(super) fn straight(case: Case, machine: &mut impl Takes) -> Result<(), Violation> {
    let mapping = case.mapping(Leaves::Pages);
    let mut first = Descriptor::page(GEOMETRY, mapping.pa, mapping.attributes).0;
    let mut apart = TABLE;
    let mut count = case.entries();
    let mut row = case.ram().end.0 - case.table_bytes();
    loop {
        let tables = count.div_ceil(ENTRIES);
        for index in 0..tables * ENTRIES {
            let value = if index < count { first + index * apart } else { 0 };
            machine.step(&store(row + 8 * index, value))?;
        }
        if row + tables * TABLE == case.ram().end.0 {
            break;
        }
        first = Descriptor::table(GEOMETRY, Pa(row)).0;
        apart = TABLE;
        count = tables;
        row += tables * TABLE;
    }
    machine.step(&ORDER)?;
    turn_on(row, machine)?;
    machine.step(&Event::Settled)
}

/// From the root down: every table is zeroed, ordered and linked, and filled when it is walked
/// already.
pub(super) fn live<T: Takes>(case: Case, machine: &mut T) -> Result<(), Violation> {
    let mapping = case.mapping(Leaves::Pages);
    let mut free = (case.ram().end.0 - case.table_bytes()..).step_by(TABLE as usize);
    let mut empty = |machine: &mut T| {
        let table = free.next().unwrap_or_else(|| unreachable!("the range of addresses is open"));
        machine.step(&Event::Fill { cpu: 0, pa: table, count: ENTRIES, first: 0, step: 0 })?;
        machine.step(&ORDER)?;
        Ok::<_, Violation>(table)
    };
    let link =
        |table: u64, index: u64, to: u64| store(table + 8 * index, Descriptor::table(GEOMETRY, Pa(to)).0);
    let root = empty(machine)?;
    turn_on(root, machine)?;
    let level_1 = empty(machine)?;
    machine.step(&link(root, 0, level_1))?;
    let mut leaf = Descriptor::page(GEOMETRY, mapping.pa, mapping.attributes).0;
    for index_1 in 0..case.gib {
        let level_2 = empty(machine)?;
        machine.step(&link(level_1, index_1, level_2))?;
        for index_2 in 0..ENTRIES {
            let level_3 = empty(machine)?;
            machine.step(&link(level_2, index_2, level_3))?;
            for index_3 in 0..ENTRIES {
                machine.step(&store(level_3 + 8 * index_3, leaf))?;
                leaf += TABLE;
            }
        }
    }
    machine.step(&ORDER)?;
    machine.step(&Event::Isb { cpu: 0 })?;
    machine.step(&Event::Settled)
}

/// DSB ISHST.
const ORDER: Event = order_by(0);

/// DSB ISHST of `cpu`.
pub(super) const fn order_by(cpu: usize) -> Event {
    Event::Dsb { cpu, domain: Domain::Ish, access: Access::Stores }
}

fn store(pa: u64, value: u64) -> Event {
    store_by(0, pa, value)
}

pub(super) const fn store_by(cpu: usize, pa: u64, value: u64) -> Event {
    Event::Store { cpu, pa, value, via: None }
}

/// TTBR1 on `root`.
fn turn_on(root: u64, machine: &mut impl Takes) -> Result<(), Violation> {
    machine.step(&Event::Write { cpu: 0, register: Register::Ttbr1, value: root })?;
    machine.step(&Event::Isb { cpu: 0 })
}

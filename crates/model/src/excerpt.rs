//! What of a long trace may take part in a violation.
//!
//! A witness is found by running shorter and shorter traces, so all events have to be in memory. Of
//! a trace of many millions only those are wanted that can have to do with the violation: stores to
//! the entries that a walk for its address reads, and what orders, completes and synchronizes them.
//! Whether they show the violation is seen by running them: the choice is no proof.

use linmap_trace::{Access, Domain, Event, Register};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::cached::run_shift;
use crate::config::Config;
use crate::culprit::Culprit;
use crate::descriptor::{Entry, read};
use crate::machine::{Machine, NO_TABLE, Root};
use crate::scope::{Context, Scope};
use crate::space::{SPACES, Shape, Space};
use crate::trace::Trace;
use crate::violation::Violation;

/// The TLBIs of other addresses that are kept: those nearest to the violation.
const MOST: usize = 64;

/// The kept events up to which a DSB is kept because it may have been meant for what is held.
const FEW: usize = 1 << 10;

/// The events before a tree was left that may be misplaced invalidations of it.
const BEFORE: usize = 256;

/// A use of a frame as a table.
#[derive(Clone, Copy, Debug)]
struct Table {
    level: i8,
    va: u64,
    shape: Shape,
    space: Space,
}

/// The events of a trace that may take part in a violation.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The events. Whether they show the violation is seen by running them.
    pub trace: Trace,
    /// The number of each in the whole trace; `None` for zeros that stand for entries left out, and
    /// for what sums up earlier events.
    pub numbers: Vec<Option<usize>>,
    /// The last store to each entry that a walk for the address reads, for
    /// [`Trace::witness_with`].
    pub shown: Vec<usize>,
    /// How many TLBIs of other addresses are left out.
    pub left_out: usize,
}

/// Which entries may take part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breadth {
    /// Those that a walk for the violation's address reads.
    Walk,
    /// Also those that may be in a contiguous run with the last of them.
    LastRun,
    /// Also those that may be in a contiguous run with any of them.
    Runs,
}

impl Breadth {
    /// All, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Walk, Self::LastRun, Self::Runs];
}

/// Chooses the events that may take part in a violation, from the first event of the trace to the
/// one that broke the rule.
#[derive(Debug)]
pub struct Excerpt {
    violation: Violation,
    breadth: Breadth,
    /// The level of the last table of the walk.
    deepest: i8,
    /// The addresses whose invalidations take part.
    near: (u64, u64),
    shapes: [Shape; SPACES],
    /// Per CPU: whether EL1's TLBIs are for EL2&0.
    hosts: Vec<bool>,
    granule: u64,
    cpus: usize,
    /// The machine's memory: start and length of each range.
    ram: Vec<(u64, u64)>,
    /// The tables that a walk for the violation's address may read, by their first bytes.
    tables: FxHashMap<u64, Vec<Table>>,
    /// Pages with content that is known: it was filled, with zeros if need be.
    known: FxHashSet<u64>,
    /// The first event whose invalidations may have missed.
    since: usize,
    /// Per CPU: stores and TLBIs that wait for a DSB, and whether anything was kept since its last
    /// ISB.
    pending: Vec<Pending>,
    kept: Vec<(Option<usize>, Event)>,
    /// By entries that a walk for the violation's address reads: the last store to each, by its
    /// place in `kept`.
    stores: FxHashMap<u64, usize>,
    /// TLBIs of other addresses: how far they lie, and their numbers.
    far: Vec<(u64, usize, Event)>,
    left_out: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    stores: bool,
    tlbis: bool,
    context: bool,
}

impl Machine {
    /// The choice of events for `violation`, which this machine has just found.
    pub fn excerpt(&self, violation: &Violation, breadth: Breadth) -> Excerpt {
        let mut tables: FxHashMap<u64, Vec<Table>> = FxHashMap::default();
        for (&base, uses) in &self.tables {
            for at in uses {
                let Root { shape, space, .. } = self.roots[at.root as usize];
                let last =
                    at.va | ((shape.entries(at.level) as u64) << shape.shift(at.level)).wrapping_sub(1);
                let is_root = at.level == shape.start;
                if violation.va.map_or(is_root, |va| at.va <= va && va <= last) {
                    let table = Table { level: at.level, va: at.va, shape, space };
                    tables.entry(base).or_default().push(table);
                }
            }
        }
        // A tree that was left for good took the place of another.
        for &Root { space, shape, table, .. } in &self.roots {
            let uses = tables.entry(table).or_default();
            if table != NO_TABLE && uses.is_empty() && violation.va.is_none_or(|va| shape.holds(space, va)) {
                uses.push(Table { level: shape.start, va: shape.base(space), shape, space });
            }
        }
        tables.retain(|_, uses| !uses.is_empty());
        let since = Culprit::since(self, violation).map_or(usize::MAX, |since| since.saturating_sub(BEFORE));
        let va = violation.va.unwrap_or(0);
        let deepest = tables.values().flatten().map(|at| at.level).max().unwrap_or(3);
        let around = |at: &Table| match breadth {
            Breadth::Walk => 0,
            Breadth::LastRun => (1u64 << run_shift(at.shape, deepest)) - 1,
            // Blocks of level 2 may be in runs, too.
            Breadth::Runs => (1u64 << run_shift(at.shape, 2)) - 1,
        };
        let around = tables.values().flatten().map(around).max().unwrap_or(0);
        Excerpt {
            violation: *violation,
            breadth,
            deepest,
            near: (va & !around, va | around),
            shapes: self.shapes,
            hosts: (0..self.cpus.len()).map(|cpu| self.is_host(cpu)).collect(),
            granule: self.config.granule,
            cpus: self.cpus.len(),
            ram: self.config.ram.clone(),
            tables,
            known: FxHashSet::default(),
            since,
            pending: vec![Pending::default(); self.cpus.len()],
            kept: Vec::new(),
            stores: FxHashMap::default(),
            far: Vec::new(),
            left_out: 0,
        }
    }
}

impl Excerpt {
    /// The entries that may take part, by their physical addresses, in ascending order.
    pub fn entries(&self) -> Vec<u64> {
        let mut found = Vec::new();
        for (&base, uses) in &self.tables {
            for at in uses {
                let Some(va) = self.violation.va else { continue };
                let run = if self.has_runs(at) { at.shape.run(at.level).max(1) as u64 } else { 1 };
                let first = (va.wrapping_sub(at.va) >> at.shape.shift(at.level)) & !(run - 1);
                let last = (first + run).min(at.shape.entries(at.level) as u64);
                found.extend((first..last).map(|index| base + 8 * index));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds `event`, which sums up what came before the first event added.
    pub fn add_summary(&mut self, event: &Event) {
        self.make_known(event);
        match *event {
            Event::Write { register, value, .. } if !self.is_needed(register, value) => {}
            Event::Store { .. } => {
                let before = self.kept.len();
                self.store_entry(0, *event);
                for kept in self.kept.iter_mut().skip(before) {
                    kept.0 = None;
                }
            }
            _ => self.kept.push((None, *event)),
        }
    }

    /// Whether the word at `pa` is an entry that a walk for the violation's address may read, or
    /// that shares a contiguous run with one.
    pub fn is_entry(&self, pa: u64) -> bool {
        self.table_of(pa).is_some_and(|(base, uses)| {
            uses.iter().any(|at| {
                let first = at.va + (((pa - base) / 8) << at.shape.shift(at.level));
                let shift =
                    if self.has_runs(at) { run_shift(at.shape, at.level) } else { at.shape.shift(at.level) };
                self.violation.va.is_some_and(|va| first >> shift == va >> shift)
            })
        })
    }

    /// Whether the entries in runs of a table take part.
    fn has_runs(&self, at: &Table) -> bool {
        match self.breadth {
            Breadth::Walk => false,
            Breadth::LastRun => at.level == self.deepest,
            Breadth::Runs => true,
        }
    }

    /// Whether a walk for the violation's address reads the word at `pa`.
    fn is_on_walk(&self, pa: u64) -> bool {
        self.table_of(pa).is_some_and(|(base, uses)| {
            uses.iter().any(|at| {
                let shift = at.shape.shift(at.level);
                self.violation
                    .va
                    .is_some_and(|va| va >> shift == (at.va + (((pa - base) / 8) << shift)) >> shift)
            })
        })
    }

    fn table_of(&self, pa: u64) -> Option<(u64, &Vec<Table>)> {
        let regular = pa & !(self.granule - 1);
        if let Some(uses) = self.tables.get(&regular) {
            return Some((regular, uses));
        }
        // Roots may be smaller than a granule, or larger.
        self.tables.iter().find_map(|(&base, uses)| {
            let bytes = |at: &Table| 8 * at.shape.entries(at.level) as u64;
            let end = uses.iter().map(bytes).max().unwrap_or(0);
            (base <= pa && pa - base < end).then_some((base, uses))
        })
    }

    /// Adds `event`, which has the `number` in the trace and comes after those added before.
    /// Returns whether it may take part.
    pub fn add(&mut self, number: usize, event: &Event) -> bool {
        let before = (self.kept.len(), self.far.len(), self.left_out);
        self.choose(number, event);
        before != (self.kept.len(), self.far.len(), self.left_out)
    }

    fn choose(&mut self, number: usize, event: &Event) {
        if number == self.violation.event {
            self.make_known(event);
            self.kept.push((Some(number), *event));
            return;
        }
        match *event {
            Event::Store { cpu, pa, value, .. } => {
                self.make_known(event);
                self.store_entry(number, Event::Store { cpu, pa, value, via: None });
            }
            Event::Update { cpu, pa, value, old, .. } => {
                self.make_known(event);
                self.store_entry(number, Event::Update { cpu, pa, value, old, via: None });
            }
            Event::Fill { cpu, pa, count, first, step } => self.fill(number, cpu, (pa, count, first, step)),
            Event::Dsb { cpu, domain, access } => self.dsb(number, cpu, domain, access),
            Event::Isb { cpu } => {
                if std::mem::take(&mut self.pending[cpu].context) {
                    self.kept.push((Some(number), *event));
                }
            }
            Event::Tlbi { cpu, tlbi, operand } => {
                let is_host = self.hosts.get(cpu).copied().unwrap_or(false);
                let scope = Scope::of(tlbi, operand, &self.shapes, Context { is_host, vmid: None });
                match (scope.range, self.violation.va) {
                    (Some((first, last)), Some(va)) if !scope.touches(self.near.0, self.near.1) => {
                        if number >= self.since {
                            self.far.push((first.abs_diff(va).min(last.abs_diff(va)), number, *event));
                            if self.far.len() > 64 * MOST {
                                self.drop_far();
                            }
                        }
                    }
                    _ => {
                        self.pending[cpu] = Pending { tlbis: true, context: true, ..self.pending[cpu] };
                        self.kept.push((Some(number), *event));
                    }
                }
            }
            Event::Write { register, value, .. } => {
                if self.is_needed(register, value) {
                    self.changed();
                    self.kept.push((Some(number), *event));
                }
            }
            Event::Uses { va, len, .. } | Event::Unuses { va, len, .. } => {
                if self.violation.va.is_some_and(|at| at.wrapping_sub(va) < len) {
                    self.kept.push((Some(number), *event));
                }
            }
            Event::Free { pa, len } => {
                let pages = (pa..pa.saturating_add(len)).step_by(linmap_trace::PAGE as usize);
                let mut any = false;
                for page in pages.take(1 << 20) {
                    any |=
                        self.known.remove(&page) || self.violation.pa.is_some_and(|pa| pa & !0xfff == page);
                }
                if any {
                    self.kept.push((Some(number), *event));
                }
            }
            Event::Dmb { .. } | Event::Release { .. } | Event::Acquire { .. } => {
                if self.kept.len() < FEW {
                    self.kept.push((Some(number), *event));
                }
            }
            // They leave everything as it is.
            Event::Access { .. }
            | Event::Faults { .. }
            | Event::Thread { .. }
            | Event::User { .. }
            | Event::Settled => {}
        }
    }

    /// Fills the page that `event` stores to with zeros before the first store to it, in place of
    /// the stores to entries that take no part.
    fn make_known(&mut self, event: &Event) {
        let Some((pa, Some(_))) = event.memory() else { return };
        let Some(cpu) = event.cpu() else { return };
        let page = pa & !0xfff;
        if self.table_of(pa).is_some() && self.known.insert(page) {
            self.pending[cpu] = Pending { stores: true, context: true, ..self.pending[cpu] };
            self.kept.push((None, Event::Fill { cpu, pa: page, count: 512, first: 0, step: 0 }));
        }
    }

    /// Adds the store of an entry. One that leads to a table which takes no part is replaced by an
    /// invalid entry.
    fn store_entry(&mut self, number: usize, event: Event) {
        let (Event::Store { cpu, pa, value, .. } | Event::Update { cpu, pa, value, .. }) = event else {
            return;
        };
        if !self.is_entry(pa) {
            return;
        }
        let on_walk = self.is_on_walk(pa);
        // A table outside memory is a mistake by itself.
        let is_ram = |pa: u64| self.ram.iter().any(|(start, len)| pa.wrapping_sub(*start) < *len);
        let leads_away = |at: &Table| match read(at.shape, at.space, at.level, value) {
            Entry::Table(next) => !on_walk || is_ram(next) && !self.tables.contains_key(&next),
            Entry::Leaf(_) | Entry::Invalid => false,
        };
        if self.table_of(pa).is_some_and(|(_, uses)| uses.iter().any(leads_away)) {
            self.pending[cpu].stores = true;
            self.changed();
            self.kept.push((None, Event::Store { cpu, pa, value: 0, via: None }));
        } else {
            self.store(number, cpu, event);
        }
    }

    fn store(&mut self, number: usize, cpu: usize, event: Event) {
        if let Some((pa, _)) = event.memory()
            && self.is_on_walk(pa)
        {
            self.stores.insert(pa, self.kept.len());
        }
        self.pending[cpu].stores = true;
        self.changed();
        self.kept.push((Some(number), event));
    }

    /// Something changed that other CPUs may have to notice, too.
    fn changed(&mut self) {
        for pending in &mut self.pending {
            pending.context = true;
        }
    }

    fn fill(&mut self, number: usize, cpu: usize, (pa, count, first, step): (u64, u64, u64, u64)) {
        let (mut at, mut value, mut left) = (pa, first, count.min(1 << 20));
        while left > 0 {
            let words = ((0x1000 - at % 0x1000) / 8).min(left);
            if self.table_of(at).is_some() {
                let is_page = at % 0x1000 == 0 && words == 512;
                if is_page && (value, step) == (0, 0) {
                    self.known.insert(at);
                    self.store(number, cpu, Event::Fill { cpu, pa: at, count: words, first: value, step });
                } else {
                    self.make_known(&Event::Fill { cpu, pa: at, count: words, first: value, step });
                    // The entries that take part.
                    for nth in 0..words {
                        let value = value.wrapping_add(step.wrapping_mul(nth));
                        self.store_entry(number, Event::Store { cpu, pa: at + 8 * nth, value, via: None });
                    }
                }
            }
            at += 8 * words;
            value = value.wrapping_add(step.wrapping_mul(words));
            left -= words;
        }
    }

    fn dsb(&mut self, number: usize, cpu: usize, domain: Domain, access: Access) {
        let pending = self.pending[cpu];
        let orders = domain != Domain::Nsh || self.cpus == 1;
        // Every DSB that may have been meant for what is held is kept, as long as there are few.
        let meant = number >= self.since && self.kept.len() < FEW;
        if !(pending.stores || pending.tlbis || meant) {
            return;
        }
        self.pending[cpu].stores &= !orders;
        self.pending[cpu].tlbis &= !(access == Access::All && orders);
        self.changed();
        self.kept.push((Some(number), Event::Dsb { cpu, domain, access }));
    }

    fn drop_far(&mut self) {
        self.far.sort_unstable_by_key(|&(distance, number, _)| (distance, number));
        self.left_out += self.far.len().saturating_sub(MOST);
        self.far.truncate(MOST);
    }

    /// The chosen events as a trace of `machine`.
    pub fn finish(mut self, machine: &Config) -> Chosen {
        self.drop_far();
        let stores: FxHashSet<usize> = self.stores.values().copied().collect();
        let mut numbered: Vec<(usize, bool, Option<usize>, Event)> = Vec::new();
        let mut last = 0;
        for (nth, (number, event)) in self.kept.into_iter().enumerate() {
            last = number.unwrap_or(last);
            numbered.push((last, stores.contains(&nth), number, event));
        }
        numbered.extend(self.far.iter().map(|&(_, number, event)| (number, false, Some(number), event)));
        numbered.sort_by_key(|&(at, ..)| at);
        let shown =
            numbered.iter().enumerate().filter(|(_, (_, shown, ..))| *shown).map(|(nth, _)| nth).collect();
        let numbers = numbered.iter().map(|&(.., number, _)| number).collect();
        let events = numbered.into_iter().map(|(.., event)| event).collect();
        Chosen { trace: Trace { config: machine.clone(), events }, numbers, shown, left_out: self.left_out }
    }

    /// Whether `register` says how tables are read, or names with `value` one that may take part.
    fn is_needed(&self, register: Register, value: u64) -> bool {
        let (plain, wide) = (value & 0xffff_ffff_fffe, value & 0xffff_ffff_ffc0 | (value >> 2 & 0xf) << 48);
        match register {
            Register::Tcr
            | Register::Mair
            | Register::Vtcr
            | Register::Hcr
            | Register::TcrEl2
            | Register::MairEl2
            | Register::TcrEl3
            | Register::MairEl3
            | Register::Sctlr
            | Register::SctlrEl2
            | Register::SctlrEl3 => true,
            Register::Ttbr0
            | Register::Ttbr1
            | Register::Ttbr0El2
            | Register::Ttbr1El2
            | Register::Ttbr0El3
            | Register::Vttbr => self.tables.contains_key(&plain) || self.tables.contains_key(&wide),
        }
    }
}

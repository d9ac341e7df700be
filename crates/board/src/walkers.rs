//! CPUs that access memory while code under test edits their tables: they fill TLBs, and update
//! leaves as hardware does.

use std::collections::BTreeSet;

use linmap_model::Machine;
use linmap_trace::{Access, Domain, Event, Register};
use linmap_vmsa::{Decoded, Descriptor, Geometry, HardwareUpdates, Pa, Va, VaRange};

use crate::memory::Memory;

/// `AP[2]` of stage 1, `S2AP[1]` of stage 2.
const WRITABLE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 10;
const DBM: u64 = 1 << 51;
const VALID: u64 = 1;

/// What walkers may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accesses {
    /// Read and write.
    All,
    /// Walk, as for a read that is speculative: nobody accesses the memory.
    Speculative,
}

/// The tree that walkers use, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The geometry of the tree.
    pub geometry: Geometry,
    /// Its root.
    pub root: Pa,
    /// The register that holds the root.
    pub register: Register,
    /// What hardware updates.
    pub updates: HardwareUpdates,
    /// The addresses that are accessed.
    pub range: VaRange,
}

/// An entry of a TLB.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The first address, and the last.
    first: u64,
    last: u64,
    /// Whether a write needs no update.
    is_written: bool,
    /// The descriptor, and where it was found.
    value: u64,
    pa: u64,
}

/// A CPU that uses the tree.
#[derive(Clone, Debug, Default)]
struct Walker {
    held: Vec<Held>,
    /// The register of the tree holds another root.
    is_away: bool,
}

/// CPUs that access memory through a tree, at random. A TLB keeps what it has until an invalidation
/// is complete, whatever that names: the machine judges what invalidations remove.
#[derive(Clone, Debug)]
pub struct Walkers {
    walk: Walk,
    accesses: Accesses,
    random: u64,
    walkers: Vec<Walker>,
    /// Whether a TLBI was issued since the last DSB.
    is_invalidating: bool,
    accessed: BTreeSet<Va>,
    written: BTreeSet<Va>,
}

impl Walkers {
    /// Returns `cpus` CPUs that use `walk`. The same `seed` leads to the same accesses.
    pub fn new(walk: Walk, cpus: usize, seed: u64) -> Self {
        Self {
            walk,
            accesses: Accesses::All,
            random: seed | 1,
            walkers: vec![Walker::default(); cpus],
            is_invalidating: false,
            accessed: BTreeSet::new(),
            written: BTreeSet::new(),
        }
    }

    /// From now on walkers do this.
    pub fn set_accesses(&mut self, accesses: Accesses) {
        self.accesses = accesses;
    }

    /// The pages that were accessed.
    pub fn accessed(&mut self) -> &mut BTreeSet<Va> {
        &mut self.accessed
    }

    /// The pages that were written.
    pub fn written(&mut self) -> &mut BTreeSet<Va> {
        &mut self.written
    }

    /// A random number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % end
    }

    /// Notes what an event does to TLBs.
    pub(crate) fn note(&mut self, event: &Event) {
        match *event {
            Event::Tlbi { tlbi, .. } if tlbi.broadcast => self.is_invalidating = true,
            Event::Dsb { domain: Domain::Ish, access: Access::All, .. } if self.is_invalidating => {
                self.is_invalidating = false;
                self.walkers.iter_mut().for_each(|walker| walker.held.clear());
            }
            Event::Write { cpu, register, value } if register == self.walk.register => {
                let walker = &mut self.walkers[cpu];
                walker.is_away = value & 0x0000_ffff_ffff_f000 != self.walk.root.0;
                // What it holds it may hold until the invalidation, but it uses another tree.
                walker.held.clear();
            }
            _ => {}
        }
    }

    /// Accesses memory a few times, or not at all.
    pub(crate) fn access(&mut self, machine: &mut Machine, memory: &mut Memory) {
        for _ in 0..self.below(4) {
            let cpu = self.below(self.walkers.len() as u64) as usize;
            let pages = self.walk.range.len / self.walk.geometry.granule().bytes();
            // Often near each other, and near the ends of large leaves.
            let page = match self.below(3) {
                0 => self.below(pages),
                1 => self.below(64.min(pages)),
                _ => self.below(pages) & !0xf | self.below(2),
            } % pages;
            let va = Va(self.walk.range.start.0 + page * self.walk.geometry.granule().bytes());
            let writes = self.accesses == Accesses::All && self.below(2) == 0;
            if !self.walkers[cpu].is_away {
                self.access_page(machine, memory, cpu, va, writes);
            }
        }
    }

    /// As [`access`](Self::access), one time in eight.
    pub(crate) fn access_at_times(&mut self, machine: &mut Machine, memory: &mut Memory) {
        if self.below(8) == 0 {
            self.access(machine, memory);
        }
    }

    fn access_page(&mut self, machine: &mut Machine, memory: &mut Memory, cpu: usize, va: Va, writes: bool) {
        let held = self.walkers[cpu].held.iter().position(|held| held.first <= va.0 && va.0 <= held.last);
        if let Some(nth) = held {
            let held = self.walkers[cpu].held[nth];
            if !writes || held.is_written {
                return self.note_access(va, writes);
            }
            // A walk to where it was found, by what walk caches hold, or one from the root.
            if self.below(2) == 0
                && memory.read(held.pa) == held.value
                && self.update(machine, memory, held.pa, true)
            {
                let value = memory.read(held.pa);
                self.walkers[cpu].held[nth] = Held { value, is_written: true, ..held };
                return self.note_access(va, writes);
            }
            self.walkers[cpu].held.swap_remove(nth);
        }
        self.walk_page(machine, memory, cpu, va, writes);
    }

    fn note_access(&mut self, va: Va, writes: bool) {
        if self.accesses == Accesses::All {
            self.accessed.insert(va);
        }
        if writes {
            self.written.insert(va);
        }
    }

    /// Walks from the root, and updates the leaf or another entry of its run.
    fn walk_page(&mut self, machine: &mut Machine, memory: &mut Memory, cpu: usize, va: Va, writes: bool) {
        let geometry = self.walk.geometry;
        let mut level = geometry.start_level();
        let mut table = geometry.root_table(self.walk.root, va);
        let (pa, value) = loop {
            let pa = table.0 + 8 * geometry.index(va, level) as u64;
            let value = memory.read(pa);
            match (Descriptor(value).decode(geometry, level), level.next()) {
                (Decoded::Table(below), Some(next)) => (table, level) = (below, next),
                (Decoded::Leaf(_), _) => break (pa, value),
                _ => return,
            }
        };
        let run = if Descriptor(value).is_contiguous() {
            geometry.contiguous_entries(level).unwrap_or(1) as u64
        } else {
            1
        };
        if !self.update(machine, memory, pa, false) || (writes && !self.may_write(memory.read(pa))) {
            return;
        }
        // A write may mark any entry of a run for all.
        let mut marked = pa;
        if writes && !self.is_written(memory.read(pa)) {
            let start = pa & !(8 * run - 1);
            let other = start + 8 * self.below(run);
            let is_like = (memory.read(other) ^ memory.read(pa)) & (DBM | VALID | 1 << 52) == 0;
            marked = if is_like { other } else { pa };
            if !self.update(machine, memory, marked, true) {
                return;
            }
        }
        let bytes = run << geometry.shift(level);
        let first = va.0 & !(bytes - 1);
        let value = memory.read(marked);
        let is_written = self.is_written(value);
        self.walkers[cpu].held.push(Held { first, last: first + (bytes - 1), is_written, value, pa: marked });
        self.note_access(va, writes);
    }

    /// Whether a leaf may be written, perhaps after an update.
    fn may_write(&self, value: u64) -> bool {
        let tracks = self.walk.updates == HardwareUpdates::AccessedAndDirty;
        self.is_written(value) || (tracks && value & DBM != 0)
    }

    /// Whether a leaf may be written as it is.
    fn is_written(&self, value: u64) -> bool {
        (value & WRITABLE != 0) == self.walk.geometry.regime().is_stage_2()
    }

    /// Sets the access flag of the leaf at `pa`, and makes it dirty if `writes`, as hardware does.
    /// Returns whether it could.
    fn update(&self, machine: &mut Machine, memory: &mut Memory, pa: u64, writes: bool) -> bool {
        let old = memory.read(pa);
        let mut new = old;
        if old & ACCESSED == 0 {
            if !self.walk.updates.is_on() {
                return false;
            }
            new |= ACCESSED;
        }
        if writes && !self.is_written(old) {
            if self.walk.updates != HardwareUpdates::AccessedAndDirty || old & DBM == 0 {
                return false;
            }
            new ^= WRITABLE;
        }
        if new != old {
            assert!(machine.note_update(pa, new), "{old:#x} to {new:#x} at {pa:#x} is no update by hardware");
            memory.write(pa, new);
        }
        true
    }
}

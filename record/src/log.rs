//! Stores that nothing has ordered yet, to frames that are not followed: such a frame may be linked
//! before they are ordered.

use std::collections::HashMap;

use linmap_trace::{Access, Domain};

/// What a CPU did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    /// Stores to consecutive words of a page of 4 KiB: `first`, `first + step` and so on.
    Store { pa: u64, count: u16, first: u64, step: u64 },
    /// A word held this before a store that raised no callback.
    Replaced { pa: u64, value: u64 },
    /// A DMB.
    Dmb(Domain, Access),
}

/// What a CPU did, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub cpu: usize,
    pub pc: u64,
    pub did: Did,
}

/// The most entries. Earlier ones count as ordered.
const MOST: usize = 1 << 19;

/// What all CPUs did since the earliest store that no DSB has ordered.
pub struct Log {
    entries: Vec<Entry>,
    /// The number of the first entry.
    base: u64,
    /// For each CPU, the number of the first entry that may be unordered.
    floors: Vec<u64>,
    /// For each CPU, the number of its first unordered store.
    earliest: Vec<Option<u64>>,
    /// For each CPU, how far each CPU's stores are ordered before what it does now.
    inherited: Vec<Vec<u64>>,
    /// Later stores are not part of entries before this one.
    fence: u64,
    /// The entries of DMBs.
    dmbs: Vec<u64>,
    /// The entries with stores by page, of those before `indexed`.
    pages: HashMap<u64, Vec<u64>>,
    indexed: u64,
}

impl Log {
    pub fn new(cpus: usize) -> Self {
        Self {
            entries: Vec::new(),
            base: 0,
            floors: vec![0; cpus],
            earliest: vec![None; cpus],
            inherited: vec![vec![0; cpus]; cpus],
            fence: 0,
            dmbs: Vec::new(),
            pages: HashMap::new(),
            indexed: 0,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Adds a store of a word.
    pub fn store(&mut self, cpu: usize, pc: u64, pa: u64, value: u64) {
        if self.end() > self.fence
            && let Some(Entry { cpu: same, pc: at, did: Did::Store { pa: start, count, first, step } }) =
                self.entries.last_mut()
            && *same == cpu
            && *at == pc
            && pa == *start + 8 * u64::from(*count)
            && pa & 0xfff != 0
        {
            if *count == 1 {
                *step = value.wrapping_sub(*first);
            }
            if value == first.wrapping_add(step.wrapping_mul(u64::from(*count))) {
                *count += 1;
                return;
            }
            if *count == 1 {
                *step = 0;
            }
        }
        self.push(cpu, pc, Did::Store { pa, count: 1, first: value, step: 0 });
    }

    /// Adds what a word held before a store.
    pub fn replaced(&mut self, cpu: usize, pc: u64, pa: u64, value: u64) {
        self.push(cpu, pc, Did::Replaced { pa, value });
    }

    /// Adds a DMB, if there is something that it orders.
    pub fn dmb(&mut self, cpu: usize, pc: u64, domain: Domain, access: Access) {
        let is_same =
            self.entries.last().is_some_and(|last| last.cpu == cpu && matches!(last.did, Did::Dmb(..)));
        if self.earliest[cpu].is_some() && !is_same {
            self.push(cpu, pc, Did::Dmb(domain, access));
            self.dmbs.push(self.end() - 1);
        }
    }

    fn push(&mut self, cpu: usize, pc: u64, did: Did) {
        if self.entries.len() == MOST {
            self.drop_before(self.base + MOST as u64 / 2);
        }
        if self.earliest[cpu].is_none() {
            self.earliest[cpu] = Some(self.end());
        }
        self.entries.push(Entry { cpu, pc, did });
    }

    /// A DSB has ordered what the CPU stored, and what was ordered before what it did.
    pub fn dsb(&mut self, cpu: usize) {
        let end = self.end();
        self.fence = end;
        self.inherited[cpu][cpu] = end;
        for other in 0..self.floors.len() {
            let floor = self.inherited[cpu][other].max(self.floors[other]);
            self.floors[other] = floor;
            self.earliest[other] = self.earliest[other].map(|at| at.max(floor)).filter(|at| *at < end);
        }
        match self.earliest.iter().flatten().min() {
            None => self.drop_before(end),
            // Moving what is left costs.
            Some(first) if (first - self.base) as usize > self.entries.len() / 2 + 64 => {
                self.drop_before(*first);
            }
            Some(_) => {}
        }
    }

    /// What `from` did so far is ordered before what `to` does from now on.
    pub fn pass(&mut self, from: usize, to: usize) {
        self.fence = self.end();
        self.inherited[from][from] = self.fence;
        for other in 0..self.floors.len() {
            self.inherited[to][other] = self.inherited[to][other].max(self.inherited[from][other]);
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        let end = self.end();
        self.floors.fill(end);
        self.earliest.fill(None);
        self.drop_before(end);
    }

    fn drop_before(&mut self, first: u64) {
        let count = ((first - self.base) as usize).min(self.entries.len());
        if count == self.entries.len() {
            self.entries.clear();
            self.dmbs.clear();
        } else {
            self.entries.drain(..count);
            self.dmbs.retain(|at| *at >= first);
        }
        self.base = first;
        for earliest in self.earliest.iter_mut().flatten() {
            *earliest = (*earliest).max(first);
        }
        if self.indexed > 0 {
            self.pages = HashMap::new();
            self.indexed = 0;
        }
    }

    /// What was done to a range of memory and may be unordered, with the DMBs of who did it, each
    /// with whether its order was passed on to `to`.
    pub fn unordered(&mut self, start: u64, len: u64, to: usize) -> Vec<(Entry, bool)> {
        for at in self.indexed.max(self.base)..self.end() {
            if let Did::Store { pa, .. } | Did::Replaced { pa, .. } =
                self.entries[(at - self.base) as usize].did
            {
                self.pages.entry(pa >> 12).or_default().push(at);
            }
        }
        self.indexed = self.end();
        let pages = start >> 12..(start + len) >> 12;
        let mut found: Vec<u64> = pages.filter_map(|page| self.pages.get(&page)).flatten().copied().collect();
        found.retain(|at| *at >= self.floors[self.entries[(at - self.base) as usize].cpu]);
        let Some(first) = found.iter().min().copied() else { return Vec::new() };
        let dmbs = self.dmbs.get(self.dmbs.partition_point(|at| *at < first)..).unwrap_or_default();
        let mut numbers: Vec<u64> = found.into_iter().chain(dmbs.iter().copied()).collect();
        numbers.sort_unstable();
        let mut all = Vec::new();
        // A DMB matters once behind stores.
        let mut has_stores = vec![false; self.floors.len()];
        for at in numbers {
            let entry = self.entries[(at - self.base) as usize];
            let is_dmb = matches!(entry.did, Did::Dmb(..));
            if std::mem::replace(&mut has_stores[entry.cpu], !is_dmb) || !is_dmb {
                all.push((entry, self.inherited[to][entry.cpu] > at));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 0x4000_0000;

    fn stores(log: &mut Log, to: usize) -> Vec<(usize, bool)> {
        log.unordered(FRAME, 0x1000, to)
            .into_iter()
            .map(|(entry, is_passed)| (entry.cpu, is_passed))
            .collect()
    }

    #[test]
    fn a_run_of_stores_is_one_entry_and_a_dsb_ends_it() {
        let mut log = Log::new(1);
        for nth in 0..512 {
            log.store(0, 0x100, FRAME + 8 * nth, 0x703 + 0x1000 * nth);
        }
        log.store(0, 0x104, FRAME + 0x10, 0);
        let found = log.unordered(FRAME, 0x1000, 0);
        let run = Did::Store { pa: FRAME, count: 512, first: 0x703, step: 0x1000 };
        let zero = Did::Store { pa: FRAME + 0x10, count: 1, first: 0, step: 0 };
        let entries = [(0x100, run), (0x104, zero)].map(|(pc, did)| (Entry { cpu: 0, pc, did }, false));
        assert_eq!(found, entries);
        assert!(log.unordered(FRAME + 0x1000, 0x1000, 0).is_empty());
        log.dsb(0);
        assert!(log.unordered(FRAME, 0x1000, 0).is_empty());
    }

    #[test]
    fn a_dmb_counts_once_behind_the_stores_that_it_orders() {
        let mut log = Log::new(1);
        log.dmb(0, 0, Domain::Ish, Access::Stores);
        log.store(0, 0, FRAME, 1);
        log.store(0, 0, FRAME + 0x1000, 1);
        for pa in [FRAME + 0x2000, FRAME + 0x2008] {
            log.dmb(0, 0, Domain::Ish, Access::Stores);
            log.store(0, 4, pa, 1);
        }
        let found: Vec<Did> =
            log.unordered(FRAME, 0x1000, 0).into_iter().map(|(entry, _)| entry.did).collect();
        let store = Did::Store { pa: FRAME, count: 1, first: 1, step: 0 };
        assert_eq!(found, [store, Did::Dmb(Domain::Ish, Access::Stores)]);
    }

    #[test]
    fn a_lock_passes_order_on_and_the_other_s_dsb_orders_what_it_passed() {
        let mut log = Log::new(3);
        log.store(0, 0, FRAME, 1);
        log.pass(0, 1);
        log.store(0, 0, FRAME + 8, 1);
        assert_eq!(stores(&mut log, 1), [(0, true), (0, false)]);
        assert_eq!(stores(&mut log, 2), [(0, false); 2]);
        log.pass(1, 2);
        assert_eq!(stores(&mut log, 2), [(0, true), (0, false)]);
        log.dsb(2);
        assert_eq!(stores(&mut log, 1), [(0, false)]);
    }

    #[test]
    fn the_log_is_bounded_and_drops_the_earliest() {
        let mut log = Log::new(2);
        log.store(1, 0, FRAME, 1);
        for nth in 0..MOST as u64 {
            log.store(0, 0, 0x8000_0000 + 16 * nth, nth);
        }
        assert!(log.entries.len() <= MOST);
        assert!(stores(&mut log, 0).is_empty());
        log.store(1, 0, FRAME, 2);
        log.dsb(0);
        assert_eq!(stores(&mut log, 0), [(1, false)]);
        log.dsb(1);
        assert!(log.entries.is_empty());
    }
}

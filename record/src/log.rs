//! Stores that nothing has ordered yet, to frames that are not followed: such a frame may be linked
//! before they are ordered.

use std::collections::HashMap;
use std::sync::Arc;

/// What a CPU did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    /// Stores to consecutive words of a page of 4 KiB: `first`, `first + step` and so on.
    Store { pa: u64, count: u16, first: u64, step: u64 },
    /// A word held this before a store that raised no callback.
    Replaced { pa: u64, value: u64 },
}

/// What a CPU did, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub cpu: usize,
    pub pc: u64,
    pub did: Did,
}

/// What was ordered before a store-release of a CPU.
#[derive(Clone)]
pub struct Order {
    cpu: usize,
    /// The first entry that comes later.
    end: u64,
    /// How far each other CPU's stores were.
    inherited: Arc<[u64]>,
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
    inherited: Vec<Arc<[u64]>>,
    /// Later stores are not part of entries before this one.
    fence: u64,
    /// For each CPU, the number of the first entry behind its last DMB.
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
            inherited: vec![vec![0; cpus].into(); cpus],
            fence: 0,
            dmbs: vec![0; cpus],
            pages: HashMap::new(),
            indexed: 0,
        }
    }

    /// The number of the next entry.
    pub fn end(&self) -> u64 {
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

    /// A DMB orders what the CPU stored before what it stores from now on.
    pub fn dmb(&mut self, cpu: usize) {
        self.fence = self.end();
        self.dmbs[cpu] = self.fence;
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
        for other in 0..self.floors.len() {
            let own = if other == cpu { end } else { self.inherited[cpu][other] };
            let floor = own.max(self.floors[other]);
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

    /// The CPU stores with release: what it did so far is ordered before.
    pub fn release(&mut self, cpu: usize) -> Order {
        self.fence = self.end();
        Order { cpu, end: self.fence, inherited: Arc::clone(&self.inherited[cpu]) }
    }

    /// What was ordered before a store-release is ordered before what `to` does from now on.
    pub fn pass(&mut self, order: &Order, to: usize) {
        let passed = |cpu: usize| if cpu == order.cpu { order.end } else { order.inherited[cpu] };
        if (0..self.floors.len()).any(|cpu| passed(cpu) > self.inherited[to][cpu]) {
            for (cpu, known) in Arc::make_mut(&mut self.inherited[to]).iter_mut().enumerate() {
                *known = passed(cpu).max(*known);
            }
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
        } else {
            self.entries.drain(..count);
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

    /// What was stored to a range of memory and may be unordered when `by` links it, with the
    /// numbers of the entries.
    ///
    /// A descriptor that is stored behind a DMB, or behind a lock that was taken over, is ordered
    /// behind what was stored before (Arm ARM B2.3, barrier-ordered-before), and a walk reads a
    /// table after the descriptor that leads to it. For a base register a DSB is needed.
    pub fn unordered(&mut self, start: u64, len: u64, by: Linked) -> Vec<(u64, Entry)> {
        for at in self.indexed.max(self.base)..self.end() {
            let (Did::Store { pa, .. } | Did::Replaced { pa, .. }) =
                self.entries[(at - self.base) as usize].did;
            self.pages.entry(pa >> 12).or_default().push(at);
        }
        self.indexed = self.end();
        let pages = start >> 12..(start + len) >> 12;
        let mut found: Vec<u64> = pages.filter_map(|page| self.pages.get(&page)).flatten().copied().collect();
        found.retain(|at| *at >= self.floors[self.entries[(at - self.base) as usize].cpu]);
        found.sort_unstable();
        let all = found.into_iter().map(|at| (at, self.entries[(at - self.base) as usize]));
        all.filter(|(at, entry)| match by {
            Linked::ByStore(cpu) if cpu == entry.cpu => self.dmbs[cpu] <= *at,
            Linked::ByStore(cpu) => self.inherited[cpu][entry.cpu] <= *at,
            Linked::ByRegister => true,
        })
        .collect()
    }
}

/// How a frame is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linked {
    /// A CPU stores a descriptor that leads to it.
    ByStore(usize),
    /// A base register names it.
    ByRegister,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 0x4000_0000;

    fn stores(log: &mut Log, by: Linked) -> Vec<u64> {
        let of = |(_, entry): (u64, Entry)| match entry.did {
            Did::Store { first, .. } | Did::Replaced { value: first, .. } => first,
        };
        log.unordered(FRAME, 0x1000, by).into_iter().map(of).collect()
    }

    #[test]
    fn a_run_of_stores_is_one_entry_and_a_dsb_ends_it() {
        let mut log = Log::new(1);
        for nth in 0..512 {
            log.store(0, 0x100, FRAME + 8 * nth, 0x703 + 0x1000 * nth);
        }
        log.store(0, 0x104, FRAME + 0x10, 0);
        let found = log.unordered(FRAME, 0x1000, Linked::ByRegister);
        let run = Did::Store { pa: FRAME, count: 512, first: 0x703, step: 0x1000 };
        let zero = Did::Store { pa: FRAME + 0x10, count: 1, first: 0, step: 0 };
        let expected = [(0, 0x100, run), (1, 0x104, zero)];
        assert_eq!(found, expected.map(|(nth, pc, did)| (nth, Entry { cpu: 0, pc, did })));
        assert!(log.unordered(FRAME + 0x1000, 0x1000, Linked::ByRegister).is_empty());
        log.dsb(0);
        assert!(stores(&mut log, Linked::ByRegister).is_empty());
    }

    #[test]
    fn a_dmb_orders_before_a_store_that_links_and_not_before_a_base_register() {
        let mut log = Log::new(2);
        log.store(0, 0, FRAME, 1);
        log.dmb(0);
        log.store(0, 0, FRAME + 8, 2);
        assert_eq!(stores(&mut log, Linked::ByStore(0)), [2]);
        assert_eq!(stores(&mut log, Linked::ByStore(1)), [1, 2]);
        assert_eq!(stores(&mut log, Linked::ByRegister), [1, 2]);
    }

    #[test]
    fn a_lock_passes_order_on_and_the_other_s_dsb_orders_what_it_passed() {
        let mut log = Log::new(3);
        log.store(0, 0, FRAME, 1);
        let first = log.release(0);
        log.store(0, 0, FRAME + 8, 2);
        log.pass(&first, 1);
        assert_eq!(stores(&mut log, Linked::ByStore(0)), [1, 2], "a release orders before itself alone");
        assert_eq!(stores(&mut log, Linked::ByStore(1)), [2]);
        assert_eq!(stores(&mut log, Linked::ByStore(2)), [1, 2]);
        let second = log.release(1);
        // What its CPU takes over behind a release is none of it.
        let third = log.release(0);
        log.pass(&third, 1);
        log.pass(&second, 2);
        assert_eq!(stores(&mut log, Linked::ByStore(1)), [0; 0]);
        assert_eq!(stores(&mut log, Linked::ByStore(2)), [2]);
        assert_eq!(stores(&mut log, Linked::ByRegister), [1, 2]);
        log.dsb(2);
        assert_eq!(stores(&mut log, Linked::ByRegister), [2]);
    }

    #[test]
    fn the_log_is_bounded_and_drops_the_earliest() {
        let mut log = Log::new(2);
        log.store(1, 0, FRAME, 1);
        for nth in 0..MOST as u64 {
            log.store(0, 0, 0x8000_0000 + 16 * nth, nth);
        }
        assert!(log.entries.len() <= MOST);
        assert!(stores(&mut log, Linked::ByRegister).is_empty());
        log.store(1, 0, FRAME, 2);
        log.dsb(0);
        assert_eq!(stores(&mut log, Linked::ByRegister), [2]);
        log.dsb(1);
        assert!(log.entries.is_empty());
    }
}

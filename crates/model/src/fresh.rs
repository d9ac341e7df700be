//! Entries that became valid, which a CPU may have walked before: until a context synchronization event after the DSB
//! that ordered them, it may still fault (Arm ARM D8.2.6; D8.17, IWZCBG).

use rustc_hash::FxHashMap;

use crate::space::{Shape, Space};

#[derive(Clone, Copy, Debug)]
struct Fresh {
    /// When the DSB ordered it.
    ordered: u64,
    /// The CPUs that walk it.
    cpus: u64,
}

/// All such entries.
#[derive(Debug)]
pub(crate) struct FreshEntries {
    /// By level and first address.
    entries: FxHashMap<(Space, i8, u64), Fresh>,
    /// Per CPU: its last context synchronization.
    synchronized: Vec<u64>,
    /// Per CPU: when it last ordered a store that made an entry valid which it walks itself, and where.
    ordered: Vec<(u64, u64)>,
    /// How many entries may be noted before those are dropped that nobody waits for.
    room: usize,
}

impl FreshEntries {
    pub fn new(cpus: usize) -> Self {
        Self {
            entries: FxHashMap::default(),
            synchronized: vec![0; cpus],
            ordered: vec![(0, 0); cpus],
            room: 1 << 12,
        }
    }

    /// The entry for `va` at `level` became valid by a store of CPU `by` that was ordered at `now`.
    pub fn became_valid(&mut self, now: u64, space: Space, level: i8, va: u64, by: usize, cpus: u64) {
        if cpus >> by & 1 == 1 {
            self.ordered[by] = (now, va);
        }
        let fresh = self.entries.entry((space, level, va)).or_insert(Fresh { ordered: now, cpus });
        fresh.ordered = now;
        fresh.cpus |= cpus;
        if self.entries.len() > self.room {
            let synchronized = &self.synchronized;
            self.entries.retain(|_, fresh| {
                (0..synchronized.len())
                    .any(|cpu| fresh.cpus >> cpu & 1 == 1 && synchronized[cpu] < fresh.ordered)
            });
            self.room = (2 * self.entries.len()).max(1 << 12);
        }
    }

    pub fn synchronized(&mut self, cpu: usize, now: u64) {
        self.synchronized[cpu] = now;
    }

    /// Whether a walk of `cpu` for `va` may have found an entry invalid that is valid now.
    pub fn may_fault(&self, cpu: usize, space: Space, shape: Shape, va: u64) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        (shape.start()..=3).any(|level| {
            let start = va & (u64::MAX << shape.shift(level));
            self.entries
                .get(&(space, level, start))
                .is_some_and(|fresh| fresh.cpus >> cpu & 1 == 1 && self.synchronized[cpu] < fresh.ordered)
        })
    }

    /// A CPU that made an entry valid and did not synchronize its own context since, with the entry's address.
    pub fn forgotten(&self) -> Option<(usize, u64)> {
        (0..self.ordered.len())
            .find(|&cpu| self.synchronized[cpu] < self.ordered[cpu].0)
            .map(|cpu| (cpu, self.ordered[cpu].1))
    }
}

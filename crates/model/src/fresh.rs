//! Entries that became valid, which a CPU may have walked before: until a context synchronization
//! event after the DSB that ordered them, it may still fault (Arm ARM D8.2.6; D8.17, IWZCBG).

use rustc_hash::FxHashMap;

use crate::space::{Shape, Space};

/// Neighbouring entries of one table.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    /// The first addresses of the first and of the last of them.
    first: u64,
    last: u64,
    /// When the DSB ordered them.
    ordered: u64,
    /// The CPUs that walk them.
    cpus: u64,
}

impl Fresh {
    /// Whether a CPU that walks them has not synchronized its context since.
    fn is_awaited(&self, synchronized: &[u64]) -> bool {
        let waits = |(cpu, time): (usize, &u64)| self.cpus >> cpu & 1 == 1 && *time < self.ordered;
        synchronized.iter().enumerate().any(waits)
    }
}

/// log2 of the entries that share a list: as many as a 4K table has.
const TABLE: u32 = 9;

/// All such entries.
#[derive(Debug)]
pub(crate) struct FreshEntries {
    /// By level and number of the table, among all that a space could have at that level.
    tables: FxHashMap<(Space, i8, u64), Vec<Fresh>>,
    /// Per CPU: its last context synchronization.
    synchronized: Vec<u64>,
    /// Per CPU: when it last ordered a store that made an entry of its own trees valid, and the
    /// entry's address.
    ordered: Vec<(u64, u64)>,
    /// With more tables than this, tables are dropped whose entries no CPU waits for.
    room: usize,
}

impl FreshEntries {
    pub fn new(cpus: usize) -> Self {
        Self {
            tables: FxHashMap::default(),
            synchronized: vec![0; cpus],
            ordered: vec![(0, 0); cpus],
            room: 1 << 12,
        }
    }

    /// The entry for `va` at `level`, of `1 << shift` bytes, became valid by a store of CPU `by`
    /// that was ordered at `now`.
    pub fn became_valid(
        &mut self,
        now: u64,
        (space, level, va): (Space, i8, u64),
        shift: u32,
        by: usize,
        cpus: u64,
    ) {
        if cpus >> by & 1 == 1 {
            self.ordered[by] = (now, va);
        }
        let synchronized = &self.synchronized;
        let list = self.tables.entry((space, level, va >> shift >> TABLE)).or_default();
        match list.last_mut() {
            Some(fresh)
                if (fresh.ordered, fresh.cpus) == (now, cpus)
                    && fresh.last.checked_add(1 << shift) == Some(va) =>
            {
                fresh.last = va;
                return;
            }
            _ => {}
        }
        if list.len() == list.capacity() {
            list.retain(|fresh| fresh.is_awaited(synchronized));
        }
        list.push(Fresh { first: va, last: va, ordered: now, cpus });
        if self.tables.len() > self.room {
            self.tables.retain(|_, list| list.iter().any(|fresh| fresh.is_awaited(synchronized)));
            self.room = (2 * self.tables.len()).max(1 << 12);
        }
    }

    pub fn synchronized(&mut self, cpu: usize, now: u64) {
        self.synchronized[cpu] = now;
    }

    /// Whether a walk of `cpu` for `va` may have found an entry invalid that is valid now.
    pub fn may_fault(&self, cpu: usize, space: Space, shape: Shape, va: u64) -> bool {
        if self.tables.is_empty() {
            return false;
        }
        (shape.start..=3).any(|level| {
            let shift = shape.shift(level);
            let start = va & (u64::MAX << shift);
            let list = self.tables.get(&(space, level, start >> shift >> TABLE));
            list.into_iter().flatten().any(|fresh| {
                fresh.first <= start
                    && start <= fresh.last
                    && fresh.cpus >> cpu & 1 == 1
                    && self.synchronized[cpu] < fresh.ordered
            })
        })
    }

    /// A CPU that made an entry valid and did not synchronize its own context since, with the
    /// entry's address.
    pub fn forgotten(&self) -> Option<(usize, u64)> {
        (0..self.ordered.len())
            .find(|&cpu| self.synchronized[cpu] < self.ordered[cpu].0)
            .map(|cpu| (cpu, self.ordered[cpu].1))
    }
}

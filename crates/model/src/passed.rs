//! Order that CPUs pass on without a DSB: DMB, store-release and load-acquire.
//!
//! A walker is an observer of its own, for which a store is complete only behind a DSB. But order
//! between stores holds for walkers, too: a walk reads the tables of its levels one after the
//! other, each by the address that the level above has. So a walker that finds a table through a
//! pointer sees all that was ordered before the store of the pointer. And a DSB orders what its CPU
//! knows of, not only its own stores: what was ordered before a store that it has read.

use rustc_hash::FxHashMap;

/// The most words whose releases are remembered.
const MOST: usize = 1 << 16;

/// Per CPU, the epoch before which its stores are known.
type Known = Box<[u32]>;

fn join(known: &mut Known, more: &Known) {
    for (known, more) in known.iter_mut().zip(more) {
        *known = (*known).max(*more);
    }
}

/// What each CPU knows of the stores of all.
#[derive(Debug)]
pub(crate) struct Passed {
    /// Per CPU: what is ordered before all that it does from now on.
    pub known: Vec<Known>,
    /// Per CPU: what it has ordered before some store that others may have read.
    offered: Vec<Known>,
    /// Per word: what was released to it.
    released: FxHashMap<u64, Known>,
    /// Per CPU: the epoch before which a DSB of another CPU has ordered its stores.
    pub done: Known,
    /// The CPU that stores a pointer to a table now.
    pub linker: Option<usize>,
    /// Whether the trace has such order at all.
    pub any: bool,
}

impl Passed {
    pub fn new(cpus: usize) -> Self {
        let nothing: Known = vec![0; cpus].into();
        Self {
            known: vec![nothing.clone(); cpus],
            offered: vec![nothing.clone(); cpus],
            released: FxHashMap::default(),
            done: nothing,
            linker: None,
            any: false,
        }
    }

    /// What `cpu` has ordered by a DMB so far may be read by others.
    pub fn offer(&mut self, cpu: usize) {
        join(&mut self.offered[cpu], &self.known[cpu]);
    }

    /// `cpu` has read what every other CPU has offered.
    pub fn take_all(&mut self, cpu: usize) {
        for other in (0..self.known.len()).filter(|other| *other != cpu) {
            join(&mut self.known[cpu], &self.offered[other]);
        }
    }

    /// `cpu` releases what it knows, and its stores before `epoch`, to the word at `pa`.
    pub fn release(&mut self, cpu: usize, epoch: u32, pa: u64) {
        let mut all = self.known[cpu].clone();
        all[cpu] = epoch;
        join(&mut self.offered[cpu], &all);
        if self.released.len() == MOST {
            self.released.clear();
        }
        // Whoever reads a later store to the word knows of the earlier ones by coherence.
        match self.released.get_mut(&pa) {
            Some(before) => join(before, &all),
            None => drop(self.released.insert(pa, all)),
        }
    }

    /// `cpu` knows what was released to the word at `pa`.
    pub fn acquire(&mut self, cpu: usize, pa: u64) {
        if let Some(more) = self.released.get(&pa) {
            join(&mut self.known[cpu], more);
        }
    }
}

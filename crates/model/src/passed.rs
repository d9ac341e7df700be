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
    /// Per word: what was released to it.
    released: FxHashMap<u64, Known>,
    /// Per CPU: the epoch before which a DSB of another CPU has ordered its stores.
    pub done: Known,
    /// Per CPU: pages of tables with stores of its that are ordered before a pointer alone, and the
    /// epoch of the last of them.
    pub linked: Vec<FxHashMap<u64, u32>>,
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
            released: FxHashMap::default(),
            done: nothing,
            linked: vec![FxHashMap::default(); cpus],
            linker: None,
            any: false,
        }
    }

    /// `cpu` releases what it knows, and its stores before `epoch`, to the word at `pa`.
    pub fn release(&mut self, cpu: usize, epoch: u32, pa: u64) {
        let mut all = self.known[cpu].clone();
        all[cpu] = epoch;
        if self.released.len() == MOST {
            self.released.clear();
        }
        // Whoever reads a later store to the word knows of the earlier ones by coherence.
        match self.released.get_mut(&pa) {
            Some(before) => join(before, &all),
            None => drop(self.released.insert(pa, all)),
        }
    }

    /// Whether who leads to the page at `page` now, by a pointer or a base register, does not know
    /// of stores that were ordered before another pointer to it alone. Returns who made them.
    pub fn unknown_to_linker(&self, page: u64) -> Option<usize> {
        let is_known = |by: usize, epoch: u32| self.linker.is_some_and(|own| self.known[own][by] > epoch);
        let mut all = self.linked.iter().enumerate();
        all.find_map(|(by, linked)| linked.get(&page).filter(|epoch| !is_known(by, **epoch)).map(|_| by))
    }

    /// `cpu` knows what was released to the word at `pa`.
    pub fn acquire(&mut self, cpu: usize, pa: u64) {
        if let Some(more) = self.released.get(&pa) {
            join(&mut self.known[cpu], more);
        }
    }
}

//! The machine: what is true of it after each event, and the check of each.

use std::fmt;

use linmap_trace::Use;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::cached::{CachedSpaces, Held};
use crate::config::{Config, ConfigError};
use crate::descriptor::{Entry, Leaf, read};
use crate::fresh::FreshEntries;
use crate::memory::Memory;
use crate::rules::Rule;
use crate::scope::Scope;
use crate::space::{Shape, Space};
use crate::violation::Violation;

/// Every check ends in this.
pub(crate) type Check<T = ()> = Result<T, Violation>;

/// Where a table is used: a frame may serve several trees, and several places of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableUse {
    pub root: u32,
    pub level: i8,
    /// The first address the table translates.
    pub va: u64,
    /// How many pointers, in tables or held by walk caches, lead here.
    pub references: u32,
}

/// A tree that some register led to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub space: Space,
    pub shape: Shape,
    /// The root table.
    pub table: u64,
    /// ASID or VMID.
    pub id: u16,
    /// CPUs that walk it, or may hold something of it.
    pub cpus: u64,
}

/// A root that a CPU walks no more, but may hold something of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftRoot {
    pub root: u32,
    /// Since when it is walked no more.
    pub since: u64,
    /// An invalidation by this CPU itself has reached all of it, and lacks the context synchronization behind its DSB:
    /// without FEAT_ETS2 the CPU's own TLB may hold it until then (Arm ARM D8.17, RBLDZX).
    pub invalidated: bool,
}

/// One entry of one table in one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPlace {
    pub root: u32,
    pub level: i8,
    /// The first address the entry translates.
    pub va: u64,
    /// Where the entry is.
    pub pa: u64,
}

/// A range that a CPU may access at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InUse {
    pub va: u64,
    pub last: u64,
    pub kind: Use,
}

#[derive(Debug, Default)]
pub(crate) struct Cpu {
    /// Per space: the roots that a walk may start from; several until an ISB makes the last one certain.
    pub walks: [Vec<u32>; 4],
    /// Per space: roots that were left, and of which something may be held.
    pub left: [Vec<LeftRoot>; 4],
    /// Per space: bits of input address that this CPU's TCR says.
    pub va_bits: [u32; 4],
    /// Per space: TCR changed and no ISB came yet.
    pub control_pending: [bool; 4],
    pub uses: Vec<InUse>,
    /// Invalidations that no DSB has completed, with the time of each.
    pub tlbis: Vec<(Scope, u64)>,
    /// What this CPU's own invalidations took from it. Without FEAT_ETS2 it is certain to be gone only with the ISB
    /// after the DSB (Arm ARM D8.17, RBLDZX).
    pub invalidated: Vec<Held>,
}

/// The most places that one table may be used in, and that all may be; honest trees stay far below.
pub(crate) const MAX_PLACES: (usize, usize) = (1 << 12, 1 << 22);

/// The most older values of one word that walkers may see.
pub(crate) const MAX_OLDER: usize = 1 << 10;

/// The most pages of memory that may be stored to: 8 GiB.
pub(crate) const MAX_PAGES: usize = 1 << 21;

/// A machine to run events on.
pub struct Machine {
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) cached: CachedSpaces,
    pub(crate) roots: Vec<Root>,
    pub(crate) cpus: Vec<Cpu>,
    /// The shape of each space as TCR says now.
    pub(crate) shapes: [Shape; 4],
    pub(crate) mair: Option<u64>,
    pub(crate) fresh: FreshEntries,
    /// Contiguous runs to look at when software relies on them: their first entry.
    pub(crate) runs: FxHashSet<(u32, i8, u64, u64)>,
    pub(crate) now: u64,
    pub(crate) work: u64,
    pub(crate) tables: FxHashMap<u64, Vec<TableUse>>,
    pub(crate) places: usize,
    /// Root tables that do not begin at a multiple of the granule.
    pub(crate) odd_roots: Vec<u64>,
    /// The last table of pages that was found where [`check_against_tree`](Self::check_against_tree) need not look further.
    pub(crate) straight: Option<(u32, u64)>,
    /// How many events there were.
    pub(crate) events: usize,
    /// The first violation.
    pub(crate) broken: Option<Violation>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, events, broken, .. } = self;
        f.debug_struct("Machine")
            .field("config", config)
            .field("events", events)
            .field("broken", broken)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine as `config` says, with nothing in its registers.
    ///
    /// # Errors
    /// [`ConfigError`] when there can be no such machine.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            memory: Memory::new(config),
            cached: CachedSpaces::default(),
            roots: Vec::new(),
            cpus: (0..config.cpus)
                .map(|_| Cpu { va_bits: [u32::from(config.va_bits); 4], ..Cpu::default() })
                .collect(),
            shapes: [Shape::of(config); 4],
            mair: None,
            fresh: FreshEntries::new(config.cpus),
            runs: FxHashSet::default(),
            now: 0,
            work: 0,
            tables: FxHashMap::default(),
            places: 0,
            odd_roots: Vec::new(),
            straight: None,
            events: 0,
            broken: None,
            config: config.clone(),
        })
    }

    /// The newest value of the word at `pa`, a multiple of 8; `None` when nothing was stored there.
    pub fn word(&self, pa: u64) -> Option<u64> {
        self.memory.newest(pa)
    }

    /// The page of `pa` as it is in memory, when every word of it is known.
    pub fn known_page(&self, pa: u64) -> Option<&[u64]> {
        self.memory.known_page(pa)
    }

    /// Whether `cpu` said that it uses `va`.
    pub fn is_in_use(&self, cpu: usize, va: u64) -> bool {
        self.cpus[cpu].uses.iter().any(|in_use| in_use.va <= va && va <= in_use.last)
    }

    pub(crate) fn check_cpu(&self, cpu: usize) -> Check {
        if cpu < self.cpus.len() { Ok(()) } else { Err(Violation::new(Rule::NoSuchCpu).on_cpu(cpu)) }
    }

    pub(crate) fn check_memory(&self, pa: u64, len: u64) -> Check {
        if pa.is_multiple_of(8) && self.memory.holds(pa, len) {
            Ok(())
        } else {
            Err(Violation::new(Rule::NotMemory).at_pa(pa))
        }
    }

    /// Counts a step of a search that hostile tables could make endless.
    pub(crate) fn spend(&mut self) -> Check {
        self.spend_all(1)
    }

    /// Counts `steps` at once.
    pub(crate) fn spend_all(&mut self, steps: u64) -> Check {
        self.work = self.work.saturating_sub(steps);
        if self.work == 0 { Err(Violation::new(Rule::TooComplex)) } else { Ok(()) }
    }

    /// All CPUs.
    pub(crate) fn everyone(&self) -> u64 {
        u64::MAX >> (64 - self.cpus.len())
    }

    /// The leaf that `value` is at `place`, if it is one.
    pub(crate) fn leaf(&self, root: u32, level: i8, value: u64) -> Option<Leaf> {
        let Root { space, shape, .. } = self.roots[root as usize];
        match read(shape, space, level, value) {
            Entry::Leaf(leaf) => Some(leaf),
            Entry::Invalid | Entry::Table(_) => None,
        }
    }

    /// What MAIR_EL1 gives for the memory attribute index of a leaf of `space`; the index itself while MAIR was not
    /// written, and where another register or none holds the types.
    pub(crate) fn memory_type(&self, space: Space, index: u8) -> u8 {
        match (space, self.mair) {
            (Space::Low | Space::High, Some(mair)) => (mair >> (8 * index)) as u8,
            _ => index,
        }
    }
}

/// The first CPU of a set.
pub(crate) fn first_cpu(cpus: u64) -> usize {
    cpus.trailing_zeros() as usize
}

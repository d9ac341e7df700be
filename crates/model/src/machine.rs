//! The state of the machine, and look-ups in it.

use std::collections::VecDeque;
use std::fmt;

use linmap_trace::Use;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::asids::UpperAsids;
use crate::cached::{CachedSpaces, Held};
use crate::config::{Config, ConfigError};
use crate::descriptor::{Entry, Leaf, read};
use crate::dirty::DirtySpaces;
use crate::fresh::FreshEntries;
use crate::memory::Memory;
use crate::passed::Passed;
use crate::regime::{REGIMES, Regime};
use crate::rules::Rule;
use crate::scope::Scope;
use crate::space::{SPACES, Shape, Space};
use crate::taken::PendingEdits;
use crate::tcr::Tcr;
use crate::violation::Violation;

/// The outcome of a check.
pub(crate) type Check<T = ()> = Result<T, Violation>;

/// A use of a table: a frame may be a table of several trees, and at several places of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableUse {
    pub root: u32,
    pub level: i8,
    /// The first address the table translates.
    pub va: u64,
    /// The number of pointers, in tables or held by walk caches, that lead here.
    pub references: u32,
}

/// A tree that a register led to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub space: Space,
    pub shape: Shape,
    /// The root table.
    pub table: u64,
    /// ASID or VMID.
    pub id: u16,
    /// CPUs that walk it or may hold a part of it, apart from those that share what others hold.
    pub cpus: u64,
    /// Some CPU installed it with CnP.
    pub common: bool,
    /// Some leaf that could be walked was global, ever.
    pub global: bool,
    /// The tree was edited or freed while no CPU could use what it might hold of it, which is not
    /// known since.
    pub retired: Option<Retired>,
}

/// What CPUs may hold of a tree that is retired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retired {
    /// Entries of its identifier.
    Identifier,
    /// Anything: their MMU was off.
    All,
}

/// A root that a CPU has left, but may hold a part of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftRoot {
    pub root: u32,
    /// When the CPU left it.
    pub since: u64,
    /// An invalidation by this CPU has reached all of it, and the context synchronization after its
    /// DSB is missing. Without FEAT_ETS2 the CPU's own TLB may hold it until then (Arm ARM D8.17,
    /// RBLDZX).
    pub invalidated: bool,
}

/// One entry of one table in one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPlace {
    pub root: u32,
    pub level: i8,
    /// The first address the entry translates.
    pub va: u64,
    /// The physical address of the entry.
    pub pa: u64,
}

/// A range that a CPU may access at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InUse {
    pub va: u64,
    pub last: u64,
    pub kind: Use,
}

/// The state of one CPU.
#[derive(Debug)]
pub(crate) struct Cpu {
    /// Per space: the roots that a walk may start from; several until an ISB makes the last one
    /// certain.
    pub walks: [Vec<u32>; SPACES],
    /// Per space: roots that the CPU left and may hold a part of.
    pub left: [Vec<LeftRoot>; SPACES],
    /// The shape of each space by this CPU's TCR.
    pub shapes: [Shape; SPACES],
    /// Per space: the base register, if it was written.
    pub bases: [Option<u64>; SPACES],
    /// TCR of each regime, if it was written.
    pub tcr: [Option<Tcr>; REGIMES],
    /// HCR_EL2, if it was written.
    pub hcr: Option<u64>,
    /// Per regime: SCTLR.M was written as 0.
    pub mmu_off: [bool; REGIMES],
    /// VTCR_EL2, if it was written.
    pub vtcr: Option<u64>,
    /// Per space: its shape is to become that of all CPUs once it walks.
    pub adopts: [bool; SPACES],
    /// Per space: TCR was changed and no ISB followed yet.
    pub control_pending: [bool; SPACES],
    /// Per regime: the slots of MAIR that were changed without an ISB since, one bit each.
    pub mair_pending: [u8; REGIMES],
    /// Per regime: a base register got another ASID, and no ISB followed yet.
    pub asid_pending: [bool; REGIMES],
    /// HCR_EL2 changed which regime EL1's TLBIs are for, and no ISB followed yet.
    pub host_pending: bool,
    /// Ranges that it may access at any moment.
    pub uses: Vec<InUse>,
    /// Invalidations that no DSB has completed, with the time of each.
    pub tlbis: Vec<(Scope, u64)>,
    /// What this CPU's own invalidations removed from it. Without FEAT_ETS2 the CPU may hold it
    /// until the ISB after the DSB (Arm ARM D8.17, RBLDZX).
    pub invalidated: Vec<Held>,
}

impl Cpu {
    fn new(shapes: [Shape; SPACES]) -> Self {
        Self {
            shapes,
            walks: Default::default(),
            left: Default::default(),
            bases: [None; SPACES],
            tcr: [None; REGIMES],
            hcr: None,
            mmu_off: [false; REGIMES],
            vtcr: None,
            adopts: [false; SPACES],
            control_pending: [false; SPACES],
            mair_pending: [0; REGIMES],
            asid_pending: [false; REGIMES],
            host_pending: false,
            uses: Vec::new(),
            tlbis: Vec::new(),
            invalidated: Vec::new(),
        }
    }
}

/// The root of a space without walks (TCR.EPD): no memory is there.
pub(crate) const NO_TABLE: u64 = 1 << 60;

/// The most uses of one table, and of all tables. Honest trees stay far below.
pub(crate) const MAX_PLACES: (usize, usize) = (1 << 12, 1 << 22);

/// The most older values of one word that walkers may see.
pub(crate) const MAX_OLDER: usize = 1 << 10;

/// The most pages of memory that may be stored to: 8 GiB.
pub(crate) const MAX_PAGES: usize = 1 << 21;

/// A machine to run events on.
pub struct Machine {
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) passed: Passed,
    pub(crate) cached: CachedSpaces,
    pub(crate) roots: Vec<Root>,
    /// The last root of each space, table and identifier.
    pub(crate) root_numbers: FxHashMap<(Space, u64, u16), u32>,
    /// The roots that some CPU walks or may hold a part of.
    pub(crate) alive: Vec<u32>,
    pub(crate) upper_asids: UpperAsids,
    /// Per space: the CPUs that set CnP.
    pub(crate) common: [u64; SPACES],
    /// The spaces that ever had a root: a set, by their numbers.
    pub(crate) spaces: u8,
    pub(crate) cpus: Vec<Cpu>,
    /// The shape of each space by the present TCR.
    pub(crate) shapes: [Shape; SPACES],
    /// MAIR of each regime, if it was written.
    pub(crate) mair: [Option<u64>; REGIMES],
    pub(crate) fresh: FreshEntries,
    /// Words that a CPU ordered its stores to for its own walks alone, by DSB NSH.
    pub(crate) alone: FxHashSet<(usize, u64)>,
    /// What changed since software relied on the tables last.
    pub(crate) dirty: DirtySpaces,
    /// Whether a table descriptor that can be walked ever restricted what is below it.
    pub(crate) hierarchical: bool,
    /// Whether hardware updates leaves of any space, or ever did.
    pub(crate) updates: bool,
    /// Contiguous runs to check when software relies on them: root, level, first entry, first
    /// address.
    pub(crate) runs: FxHashSet<(u32, i8, u64, u64)>,
    /// The time: the number of the present event, from 1.
    pub(crate) now: u64,
    /// The number of DSBs of reads and writes so far: what was overwritten between two of them is
    /// one edit.
    pub(crate) edit: u64,
    /// Access that was taken back, until its thread returns to EL0.
    pub(crate) pending: PendingEdits,
    /// Where the instruction of the present event lies.
    pub(crate) pc: Option<u64>,
    /// TLBIs that were complete last, with the time at which each was issued.
    pub(crate) recent: VecDeque<(Scope, u64)>,
    /// What was reported of the present event.
    pub(crate) reported: FxHashSet<(Rule, Option<u64>, Option<u64>)>,
    /// Contiguous runs that were reported, until they are even again: root, level, first entry.
    pub(crate) excused: FxHashSet<(u32, i8, u64)>,
    /// Pages that were freed though walks reach them.
    pub(crate) freed: FxHashSet<u64>,
    /// Steps of a search that the present event may still take.
    pub(crate) work: u64,
    /// Steps of searches so far.
    pub(crate) steps: u64,
    /// The uses of each table.
    pub(crate) tables: FxHashMap<u64, Vec<TableUse>>,
    /// The number of uses of all tables.
    pub(crate) places: usize,
    /// Whether `tables` has exactly the tables that pointers lead to. It has not where a violation
    /// was found amid a change of them.
    pub(crate) links_whole: bool,
    /// Root tables that begin at an address that is not a multiple of the granule, or are larger.
    pub(crate) odd_roots: Vec<u64>,
    /// The last table of pages for which the comparison with its own tree was found to need no more
    /// than its entries.
    pub(crate) straight: Option<(u32, u64)>,
    /// The number of events so far.
    pub(crate) events: usize,
    /// The number of the last [`Settled`](linmap_trace::Event::Settled).
    pub(crate) settled: Option<usize>,
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
    /// The machine that `config` describes, with no register written.
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let shapes = Space::ALL.map(|space| Shape::of(config, space));
        Ok(Self {
            memory: Memory::new(config),
            passed: Passed::new(config.cpus),
            cached: CachedSpaces::default(),
            roots: Vec::new(),
            root_numbers: FxHashMap::default(),
            alive: Vec::new(),
            upper_asids: UpperAsids::default(),
            common: [0; SPACES],
            spaces: 0,
            cpus: (0..config.cpus).map(|_| Cpu::new(shapes)).collect(),
            shapes,
            mair: [None; REGIMES],
            fresh: FreshEntries::new(config.cpus),
            alone: FxHashSet::default(),
            dirty: DirtySpaces::default(),
            hierarchical: false,
            updates: false,
            runs: FxHashSet::default(),
            now: 0,
            edit: 0,
            pending: PendingEdits::new(config.cpus),
            pc: None,
            recent: VecDeque::new(),
            reported: FxHashSet::default(),
            excused: FxHashSet::default(),
            freed: FxHashSet::default(),
            work: 0,
            steps: 0,
            tables: FxHashMap::default(),
            places: 0,
            links_whole: true,
            odd_roots: Vec::new(),
            straight: None,
            events: 0,
            settled: None,
            broken: None,
            config: config.clone(),
        })
    }

    /// The machine as it was described.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The newest value of the word at `pa`, a multiple of 8; `None` when nothing was stored there.
    pub fn word(&self, pa: u64) -> Option<u64> {
        self.memory.newest(pa)
    }

    /// The 512 words of the 4 KiB page of `pa`, and a bit for each that was stored to, 64 bits to a
    /// word; `None` if none was.
    pub fn stored_page(&self, pa: u64) -> Option<(&[u64], &[u64])> {
        self.memory.stored_page(pa)
    }

    /// Whether `va` lies in a range that `cpu` may access at any moment, by a
    /// [`Uses`](linmap_trace::Event::Uses) that has not ended.
    pub fn is_in_use(&self, cpu: usize, va: u64) -> bool {
        self.cpus[cpu].uses.iter().any(|in_use| in_use.va <= va && va <= in_use.last)
    }

    /// The steps that searches have taken so far, each of about the same cost: of tables for what
    /// can be walked, and of what may be cached for what disagrees.
    pub fn steps(&self) -> u64 {
        self.steps
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

    /// Counts a step of a search, which hostile tables could make endless.
    pub(crate) fn spend(&mut self) -> Check {
        self.spend_all(1)
    }

    /// Counts `steps` at once.
    pub(crate) fn spend_all(&mut self, steps: u64) -> Check {
        self.work = self.work.saturating_sub(steps);
        self.steps += steps;
        if self.work == 0 { Err(Violation::new(Rule::TooComplex)) } else { Ok(()) }
    }

    /// All CPUs.
    pub(crate) fn everyone(&self) -> u64 {
        u64::MAX >> (64 - self.cpus.len())
    }

    /// The spaces that may have anything to walk or hold.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = Space> + use<> {
        let set = self.spaces;
        Space::ALL.into_iter().filter(move |space| set >> space.index() & 1 == 1)
    }

    /// What a walk makes of `value` at `place`.
    pub(crate) fn entry(&self, place: EntryPlace, value: u64) -> Entry {
        let Root { space, shape, .. } = self.roots[place.root as usize];
        read(shape, space, place.level, value)
    }

    /// The leaf that `value` is at `level` of a table of `root`, if it is one.
    pub(crate) fn leaf(&self, root: u32, level: i8, value: u64) -> Option<Leaf> {
        let Root { space, shape, .. } = self.roots[root as usize];
        match read(shape, space, level, value) {
            Entry::Leaf(leaf) => Some(leaf),
            Entry::Invalid | Entry::Table(_) => None,
        }
    }

    /// The memory type that MAIR has for the attribute index of a leaf of `space`. Returns the
    /// index itself before MAIR is written, and at stage 2, whose descriptors have the types.
    pub(crate) fn memory_type(&self, space: Space, index: u8) -> u8 {
        match Regime::of(space).and_then(|regime| self.mair[regime.index()]) {
            Some(mair) => (mair >> (8 * index)) as u8,
            None => index,
        }
    }
}

/// The first CPU of a set.
pub(crate) fn first_cpu(cpus: u64) -> usize {
    cpus.trailing_zeros() as usize
}

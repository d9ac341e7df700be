//! The machine: what is true of it after each event, and the check of each.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::cached::{CachedSpaces, Held};
use crate::event::{Event, Register, Use};
use crate::fresh::FreshEntries;
use crate::invalidate::Scope;
use crate::memory::Memory;
use crate::rules::Rule;
use crate::shape::{Config, ConfigError};
use crate::space::{Shape, Space};
use crate::violation::Violation;

/// Every check ends in this.
pub(crate) type Check<T = ()> = Result<T, Violation>;

/// Where a table is used: a frame may serve several trees, and several places of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
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
pub(crate) struct Left {
    pub root: u32,
    /// Since when it is walked no more.
    pub since: u64,
    /// An invalidation by this CPU itself has reached all of it, and lacks the context synchronization behind its DSB:
    /// without FEAT_ETS2 the CPU's own TLB may hold it until then (Arm ARM D8.17, RBLDZX).
    pub invalidated: bool,
}

/// One entry of one table in one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
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
    pub left: [Vec<Left>; 4],
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

/// The most entries that one event may make the model compare.
const MAX_WORK: u64 = 1 << 28;

/// The most words that one event stores: more than any table has.
const MAX_FILL: u64 = 1 << 20;

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
    pub(crate) tables: FxHashMap<u64, Vec<At>>,
    pub(crate) places: usize,
    /// Root tables that do not begin at a multiple of the granule.
    pub(crate) odd_roots: Vec<u64>,
    /// The last table of pages that was found where [`fits_in`](Self::fits_in) need not look further.
    pub(crate) straight: Option<(u32, u64)>,
    events: usize,
    broken: Option<Violation>,
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
    pub fn page(&self, pa: u64) -> Option<&[u64]> {
        self.memory.known_page(pa)
    }

    /// Whether `cpu` said that it uses `va`.
    pub fn in_use(&self, cpu: usize, va: u64) -> bool {
        self.cpus[cpu].uses.iter().any(|in_use| in_use.va <= va && va <= in_use.last)
    }

    /// Lets `event` happen.
    ///
    /// # Errors
    /// The [`Violation`] that makes it, or what was legal before it, unsafe. What such a machine does afterwards means
    /// nothing, so every later event gives the same violation.
    pub fn step(&mut self, event: &Event) -> Check {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        self.now += 1;
        self.work = MAX_WORK;
        let number = self.events;
        self.events += 1;
        self.run(event).map_err(|violation| {
            let violation = Violation { event: number, ..violation };
            self.broken = Some(violation);
            violation
        })
    }

    fn run(&mut self, event: &Event) -> Check {
        match *event {
            Event::Store { cpu, pa, value, via } => {
                self.cpu(cpu)?;
                self.in_memory(pa, 8)?;
                if let Some(via) = via {
                    self.reaches(cpu, via, Use::Write, pa)?;
                }
                self.store(cpu, pa, value)
            }
            Event::Fill { cpu, pa, count, first, step } => {
                self.cpu(cpu)?;
                let len = count.checked_mul(8).ok_or(Violation::of(Rule::NotMemory).entry(pa))?;
                self.in_memory(pa, len)?;
                if count > MAX_FILL {
                    return Err(Violation::of(Rule::TooComplex).entry(pa));
                }
                let mut value = first;
                for at in (pa..pa + len).step_by(8) {
                    self.store(cpu, at, value)?;
                    value = value.wrapping_add(step);
                }
                Ok(())
            }
            Event::Dsb { cpu, domain, access } => {
                self.cpu(cpu)?;
                self.dsb(cpu, domain, access)
            }
            Event::Isb { cpu } => {
                self.cpu(cpu)?;
                self.isb(cpu)
            }
            Event::Tlbi { cpu, tlbi, operand } => {
                self.cpu(cpu)?;
                self.tlbi(cpu, tlbi, operand);
                Ok(())
            }
            Event::Write { cpu, register, value } => {
                self.cpu(cpu)?;
                match register {
                    Register::Ttbr0 => self.write_base(cpu, Space::Low, value),
                    Register::Ttbr1 => self.write_base(cpu, Space::High, value),
                    Register::Ttbr0El2 => self.write_base(cpu, Space::El2, value),
                    Register::Vttbr => self.write_base(cpu, Space::Stage2, value),
                    Register::Tcr => self.write_tcr(cpu, value),
                    Register::Mair => self.write_mair(value),
                }
            }
            Event::Access { cpu, va, kind, pa } => {
                self.cpu(cpu)?;
                self.reaches(cpu, va, kind, pa)
            }
            Event::Faults { cpu, va, kind } => {
                self.cpu(cpu)?;
                self.faults(cpu, va, kind)
            }
            Event::Uses { cpu, va, len, kind } => {
                self.cpu(cpu)?;
                let last = len.checked_sub(1).and_then(|len| va.checked_add(len));
                let last = last.ok_or(Violation::of(Rule::Unmodelled).at(va))?;
                let in_use = InUse { va, last, kind };
                self.keeps(cpu, in_use)?;
                self.cpus[cpu].uses.push(in_use);
                Ok(())
            }
            Event::Unuses { cpu, va, len, kind } => {
                self.cpu(cpu)?;
                let last = va.wrapping_add(len).wrapping_sub(1);
                let uses = &mut self.cpus[cpu].uses;
                match uses.iter().position(|in_use| *in_use == InUse { va, last, kind }) {
                    Some(nth) => {
                        uses.swap_remove(nth);
                        Ok(())
                    }
                    None => Err(Violation::of(Rule::Unmodelled).on(cpu).at(va)),
                }
            }
            Event::Free { pa, len } => self.free(pa, len),
            Event::Settled => self.settle(),
        }
    }

    pub(crate) fn cpu(&self, cpu: usize) -> Check {
        if cpu < self.cpus.len() { Ok(()) } else { Err(Violation::of(Rule::NoSuchCpu).on(cpu)) }
    }

    pub(crate) fn in_memory(&self, pa: u64, len: u64) -> Check {
        if pa.is_multiple_of(8) && self.memory.holds(pa, len) {
            Ok(())
        } else {
            Err(Violation::of(Rule::NotMemory).entry(pa))
        }
    }

    /// Counts a step of a search that hostile tables could make endless.
    pub(crate) fn spend(&mut self) -> Check {
        self.spend_all(1)
    }

    /// Counts `steps` at once.
    pub(crate) fn spend_all(&mut self, steps: u64) -> Check {
        self.work = self.work.saturating_sub(steps);
        if self.work == 0 { Err(Violation::of(Rule::TooComplex)) } else { Ok(()) }
    }

    /// All CPUs.
    pub(crate) fn everyone(&self) -> u64 {
        u64::MAX >> (64 - self.cpus.len())
    }
}

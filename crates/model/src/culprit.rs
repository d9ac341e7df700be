//! What a CPU may still hold at a violation, and why no invalidation removed it.

use linmap_trace::{Access, Domain, Event, Register};

use crate::cached::{Held, SEEN, touches};
use crate::descriptor::{Entry, read};
use crate::machine::{LeftRoot, Machine, first_cpu};
use crate::miss::Miss;
use crate::scope::{Scope, Void};
use crate::space::Space;
use crate::violation::Violation;

/// TLBIs and DSBs, by their numbers, with the reason why each did not do away with what is held;
/// `None` for a DSB that did what it was for.
pub(crate) type Misses = Vec<(usize, Option<Miss>)>;

/// What is held though the tables say otherwise.
#[derive(Clone, Copy, Debug)]
enum What {
    /// An overwritten descriptor.
    Entry(Held),
    /// A tree that a TTBR left.
    Tree(LeftRoot),
}

/// What a CPU holds at a violation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Culprit {
    what: What,
    space: Space,
    /// The CPU in danger.
    cpu: usize,
    /// The first event that can have removed it.
    pub since: usize,
}

impl Culprit {
    /// What `violation`, which ended the run of `events` on `machine`, is about.
    pub fn of(machine: &Machine, events: &[Event], violation: &Violation) -> Option<Self> {
        let va = violation.va?;
        Space::ALL.into_iter().find_map(|space| match Self::entry(machine, violation, space) {
            Some(held) => Some(Self {
                what: What::Entry(held),
                space,
                cpu: violation.cpu.unwrap_or_else(|| first_cpu(held.cpus)),
                since: held.replaced as usize,
            }),
            None if machine.shapes[space.index()].holds(space, va) => {
                Self::tree(machine, events, violation, space)
            }
            None => None,
        })
    }

    /// The first event that can have removed what `violation` is about, as far as it is known
    /// without the events. A tree counts from when it was left for certain.
    pub fn since(machine: &Machine, violation: &Violation) -> Option<usize> {
        let va = violation.va?;
        Space::ALL.into_iter().find_map(|space| match Self::entry(machine, violation, space) {
            Some(held) => Some(held.replaced as usize),
            None if machine.shapes[space.index()].holds(space, va) => {
                let left = machine.cpus.get(violation.cpu?)?.left[space.index()].first()?;
                Some(left.since as usize)
            }
            None => None,
        })
    }

    /// The overwritten descriptor of `space` that `violation` is about.
    pub fn entry(machine: &Machine, violation: &Violation, space: Space) -> Option<Held> {
        let va = violation.va?;
        let shape = machine.shapes[space.index()];
        let concerned = |held: &&Held| {
            machine.roots[held.root as usize].space == space
                && touches(shape, held, va, va)
                && violation.cpu.is_none_or(|cpu| held.cpus >> cpu & 1 == 1)
        };
        let near = machine.cached.of(space).touching(shape, va, va);
        let all = || {
            let unfinished = machine.cpus.iter().flat_map(|cpu| &cpu.invalidated);
            near.iter().chain(unfinished).filter(concerned)
        };
        let pointer = |held: &&Held| machine.leaf(held.root, held.level, held.value).is_none();
        all()
            .find(|held| Some(held.value) == violation.old)
            .or_else(|| all().filter(pointer).max_by_key(|held| held.level))
            .copied()
    }

    fn tree(machine: &Machine, events: &[Event], violation: &Violation, space: Space) -> Option<Self> {
        let cpu = violation.cpu?;
        let left = *machine.cpus.get(cpu)?.left[space.index()].first()?;
        let before = events.get(..left.since as usize)?;
        let register = match space {
            Space::Low => Register::Ttbr0,
            Space::High => Register::Ttbr1,
            Space::El2 => Register::Ttbr0El2,
            Space::El2High => Register::Ttbr1El2,
            Space::El3 => Register::Ttbr0El3,
            Space::Stage2 => Register::Vttbr,
        };
        let leaves = |event: &Event| match *event {
            Event::Write { cpu: by, register: to, .. } => (by, to) == (cpu, register),
            _ => false,
        };
        let since = before.iter().rposition(leaves)? + 1;
        Some(Self { what: What::Tree(left), space, cpu, since })
    }

    /// Why the TLBI `scope` that `by` issued at `issued` did not remove it, apart from barriers.
    fn out_of_scope(&self, machine: &Machine, scope: &Scope, by: usize) -> Option<Miss> {
        if !scope.reaches(self.space) {
            return Some(Miss::OtherRegime);
        }
        let root = match self.what {
            What::Entry(held) => held.root,
            What::Tree(left) => left.root,
        };
        let root = machine.roots[root as usize];
        let of_id = |global| match scope.id {
            _ if scope.is_of(self.space, root.id, global) => None,
            _ if global => Some(Miss::Global),
            Some(_) if self.space.is_upper() => Some(Miss::IdOfLowHalf),
            Some(given) => Some(Miss::OtherId { given, held: root.id }),
            None => Some(Miss::Vmid),
        };
        let missed = match self.what {
            What::Tree(_) => of_id(false).or(scope.range.map(|_| Miss::PartOfTree)),
            What::Entry(held) => {
                let last = held.va + ((1u64 << root.shape.shift(held.level)) - 1);
                let entry = read(root.shape, self.space, held.level, held.value);
                let (global, table) = match entry {
                    Entry::Leaf(leaf) => (leaf.global, false),
                    Entry::Table(_) | Entry::Invalid => (false, true),
                };
                let elsewhere = scope.range.filter(|_| !scope.touches(held.va, last));
                let hinted =
                    scope.hint.filter(|hint| if table { *hint <= held.level } else { *hint != held.level });
                if let Some(void) = scope.void {
                    Some(match void {
                        Void::Granule => Miss::Granule,
                        Void::Start => Miss::RangeStart,
                        Void::Vmid => Miss::Vmid,
                        Void::Regime => Miss::Regime,
                    })
                } else if let Some((first, last)) = elsewhere {
                    Some(Miss::OtherAddress { first, last })
                } else if let Some(missed) = of_id(global) {
                    Some(missed)
                } else if let Some(hint) = hinted {
                    Some(Miss::Level { hint, level: held.level })
                } else if table && scope.last_level {
                    Some(Miss::LeavesAlone)
                } else if held.combined && (scope.stage2_alone || scope.range.is_some()) {
                    Some(Miss::StageAlone)
                } else {
                    None
                }
            }
        };
        let local = || {
            let root = match self.what {
                What::Entry(held) => held.root,
                What::Tree(left) => left.root,
            };
            let others = machine.common[self.space.index()] & !(1 << by);
            match scope.broadcast {
                true => None,
                false if by != self.cpu => Some(Miss::Local { holder: self.cpu }),
                false if machine.outlives_local(by, root) => Some(Miss::Local { holder: first_cpu(others) }),
                false => None,
            }
        };
        missed.or_else(local)
    }

    /// Whether walkers may use it at this moment, so that a TLBI issued now is too early.
    fn too_early(&self, machine: &Machine) -> Option<Miss> {
        match self.what {
            What::Entry(held) => {
                let now = machine.cached.of(self.space).all();
                let same = |other: &&Held| {
                    (other.root, other.level, other.va, other.value)
                        == (held.root, held.level, held.va, held.value)
                };
                now.filter(same).any(|held| held.since == SEEN).then_some(Miss::BeforeOrdered)
            }
            What::Tree(left) => {
                let gone = &machine.cpus[self.cpu].left[self.space.index()];
                let certain = gone.iter().any(|now| now.root == left.root);
                (!certain).then_some(Miss::BeforeLeft)
            }
        }
    }

    /// Why a TLBI that was issued at the right time and reaches it did not remove it, at the end.
    fn at_the_end(&self, machine: &Machine, by: usize, issued: u64) -> Miss {
        if machine.cpus[by].tlbis.iter().any(|(_, time)| *time == issued) {
            return Miss::Incomplete;
        }
        let waits = match self.what {
            What::Entry(held) => machine.cpus[self.cpu].invalidated.contains(&held),
            What::Tree(left) => {
                let gone = &machine.cpus[self.cpu].left[self.space.index()];
                gone.iter().any(|now| now.root == left.root && now.invalidated)
            }
        };
        if waits && by == self.cpu { Miss::NoIsb } else { Miss::CachedAgain }
    }

    /// How far the addresses that `miss` names lie from it.
    pub fn distance(&self, miss: &Miss) -> u64 {
        match (*miss, self.what) {
            (Miss::OtherAddress { first, last }, What::Entry(held)) => {
                first.abs_diff(held.va).min(last.abs_diff(held.va))
            }
            _ => 0,
        }
    }

    /// Every TLBI and DSB of `events` since it was overwritten or left, with the reason why it did
    /// not do away with it; `None` for a DSB that did what it was for. `machine` has run none of
    /// the events, `end` all of them.
    pub fn misses(&self, mut machine: Machine, end: &Machine, events: &[Event]) -> Misses {
        let mut found = Vec::new();
        for (nth, event) in events.iter().enumerate() {
            // What waits before the event, which for a DSB is what it may complete or order.
            let pending = |machine: &Machine, cpu: usize| {
                let tlbis = &machine.cpus[cpu].tlbis;
                (!tlbis.is_empty(), tlbis.iter().any(|(scope, _)| scope.broadcast))
            };
            let early = self.too_early(&machine);
            let miss = match *event {
                _ if nth < self.since => None,
                Event::Dsb { cpu, domain, access } => {
                    let (any, broadcast) = pending(&machine, cpu);
                    let orders = early == Some(Miss::BeforeOrdered);
                    let other =
                        (0..machine.cpus.len()).find(|other| *other != cpu && pending(&machine, *other).0);
                    let several = machine.cpus.len() > 1;
                    if domain == Domain::Nsh && ((orders && several) || (any && broadcast)) {
                        Some(Some(Miss::NonShareable))
                    } else if any && access == Access::Stores {
                        Some(Some(Miss::StoresOnly))
                    } else if any || orders {
                        Some(None)
                    } else {
                        other.map(|needed| Some(Miss::OtherCpu { needed }))
                    }
                }
                _ => None,
            };
            if machine.step(event).is_err() {
                break;
            }
            if let Event::Tlbi { cpu, .. } = *event
                && nth >= self.since
                && let Some((scope, issued)) = machine.cpus[cpu].tlbis.last()
            {
                let why = self.out_of_scope(&machine, scope, cpu).or(early);
                found.push((nth, Some(why.unwrap_or_else(|| self.at_the_end(end, cpu, *issued)))));
            }
            if let Some(miss) = miss {
                found.push((nth, miss));
            }
        }
        found
    }
}

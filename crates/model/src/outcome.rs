//! What an access finds in the tables of one stage: every outcome that a legal caching allows.

use crate::cached::{Held, SEEN, touches};
use crate::descriptor::{Entry, Leaf, is_cacheable, read};
use crate::limits::Limits;
use crate::machine::{Check, Machine, Root};
use crate::rules::Rule;
use crate::space::Space;

/// A leaf that an access may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub leaf: Leaf,
    pub level: i8,
    pub value: u64,
    /// The first address that the leaf translates.
    pub va: u64,
}

/// Where a walk goes on, and what was taken away before.
#[derive(Clone, Copy)]
struct Step {
    root: u32,
    table: u64,
    level: i8,
    /// The first address that the table translates.
    base: u64,
    limits: Limits,
}

impl Step {
    /// The first step from a root.
    fn from(root: u32, Root { table, shape, space, .. }: Root) -> Self {
        Self { root, table, level: shape.start, base: shape.base(space), limits: Limits::NONE }
    }
}

/// All outcomes of an access, as far as one stage decides.
#[derive(Default)]
pub(crate) struct Outcomes {
    pub found: Vec<Found>,
    /// The reason why it may fault, if it may.
    pub fault: Option<Rule>,
    /// log2 of the bytes around the address with the same outcomes.
    pub shift: u32,
}

impl Outcomes {
    /// Adds the outcome for `va` of a TLB entry for `held`, whose leaf is `leaf`.
    fn held(&mut self, leaf: Leaf, held: &Held, va: u64) {
        if leaf.no_translation {
            self.fault = self.fault.or(Some(Rule::MayAbort));
        }
        self.run(leaf, held.limits, held.level, held.value, held.va, va);
    }

    /// Adds the leaf for `start`, which may be cached as one entry for its contiguous run: that
    /// entry translates `va` at the same distance.
    fn run(&mut self, leaf: Leaf, limits: Limits, level: i8, value: u64, start: u64, va: u64) {
        let at = va & (u64::MAX << leaf.shift);
        let leaf = Leaf { pa: leaf.pa.wrapping_add(at.wrapping_sub(start)), ..leaf };
        self.narrow(leaf.shift);
        self.add(leaf, limits, level, value, at);
    }

    /// Adds a leaf for `va`, by every combination of what may have been taken away from it.
    fn add(&mut self, leaf: Leaf, limits: Limits, level: i8, value: u64, va: u64) {
        for limit in limits.each() {
            let leaf = leaf.within(limit);
            if self.found.last().is_none_or(|last| (last.leaf, last.level, last.va) != (leaf, level, va)) {
                self.found.push(Found { leaf, level, value, va });
            }
        }
    }

    /// Adds each leaf again with what `limits` take away.
    fn limit(&mut self, limits: Limits) {
        for nth in 0..self.found.len() {
            let found = self.found[nth];
            for leaf in limits.each().map(|limit| found.leaf.within(limit)) {
                let same =
                    |other: &Found| (other.leaf, other.level, other.va) == (leaf, found.level, found.va);
                if !self.found.iter().any(same) {
                    self.found.push(Found { leaf, ..found });
                }
            }
        }
    }

    fn narrow(&mut self, shift: u32) {
        self.shift = self.shift.min(shift);
    }
}

impl Machine {
    /// The outcomes for `va` by the tables of `space`.
    pub(crate) fn outcomes(&mut self, cpu: usize, space: Space, va: u64) -> Check<Outcomes> {
        let shape = self.shapes[space.index()];
        let own = 1u64 << cpu;
        let mut outcomes = Outcomes { shift: shape.va_bits, ..Outcomes::default() };
        let walks = self.cpus[cpu].walks[space.index()].clone();
        let ids: Vec<u16> = walks.iter().map(|root| self.roots[*root as usize].id).collect();
        for &root in &walks {
            self.walk(Step::from(root, self.roots[root as usize]), va, &mut outcomes)?;
        }
        let mut left: Vec<u32> = self.cpus[cpu].left[space.index()].iter().map(|left| left.root).collect();
        left.extend(self.borrowed(cpu, space).into_iter().filter(|root| !walks.contains(root)));
        for root in left {
            let Root { id, shape, .. } = self.roots[root as usize];
            let mut others = Outcomes { shift: shape.va_bits, ..Outcomes::default() };
            if shape.holds(space, va) {
                self.walk(Step::from(root, self.roots[root as usize]), va, &mut others)?;
            }
            outcomes.narrow(others.shift);
            outcomes
                .found
                .extend(others.found.into_iter().filter(|found| found.leaf.global || ids.contains(&id)));
        }
        for held in self.cached.of(space).touching(shape, va, va) {
            if held.cpus & own == 0 {
                continue;
            }
            let in_use = ids.contains(&self.roots[held.root as usize].id);
            match read(shape, space, held.level, held.value) {
                Entry::Leaf(leaf) if leaf.global || in_use => outcomes.held(leaf, &held, va),
                Entry::Table(table) if held.since != SEEN => {
                    let mut others = Outcomes { shift: shape.shift(held.level), ..Outcomes::default() };
                    let limits = held.limits.below(shape, held.value);
                    let step = Step { root: held.root, table, level: held.level + 1, base: held.va, limits };
                    self.walk(step, va, &mut others)?;
                    outcomes.narrow(others.shift);
                    outcomes
                        .found
                        .extend(others.found.into_iter().filter(|found| found.leaf.global || in_use));
                }
                _ => {}
            }
        }
        for held in self.cpus[cpu].invalidated.iter().filter(|held| touches(shape, held, va, va)) {
            let root = self.roots[held.root as usize];
            if root.space != space {
                continue;
            }
            match self.leaf(held.root, held.level, held.value) {
                Some(leaf) if leaf.global || ids.contains(&root.id) => outcomes.held(leaf, held, va),
                // What it took away may still be taken away.
                None => outcomes.limit(held.limits.below(root.shape, held.value)),
                _ => {}
            }
        }
        // Other entries may begin at any page: the outcomes are certain for one page alone.
        if !self.cached.of(space).is_empty() {
            outcomes.narrow(shape.granule);
        }
        if self.fresh.may_fault(cpu, space, shape, va) {
            outcomes.fault = outcomes.fault.or(Some(Rule::NoIsb));
            outcomes.narrow(shape.granule);
        }
        Ok(outcomes)
    }

    /// Adds the outcomes of a walk from `table` on.
    fn walk(&mut self, step: Step, va: u64, outcomes: &mut Outcomes) -> Check {
        let Step { root, table, level, base, limits } = step;
        self.spend()?;
        let Root { shape, space, .. } = self.roots[root as usize];
        let shift = shape.shift(level);
        let index = (va - base) >> shift;
        let pa = table + 8 * index;
        let start = base + (index << shift);
        outcomes.narrow(shift);
        for side in self.around(root, table, level, base, (va, va))? {
            if let Some(leaf) = self.leaf(root, level, side.value)
                && side.va != start
            {
                outcomes.run(leaf, limits, level, side.value, side.va, va);
            }
        }
        let mut values = Vec::new();
        self.memory.seen(pa, |value| values.push(value));
        let newest = values.first().copied().flatten();
        for value in values {
            let entry = value.map_or(Entry::Invalid, |value| read(shape, space, level, value));
            match entry {
                Entry::Table(next) => {
                    let limits = limits.below(shape, value.unwrap_or(0));
                    let step = Step { root, table: next, level: level + 1, base: start, limits };
                    self.walk(step, va, outcomes)?;
                }
                Entry::Leaf(leaf) if leaf.accessed => {
                    if leaf.no_translation {
                        outcomes.fault = Some(Rule::MayAbort);
                    }
                    outcomes.add(leaf, limits, level, value.unwrap_or(0), start);
                }
                Entry::Leaf(_) | Entry::Invalid => {
                    let valid_now = newest.is_some_and(|newest| is_cacheable(shape, level, newest));
                    outcomes.fault = Some(if valid_now { Rule::Unordered } else { Rule::MayFault });
                }
            }
        }
        Ok(())
    }

    /// Whether the outcomes include a TLB conflict abort. At levels 1 and 2 two entries of
    /// different size raise one, or two entries of one run with and without the contiguous bit.
    pub(crate) fn may_abort(&self, outcomes: &Outcomes) -> bool {
        matches!(self.config.bbm, 1 | 2)
            && outcomes.found.windows(2).any(|pair| {
                pair[0].level != pair[1].level || pair[0].leaf.contiguous != pair[1].leaf.contiguous
            })
    }
}

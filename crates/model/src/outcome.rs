//! Accesses: every outcome that a legal caching allows, and whether all of them are right.

use linmap_trace::Use;

use crate::cached::{Held, SEEN, touches};
use crate::descriptor::{Entry, Leaf, is_cacheable, read};
use crate::limits::Limits;
use crate::machine::{Check, InUse, LeftRoot, Machine, Root};
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

/// A leaf that an access may use.
#[derive(Clone, Copy, Debug)]
struct Found {
    leaf: Leaf,
    level: i8,
    value: u64,
    /// The first address that the leaf translates.
    va: u64,
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

/// All outcomes of an access.
#[derive(Default)]
struct Outcomes {
    found: Vec<Found>,
    /// The reason why it may fault, if it may.
    fault: Option<Rule>,
    /// log2 of the bytes around the address with the same outcomes.
    shift: u32,
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

    fn narrow(&mut self, shift: u32) {
        self.shift = self.shift.min(shift);
    }
}

impl Machine {
    /// The space whose tables translate `va` for data and code of EL1; of EL2 while EL1 has no
    /// tables, and so on in the order of the spaces.
    fn space_of(&self, cpu: usize, va: u64) -> Option<Space> {
        let state = &self.cpus[cpu];
        Space::ALL.into_iter().find(|space| {
            self.shapes[space.index()].holds(*space, va) && !state.walks[space.index()].is_empty()
        })
    }

    fn outcomes(&mut self, cpu: usize, space: Space, va: u64) -> Check<Outcomes> {
        let shape = self.shapes[space.index()];
        let own = 1u64 << cpu;
        let mut outcomes = Outcomes { shift: shape.va_bits, ..Outcomes::default() };
        let walks = self.cpus[cpu].walks[space.index()].clone();
        let ids: Vec<u16> = walks.iter().map(|root| self.roots[*root as usize].id).collect();
        for &root in &walks {
            self.walk(Step::from(root, self.roots[root as usize]), va, &mut outcomes)?;
        }
        let left = self.cpus[cpu].left[space.index()].clone();
        for LeftRoot { root, .. } in left {
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
                None if held.limits.below(root.shape, held.value) != Limits::NONE => {
                    outcomes.fault = outcomes.fault.or(Some(Rule::NoIsb));
                }
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
    fn may_abort(&self, outcomes: &Outcomes) -> bool {
        matches!(self.config.bbm, 1 | 2)
            && outcomes.found.windows(2).any(|pair| {
                pair[0].level != pair[1].level || pair[0].leaf.contiguous != pair[1].leaf.contiguous
            })
    }

    /// Whether the access is allowed; `None` if that is not known.
    fn allows(&self, leaf: &Leaf, space: Space, kind: Use) -> Option<bool> {
        match kind {
            Use::Read => Some(leaf.readable(space)),
            Use::Write => Some(leaf.writable(space)),
            Use::Execute => leaf.executable(self.shapes[space.index()], space),
        }
    }

    /// Checks that the access succeeds, whatever is cached. Returns log2 of the bytes around it for
    /// which that was shown, and the outcomes.
    fn succeeds(&mut self, cpu: usize, va: u64, kind: Use) -> Check<(u32, Vec<Found>)> {
        let violation = |rule| Violation::new(rule).on_cpu(cpu).at_va(va);
        let space = self.space_of(cpu, va).ok_or(violation(Rule::MayFault))?;
        let outcomes = self.outcomes(cpu, space, va)?;
        if let Some(rule) = outcomes.fault {
            return Err(violation(rule));
        }
        if self.may_abort(&outcomes) {
            return Err(violation(Rule::MayAbort));
        }
        match outcomes.found.iter().find(|found| self.allows(&found.leaf, space, kind) != Some(true)) {
            Some(found) => Err(violation(Rule::MayFault).with_values(found.value, found.value)),
            None if outcomes.found.is_empty() => Err(violation(Rule::MayFault)),
            None => Ok((outcomes.shift, outcomes.found)),
        }
    }

    /// Checks that the access reaches `pa`.
    pub(crate) fn check_reaches(&mut self, cpu: usize, va: u64, kind: Use, pa: u64) -> Check {
        let (_, found) = self.succeeds(cpu, va, kind)?;
        match found.iter().find(|found| found.leaf.pa.wrapping_add(va.wrapping_sub(found.va)) != pa) {
            Some(found) => Err(Violation::new(Rule::WrongAddress)
                .on_cpu(cpu)
                .at_va(va)
                .at_pa(pa)
                .with_values(found.value, pa)),
            None => Ok(()),
        }
    }

    /// The physical address of the access, if it succeeds and is the same whatever is cached.
    ///
    /// # Errors
    /// The [`Violation`] that the access would be.
    pub fn translate(&mut self, cpu: usize, va: u64, kind: Use) -> Check<u64> {
        self.check_cpu(cpu)?;
        self.work = 1 << 20;
        let (_, found) = self.succeeds(cpu, va, kind)?;
        let to = |found: &Found| found.leaf.pa.wrapping_add(va.wrapping_sub(found.va));
        let pa = found.first().map_or(0, to);
        match found.iter().find(|found| to(found) != pa) {
            Some(found) => Err(Violation::new(Rule::WrongAddress)
                .on_cpu(cpu)
                .at_va(va)
                .at_pa(pa)
                .with_values(found.value, pa)),
            None => Ok(pa),
        }
    }

    /// Checks that the access faults.
    pub(crate) fn check_faults(&mut self, cpu: usize, va: u64, kind: Use) -> Check {
        let Some(space) = self.space_of(cpu, va) else { return Ok(()) };
        let outcomes = self.outcomes(cpu, space, va)?;
        match outcomes.found.iter().find(|found| self.allows(&found.leaf, space, kind) != Some(false)) {
            Some(found) => Err(Violation::new(Rule::MayPass)
                .on_cpu(cpu)
                .at_va(va)
                .with_values(found.value, found.leaf.pa)),
            None => self.check_finished(cpu, space, va),
        }
    }

    /// Checks that no invalidated pointer may still lead a walk for `va` because an ISB is missing.
    fn check_finished(&self, cpu: usize, space: Space, va: u64) -> Check {
        let leads = |held: &&Held| {
            let Root { space: own, shape, .. } = self.roots[held.root as usize];
            own == space
                && touches(shape, held, va, va)
                && self.leaf(held.root, held.level, held.value).is_none()
        };
        match self.cpus[cpu].invalidated.iter().find(leads) {
            Some(held) => {
                Err(Violation::new(Rule::NoIsb).on_cpu(cpu).at_va(va).with_values(held.value, held.value))
            }
            None => Ok(()),
        }
    }

    /// Checks that every byte of a range in use is accessible.
    pub(crate) fn check_in_use(&mut self, cpu: usize, in_use: InUse) -> Check {
        let mut va = in_use.va;
        loop {
            let (shift, _) = self.succeeds(cpu, va, in_use.kind)?;
            match (va | ((1u64 << shift) - 1)).checked_add(1) {
                Some(next) if next <= in_use.last => va = next,
                _ => return Ok(()),
            }
        }
    }

    /// Checks that what `cpus` have in use of `start..=last` is accessible.
    pub(crate) fn check_all_in_use(&mut self, space: Space, cpus: u64, start: u64, last: u64) -> Check {
        for cpu in 0..self.cpus.len() {
            if cpus >> cpu & 1 == 0 {
                continue;
            }
            for nth in 0..self.cpus[cpu].uses.len() {
                let in_use = self.cpus[cpu].uses[nth];
                let part = InUse { va: in_use.va.max(start), last: in_use.last.min(last), ..in_use };
                if part.va <= part.last && self.space_of(cpu, part.va) == Some(space) {
                    self.check_in_use(cpu, part)?;
                }
            }
        }
        Ok(())
    }
}

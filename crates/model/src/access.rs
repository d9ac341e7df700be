//! Accesses: whether every outcome that a legal caching allows is right.
//!
//! Where a CPU has tables of EL1 and of stage 2, an access needs the permissions of both. The
//! tables of EL1 lie at intermediate physical addresses then; the model reads them at the same
//! physical addresses, and refuses stage 2 that has them elsewhere or not at all.

use linmap_trace::Use;

use crate::cached::{Held, touches};
use crate::descriptor::{Entry, Leaf, read};
use crate::machine::{Check, InUse, Machine, NO_TABLE, Root};
use crate::outcome::Outcomes;
use crate::regime::Regime;
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

/// One outcome of an access.
#[derive(Clone, Copy, Debug)]
struct Reached {
    /// Whether it is allowed; `None` if that is not known.
    allowed: Option<bool>,
    /// The address that it reaches.
    pa: u64,
    /// The descriptor of the stage that decides.
    value: u64,
}

/// All outcomes of an access.
struct Accesses {
    reached: Vec<Reached>,
    /// The reason why it may fault, if it may.
    fault: Option<Rule>,
    /// log2 of the bytes around the address with the same outcomes.
    shift: u32,
}

impl Machine {
    /// The space whose tables translate `va` for data and code of EL1; of EL2 while EL1 has no
    /// tables, and so on in the order of the spaces. Under HCR_EL2.{E2H, TGE} it is EL2&0.
    fn space_of(&self, cpu: usize, va: u64) -> Option<Space> {
        let state = &self.cpus[cpu];
        let is_other = |space: &Space| self.is_host(cpu) && Regime::of(*space) == Some(Regime::El1);
        let has_walks = |space: &Space| !is_other(space) && !state.walks[space.index()].is_empty();
        let mut spaces = self.spaces().filter(has_walks);
        // With the MMU off every address is one of the regime's.
        spaces.find(|space| self.shapes[space.index()].holds(*space, va) || self.is_off(cpu, *space))
    }

    /// Whether stage 2 translates what `space` of `cpu` translates to.
    fn has_stage_2(&self, cpu: usize, space: Space) -> bool {
        let walks = &self.cpus[cpu].walks[Space::Stage2.index()];
        let is_walked = |root: &u32| self.roots[*root as usize].table != NO_TABLE;
        matches!(space, Space::Low | Space::High) && walks.iter().any(is_walked)
    }

    /// Whether the access is allowed; `None` if that is not known.
    fn allows(&self, leaf: &Leaf, space: Space, kind: Use) -> Option<bool> {
        match kind {
            Use::Read => Some(leaf.readable(space)),
            Use::Write => Some(leaf.writable(space)),
            Use::Execute => leaf.executable(self.shapes[space.index()], space),
        }
    }

    /// Adds what `outcomes`, found for `va` in `space`, say of an access.
    fn reached(&self, outcomes: &Outcomes, space: Space, va: u64, kind: Use) -> Accesses {
        let abort = self.may_abort(outcomes).then_some(Rule::MayAbort);
        let reached = outcomes.found.iter().map(|found| Reached {
            allowed: self.allows(&found.leaf, space, kind),
            pa: found.leaf.pa.wrapping_add(va.wrapping_sub(found.va)),
            value: found.value,
        });
        Accesses { reached: reached.collect(), fault: outcomes.fault.or(abort), shift: outcomes.shift }
    }

    /// All outcomes of the access.
    fn accesses(&mut self, cpu: usize, space: Space, va: u64, kind: Use) -> Check<Accesses> {
        let is_flat = space != Space::Stage2 && self.is_off(cpu, space);
        let first = if is_flat {
            let flat = Reached { allowed: Some(true), pa: va, value: 0 };
            Accesses { reached: vec![flat], fault: None, shift: u64::BITS - 1 }
        } else {
            let outcomes = self.outcomes(cpu, space, va)?;
            self.reached(&outcomes, space, va, kind)
        };
        if !self.has_stage_2(cpu, space) {
            return Ok(first);
        }
        if !is_flat {
            self.check_tables_in_place(cpu, space, va)?;
        }
        let mut both = Accesses { reached: Vec::new(), ..first };
        for one in first.reached {
            if one.allowed == Some(false) {
                both.reached.push(one);
                continue;
            }
            if !self.shapes[Space::Stage2.index()].holds(Space::Stage2, one.pa) {
                both.fault = both.fault.or(Some(Rule::MayFault));
                continue;
            }
            let outcomes = self.outcomes(cpu, Space::Stage2, one.pa)?;
            let second = self.reached(&outcomes, Space::Stage2, one.pa, kind);
            both.fault = both.fault.or(second.fault);
            both.shift = both.shift.min(second.shift);
            both.reached.extend(second.reached.into_iter().map(|other| Reached {
                allowed: match (one.allowed, other.allowed) {
                    (_, Some(false)) => Some(false),
                    (Some(true), allowed) => allowed,
                    _ => None,
                },
                ..other
            }));
        }
        Ok(both)
    }

    /// Checks that stage 2 has the tables that a walk for `va` reads where they are.
    fn check_tables_in_place(&mut self, cpu: usize, space: Space, va: u64) -> Check {
        let Some(&root) = self.cpus[cpu].walks[space.index()].last() else { return Ok(()) };
        let Root { shape, mut table, .. } = self.roots[root as usize];
        let mut base = shape.base(space);
        for level in shape.start..=3 {
            let index = (va - base) >> shape.shift(level);
            let pa = table + 8 * index;
            let unmodelled = Violation::new(Rule::Unmodelled).on_cpu(cpu).at_va(va).at_pa(pa);
            if !self.shapes[Space::Stage2.index()].holds(Space::Stage2, pa) {
                return Err(unmodelled);
            }
            let outcomes = self.outcomes(cpu, Space::Stage2, pa)?;
            let Accesses { reached, fault, .. } = self.reached(&outcomes, Space::Stage2, pa, Use::Read);
            if fault.is_some() || reached.iter().any(|one| one.allowed != Some(true) || one.pa != pa) {
                return Err(unmodelled);
            }
            match self.memory.newest(pa).map(|value| read(shape, space, level, value)) {
                Some(Entry::Table(next)) => table = next,
                _ => break,
            }
            base += index << shape.shift(level);
        }
        Ok(())
    }

    /// Checks that the access succeeds, whatever is cached.
    fn succeeds(&mut self, cpu: usize, va: u64, kind: Use) -> Check<Accesses> {
        let violation = |rule| Violation::new(rule).on_cpu(cpu).at_va(va);
        let space = self.space_of(cpu, va).ok_or(violation(Rule::MayFault))?;
        let all = self.accesses(cpu, space, va, kind)?;
        if let Some(rule) = all.fault {
            return Err(violation(rule));
        }
        match all.reached.iter().find(|one| one.allowed != Some(true)) {
            Some(one) => Err(violation(Rule::MayFault).with_values(one.value, one.value)),
            None if all.reached.is_empty() => Err(violation(Rule::MayFault)),
            None => Ok(all),
        }
    }

    /// Checks that the access reaches `pa`.
    pub(crate) fn check_reaches(&mut self, cpu: usize, va: u64, kind: Use, pa: u64) -> Check {
        let all = self.succeeds(cpu, va, kind)?;
        match all.reached.iter().find(|one| one.pa != pa) {
            Some(one) => Err(Violation::new(Rule::WrongAddress)
                .on_cpu(cpu)
                .at_va(va)
                .at_pa(pa)
                .with_values(one.value, pa)),
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
        let all = self.succeeds(cpu, va, kind)?;
        let pa = all.reached.first().map_or(0, |one| one.pa);
        match all.reached.iter().find(|one| one.pa != pa) {
            Some(one) => Err(Violation::new(Rule::WrongAddress)
                .on_cpu(cpu)
                .at_va(va)
                .at_pa(pa)
                .with_values(one.value, pa)),
            None => Ok(pa),
        }
    }

    /// Checks that the access faults.
    pub(crate) fn check_faults(&mut self, cpu: usize, va: u64, kind: Use) -> Check {
        let Some(space) = self.space_of(cpu, va) else { return Ok(()) };
        let all = self.accesses(cpu, space, va, kind)?;
        if let Some(one) = all.reached.iter().find(|one| one.allowed != Some(false)) {
            return Err(Violation::new(Rule::MayPass).on_cpu(cpu).at_va(va).with_values(one.value, one.pa));
        }
        self.check_finished(cpu, space, va)?;
        if self.has_stage_2(cpu, space) {
            let outcomes = self.outcomes(cpu, space, va)?;
            for one in self.reached(&outcomes, space, va, kind).reached {
                self.check_finished(cpu, Space::Stage2, one.pa)?;
            }
        }
        Ok(())
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
            let Accesses { shift, .. } = self.succeeds(cpu, va, in_use.kind)?;
            match (va | ((1u64 << shift) - 1)).checked_add(1) {
                Some(next) if next <= in_use.last => va = next,
                _ => return Ok(()),
            }
        }
    }

    /// Checks that what `cpus` have in use of `start..=last` of `space` is accessible.
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
                // What EL1 has in use may be translated to any part of stage 2.
                let of_guest = self.space_of(cpu, in_use.va).is_some_and(|own| self.has_stage_2(cpu, own));
                if space == Space::Stage2 && of_guest {
                    self.check_in_use(cpu, in_use)?;
                }
            }
        }
        Ok(())
    }
}

//! Writes of the registers that say how tables are read: TCR, MAIR, SCTLR and HCR.

use crate::cached::Held;
use crate::descriptor::{Entry, Leaf, read};
use crate::machine::{Check, LeftRoot, Machine, Retired, Root, first_cpu};
use crate::regime::{Regime, hcr};
use crate::rules::Rule;
use crate::space::{Shape, Space};
use crate::tcr::Tcr;
use crate::violation::Violation;

impl Machine {
    /// Whether `cpu` can neither walk nor hold anything in `space` that it can use.
    pub(crate) fn has_nothing_in(&self, cpu: usize, space: Space) -> bool {
        let state = &self.cpus[cpu];
        let at = space.index();
        let is_asleep = self.is_asleep(cpu, space);
        let is_none = |root: &u32| {
            self.is_empty(*root) || is_asleep && self.roots[*root as usize].retired == Some(Retired::All)
        };
        state.walks[at].iter().chain(state.left[at].iter().map(|left| &left.root)).all(is_none)
            && self.borrowed(cpu, space).iter().all(is_none)
            && self.cached.of(space).all().all(|held| held.cpus >> cpu & 1 == 0)
            && state.invalidated.iter().all(|held| self.roots[held.root as usize].space != space)
    }

    /// Checks that all of `cpus` read tables of `space` as TCR says now: another CPU may have
    /// changed TCR, or no ISB may have followed a change. One whose MMU is off reads none.
    pub(crate) fn check_well_read(&self, space: Space, cpus: u64) -> Check {
        let (at, shape) = (space.index(), self.shapes[space.index()]);
        let misreads = |cpu: &usize| {
            let state = &self.cpus[*cpu];
            let is_otherwise = state.control_pending[at] || !state.shapes[at].is_read_as(shape);
            cpus >> cpu & 1 == 1 && is_otherwise && !self.is_asleep(*cpu, space)
        };
        match (0..self.cpus.len()).find(misreads) {
            Some(cpu) => Err(Violation::new(Rule::TranslationControl).on_cpu(cpu)),
            None => Ok(()),
        }
    }

    /// Writes HCR_EL2. E2H decides what EL2's tables are, and with TGE which regime EL1's TLBIs are
    /// for; VM turns stage 2 on.
    pub(crate) fn write_hcr(&mut self, cpu: usize, value: u64) -> Check {
        let (was_off, was_host) = (self.is_off(cpu, Space::Stage2), self.is_host(cpu));
        let was_known = self.cpus[cpu].hcr.replace(value).is_some();
        self.cpus[cpu].host_pending |= was_known && self.is_host(cpu) != was_host;
        let has_el0 = value & hcr::E2H != 0;
        if self.cpus[cpu].shapes[Space::El2.index()].has_el0 != has_el0 {
            // TCR_EL2 has another form.
            self.cpus[cpu].tcr[Regime::El2.index()] = None;
        }
        for &space in Regime::El2.spaces() {
            let shape = Shape { has_el0, ..self.cpus[cpu].shapes[space.index()] };
            self.set_shape(cpu, space, shape, value)?;
        }
        if self.is_off(cpu, Space::Stage2) != was_off {
            self.walk_from_base(cpu, Space::Stage2)?;
        }
        Ok(())
    }

    /// Writes SCTLR: M turns the MMU of `regime` on. With it off nothing is walked; what the CPU
    /// holds stays.
    pub(crate) fn write_sctlr(&mut self, cpu: usize, regime: Regime, value: u64) -> Check {
        let is_off = value & 1 == 0;
        if std::mem::replace(&mut self.cpus[cpu].mmu_off[regime.index()], is_off) == is_off {
            return Ok(());
        }
        regime.spaces().iter().try_for_each(|space| self.walk_from_base(cpu, *space))
    }

    /// Lets `cpu` read tables of `space` by another shape.
    pub(crate) fn set_shape(&mut self, cpu: usize, space: Space, shape: Shape, control: u64) -> Check {
        let at = space.index();
        let state = &mut self.cpus[cpu];
        state.control_pending[at] |= !state.shapes[at].is_read_as(shape);
        state.shapes[at] = shape;
        self.updates |= shape.sets_accessed;
        let present = self.shapes[at];
        if present == shape {
            return Ok(());
        }
        if present.is_read_as(shape) && (0..self.cpus.len()).any(|other| !self.has_nothing_in(other, space)) {
            // TLBs may hold what HA and HD were, and other CPUs may have other values: hardware may
            // make the updates of either (Arm ARM D8.5).
            let either = present.with_updates(
                present.sets_accessed || shape.sets_accessed,
                present.sets_dirty || shape.sets_dirty,
            );
            self.shapes[at] = either;
            for root in self.roots.iter_mut().filter(|root| root.space == space && root.shape == present) {
                root.shape = either;
            }
            self.dirty.everything();
            return Ok(());
        }
        let is_idle = self.is_off(cpu, space) || self.cpus[cpu].bases[at].is_none();
        match self.reshape(space, shape, control) {
            // Others may read the space in their way until this CPU walks.
            Err(violation) if is_idle && violation.rule == Rule::TranslationControl => {
                self.cpus[cpu].adopts[at] = true;
                Ok(())
            }
            other => other.map_err(|violation| of_another(cpu, violation)),
        }
    }

    /// Gives `space` the shape by which `cpu`, which begins to walk it, reads tables.
    pub(crate) fn adopt_shape(&mut self, cpu: usize, space: Space) -> Check {
        if self.is_off(cpu, space) || !std::mem::take(&mut self.cpus[cpu].adopts[space.index()]) {
            return Ok(());
        }
        let shape = self.cpus[cpu].shapes[space.index()];
        if self.shapes[space.index()] == shape {
            return Ok(());
        }
        self.reshape(space, shape, 0).map_err(|violation| of_another(cpu, violation))
    }

    pub(crate) fn write_tcr(&mut self, cpu: usize, regime: Regime, value: u64) -> Check {
        let before = self.cpus[cpu].tcr[regime.index()];
        let old = before.map_or(0, |before| before.value);
        let violation = |rule| Violation::new(rule).on_cpu(cpu).with_values(old, value);
        let first = regime.spaces()[0];
        let shape = self.cpus[cpu].shapes[first.index()];
        let has_halves = regime == Regime::El1 || (regime == Regime::El2 && shape.has_el0);
        let tcr = Tcr::new(regime, has_halves, value);
        let halves = tcr.halves();
        if halves.iter().any(|half| half.granule != Some(shape.granule)) {
            return Err(violation(Rule::Unmodelled));
        }
        // The ASID becomes another.
        let id = |tcr: Option<Tcr>| tcr.map(|tcr| (tcr.names_by_ttbr1(), tcr.has_wide_ids()));
        let is_renamed =
            id(before).unwrap_or((false, tcr.has_wide_ids())) != id(Some(tcr)).unwrap_or_default();
        if is_renamed {
            self.retire_asleep(first)?;
            if !self.has_nothing_in(cpu, first) {
                return Err(violation(Rule::TranslationControl));
            }
        }
        self.cpus[cpu].tcr[regime.index()] = Some(tcr);
        if is_renamed {
            self.restart(cpu, first)?;
        }
        let mut is_switched = before.is_none() && halves.iter().any(|half| half.is_off);
        for (nth, half) in halves.iter().enumerate() {
            let (space, at) = (half.space, half.space.index());
            let shape = Shape { hierarchical: half.hierarchical, ..self.cpus[cpu].shapes[at] };
            let shape = shape.with_updates(tcr.sets_accessed(), tcr.sets_dirty());
            // Firmware leaves the size of a half at 0 that it does not walk.
            let is_size = (25..=52).contains(&half.va_bits);
            let va_bits = if half.is_off && !is_size { shape.va_bits } else { half.va_bits };
            let shape = shape.with_ds(tcr.ds(), va_bits).with_output(tcr.output_bits());
            let shape = shape.ok_or(violation(Rule::Unmodelled))?;
            if !(25..=52).contains(&va_bits) {
                return Err(violation(Rule::Unmodelled));
            }
            let was = before.and_then(|before| before.halves().get(nth).copied());
            // Under DS the shareability of every leaf is in TCR.
            let is_shared = tcr.ds() && was.is_some_and(|was| was.shareability != half.shareability);
            if is_shared && !self.has_nothing_in(cpu, space) {
                return Err(violation(Rule::TranslationControl));
            }
            is_switched |= was.is_some_and(|was| was.is_off != half.is_off);
            self.cpus[cpu].control_pending[at] |= is_shared;
            self.set_shape(cpu, space, shape, value)?;
        }
        if is_switched {
            regime.spaces().iter().try_for_each(|space| self.walk_from_base(cpu, *space))?;
        }
        Ok(())
    }

    /// Gives the tables of `space` another shape. They have one shape for all CPUs of the model, so
    /// no CPU may walk or hold anything there.
    fn reshape(&mut self, space: Space, shape: Shape, tcr: u64) -> Check {
        let at = space.index();
        self.retire_asleep(space)?;
        for other in 0..self.cpus.len() {
            if !self.has_nothing_in(other, space) {
                return Err(Violation::new(Rule::TranslationControl).on_cpu(other).with_values(0, tcr));
            }
        }
        self.shapes[at] = shape;
        (0..self.cpus.len()).try_for_each(|other| self.restart(other, space))
    }

    /// Lets `cpu`, which has nothing in `space`, walk it by its registers as they are now.
    fn restart(&mut self, cpu: usize, space: Space) -> Check {
        let at = space.index();
        let walks = std::mem::take(&mut self.cpus[cpu].walks[at]);
        // What is not known of a tree is not known by another shape either.
        let is_retired = |left: &LeftRoot| self.roots[left.root as usize].retired.is_some();
        let (kept, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.cpus[cpu].left[at]).into_iter().partition(is_retired);
        self.cpus[cpu].left[at] = kept;
        for &root in walks.iter().chain(left.iter().map(|left| &left.root)) {
            self.leave(cpu, root)?;
        }
        self.walk_as_read(cpu, space)
    }

    /// Gives the slots of the MAIR of `regime` that differ in `value` another type, which no leaf
    /// may have that can be walked or may be cached.
    pub(crate) fn write_mair(&mut self, cpu: usize, regime: Regime, value: u64) -> Check {
        let before = self.mair[regime.index()];
        let changed = |slot: u8| before.is_none_or(|mair| (mair ^ value) >> (8 * slot) & 0xff != 0);
        let slots = (0..8).filter(|slot| changed(*slot)).fold(0, |slots, slot| slots | 1 << slot);
        if slots == 0 {
            return Ok(());
        }
        regime.spaces().iter().try_for_each(|space| self.retire_asleep(*space))?;
        if let Some((va, cpus)) = self.uses_of_slots(regime, slots)? {
            return Err(Violation::new(Rule::MemoryAttributes)
                .on_cpu(first_cpu(cpus))
                .at_va(va)
                .with_values(before.unwrap_or(0), value));
        }
        if before.is_some() {
            self.cpus[cpu].mair_pending[regime.index()] |= slots;
        }
        self.mair[regime.index()] = Some(value);
        self.dirty.everything();
        Ok(())
    }

    /// Checks that no CPU of `cpus` may still read the slot of `leaf` as it was before a change.
    pub(crate) fn check_slot(&self, space: Space, leaf: &Leaf, cpus: u64) -> Check {
        let Some(regime) = Regime::of(space) else { return Ok(()) };
        let pending = |cpu: &usize| {
            cpus >> cpu & 1 == 1 && self.cpus[*cpu].mair_pending[regime.index()] >> leaf.memory & 1 == 1
        };
        match (0..self.cpus.len()).find(pending) {
            Some(cpu) => Err(Violation::new(Rule::MemoryAttributes).on_cpu(cpu)),
            None => Ok(()),
        }
    }

    /// A leaf of `regime` that can be walked or may be cached and has its type from one of `slots`:
    /// the address it translates, and the CPUs.
    fn uses_of_slots(&mut self, regime: Regime, slots: u8) -> Check<Option<(u64, u64)>> {
        let used = |leaf: Leaf| slots >> leaf.memory & 1 == 1;
        // A walk through an invalidated pointer may reach any leaf. The tables of other pointers
        // are searched below.
        let is_use = |held: &Held, pointers: bool| match read_held(self.roots[held.root as usize], held) {
            Entry::Leaf(leaf) => used(leaf),
            Entry::Table(_) => pointers,
            Entry::Invalid => false,
        };
        for &space in regime.spaces() {
            let found = self.cached.of(space).all().find(|held| is_use(held, false));
            let own = |held: &&Held| self.roots[held.root as usize].space == space && is_use(held, true);
            let unfinished = self.cpus.iter().flat_map(|cpu| &cpu.invalidated).find(own);
            if let Some(held) = found.or(unfinished) {
                return Ok(Some((held.va, held.cpus)));
            }
        }
        let mut found = None;
        let mut steps = 0;
        for (&table, uses) in &self.tables {
            for at in uses {
                let Root { space, shape, cpus, .. } = self.roots[at.root as usize];
                if Regime::of(space) != Some(regime) {
                    continue;
                }
                for index in 0..shape.entries(at.level) as u64 {
                    steps += 1;
                    self.memory.seen(table + 8 * index, |value| {
                        let entry = value.map(|value| read(shape, space, at.level, value));
                        if let Some(Entry::Leaf(leaf)) = entry
                            && used(leaf)
                        {
                            found = Some((at.va + (index << shape.shift(at.level)), cpus));
                        }
                    });
                }
            }
        }
        self.spend_all(steps)?;
        Ok(found)
    }
}

/// `violation` of a change that `cpu` makes to how it reads tables. Each CPU has registers of its
/// own, so another one that reads them otherwise does no harm, but the model has one shape for all.
fn of_another(cpu: usize, violation: Violation) -> Violation {
    let is_of_another = violation.rule == Rule::TranslationControl && violation.cpu != Some(cpu);
    if is_of_another { Violation { rule: Rule::Unmodelled, ..violation } } else { violation }
}

/// What a walk made of the descriptor `held`.
fn read_held(root: Root, held: &Held) -> Entry {
    read(root.shape, root.space, held.level, held.value)
}

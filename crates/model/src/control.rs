//! Writes of the registers that say how tables are read: TCR_EL1 and MAIR_EL1.

use crate::cached::Held;
use crate::descriptor::{Entry, Leaf, read};
use crate::machine::{Check, Machine, Root, first_cpu};
use crate::roots::A1;
use crate::rules::Rule;
use crate::space::{Shape, Space};
use crate::violation::Violation;

/// TCR.IPS: bits of physical address. The last value is reserved or above all that are modelled.
pub(crate) const OUTPUT_BITS: [u8; 8] = [32, 36, 40, 42, 44, 48, 52, 52];

/// What TCR says of a half of the address space beside its size: SH0 or SH1.
fn shareability(tcr: u64, space: Space) -> u64 {
    tcr >> if space == Space::Low { 12 } else { 28 } & 3
}

impl Machine {
    /// Whether `cpu` can neither walk nor hold anything in `space`.
    pub(crate) fn has_nothing_in(&self, cpu: usize, space: Space) -> bool {
        let state = &self.cpus[cpu];
        let at = space.index();
        state.walks[at]
            .iter()
            .chain(state.left[at].iter().map(|left| &left.root))
            .all(|root| self.is_empty(*root))
            && self.borrowed(cpu, space).iter().all(|root| self.is_empty(*root))
            && self.cached.of(space).all().all(|held| held.cpus >> cpu & 1 == 0)
            && state.invalidated.iter().all(|held| self.roots[held.root as usize].space != space)
    }

    /// Checks that all of `cpus` read tables of `space` as TCR says now: another CPU may have
    /// changed TCR, or no ISB may have followed a change.
    pub(crate) fn check_well_read(&self, space: Space, cpus: u64) -> Check {
        let (at, shape) = (space.index(), self.shapes[space.index()]);
        let misreads = |cpu: &usize| {
            let state = &self.cpus[*cpu];
            cpus >> cpu & 1 == 1 && (state.control_pending[at] || state.shapes[at] != shape)
        };
        match (0..self.cpus.len()).find(misreads) {
            Some(cpu) => Err(Violation::new(Rule::TranslationControl).on_cpu(cpu)),
            None => Ok(()),
        }
    }

    /// Writes HCR_EL2, of which E2H decides what EL2's tables are. With TGE, EL1's names are those
    /// of EL2&0, and a trace has EL1's tables for them.
    pub(crate) fn write_hcr(&mut self, cpu: usize, value: u64) -> Check {
        const TGE: u64 = 1 << 27;
        let e2h = value >> 34 & 1 == 1;
        if value & TGE != 0 {
            return Err(Violation::new(Rule::Unmodelled).on_cpu(cpu).with_values(0, value));
        }
        for space in [Space::El2, Space::El2High] {
            let shape = Shape { has_el0: e2h, ..self.shapes[space.index()] };
            self.set_shape(cpu, space, shape, value)?;
        }
        Ok(())
    }

    /// Lets `cpu` read tables of `space` by another shape.
    pub(crate) fn set_shape(&mut self, cpu: usize, space: Space, shape: Shape, control: u64) -> Check {
        let at = space.index();
        let state = &mut self.cpus[cpu];
        state.control_pending[at] |= state.shapes[at] != shape;
        state.shapes[at] = shape;
        self.updates |= shape.sets_accessed;
        if self.shapes[at] == shape { Ok(()) } else { self.reshape(space, shape, control) }
    }

    pub(crate) fn write_tcr(&mut self, cpu: usize, value: u64) -> Check {
        /// EPD0 and EPD1: walks that are off.
        const OFF: u64 = 1 << 7 | 1 << 23;
        let before = self.cpus[cpu].tcr;
        let violation =
            |rule| Violation::new(rule).on_cpu(cpu).with_values(before.unwrap_or_default(), value);
        let low = self.shapes[Space::Low.index()];
        let [tg0, tg1] = match low.granule {
            12 => [0b00, 0b10],
            14 => [0b10, 0b01],
            _ => [0b01, 0b11],
        };
        let ips = OUTPUT_BITS[(value >> 32 & 7) as usize];
        if value >> 14 & 3 != tg0 || value >> 30 & 3 != tg1 {
            return Err(violation(Rule::Unmodelled));
        }
        let changed = |bits: u64| before.is_some_and(|before| (before ^ value) & bits != 0);
        // AS, A1: the ASID becomes another.
        let renamed = changed(1 << 36) || (before.unwrap_or(0) ^ value) & A1 != 0;
        if renamed && !self.has_nothing_in(cpu, Space::Low) {
            return Err(violation(Rule::TranslationControl));
        }
        self.cpus[cpu].tcr = Some(value);
        if renamed {
            self.restart(cpu, Space::Low)?;
        }
        let ds = value >> 59 & 1 == 1;
        for (space, size, hpd) in
            [(Space::Low, value & 0x3f, value >> 41), (Space::High, value >> 16 & 0x3f, value >> 42)]
        {
            let va_bits = 64 - size as u32;
            let at = space.index();
            let shape = Shape { hierarchical: hpd & 1 == 0, ..self.shapes[at] };
            let shape = shape.with_updates(value >> 39 & 1 == 1, value >> 40 & 1 == 1);
            let shape = shape.with_ds(ds, va_bits).with_output(ips).ok_or(violation(Rule::Unmodelled))?;
            if !(25..=52).contains(&va_bits) {
                return Err(violation(Rule::Unmodelled));
            }
            // Under DS the shareability of every leaf is in TCR.
            let shared =
                ds && before.is_some_and(|before| shareability(before, space) != shareability(value, space));
            if shared && !self.has_nothing_in(cpu, space) {
                return Err(violation(Rule::TranslationControl));
            }
            self.cpus[cpu].control_pending[at] |= shared;
            self.set_shape(cpu, space, shape, value)?;
        }
        if (before.unwrap_or(0) ^ value) & OFF != 0 {
            self.walk_from_base(cpu, Space::Low)?;
            self.walk_from_base(cpu, Space::High)?;
        }
        Ok(())
    }

    /// Gives the tables of `space` another shape. They have one shape for all CPUs of the model, so
    /// no CPU may walk or hold anything there.
    fn reshape(&mut self, space: Space, shape: Shape, tcr: u64) -> Check {
        let at = space.index();
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
        let left = std::mem::take(&mut self.cpus[cpu].left[at]);
        for &root in walks.iter().chain(left.iter().map(|left| &left.root)) {
            self.leave(cpu, root)?;
        }
        self.walk_from_base(cpu, space)
    }

    /// Gives the slots of MAIR that differ in `value` another type, which no leaf may have that can
    /// be walked or may be cached.
    pub(crate) fn write_mair(&mut self, cpu: usize, value: u64) -> Check {
        let before = self.mair;
        let changed = |slot: u8| before.is_none_or(|mair| (mair ^ value) >> (8 * slot) & 0xff != 0);
        let slots = (0..8).filter(|slot| changed(*slot)).fold(0, |slots, slot| slots | 1 << slot);
        if slots == 0 {
            return Ok(());
        }
        if let Some((va, cpus)) = self.uses_of_slots(slots)? {
            return Err(Violation::new(Rule::MemoryAttributes)
                .on_cpu(first_cpu(cpus))
                .at_va(va)
                .with_values(before.unwrap_or(0), value));
        }
        if before.is_some() {
            self.cpus[cpu].mair_pending |= slots;
        }
        self.mair = Some(value);
        self.dirty.everything();
        Ok(())
    }

    /// Checks that no CPU of `cpus` may still read the slot of `leaf` as it was before a change.
    pub(crate) fn check_slot(&self, space: Space, leaf: &Leaf, cpus: u64) -> Check {
        if !matches!(space, Space::Low | Space::High) {
            return Ok(());
        }
        let pending =
            |cpu: &usize| cpus >> cpu & 1 == 1 && self.cpus[*cpu].mair_pending >> leaf.memory & 1 == 1;
        match (0..self.cpus.len()).find(pending) {
            Some(cpu) => Err(Violation::new(Rule::MemoryAttributes).on_cpu(cpu)),
            None => Ok(()),
        }
    }

    /// A leaf of EL1&0 that can be walked or may be cached and has its type from one of `slots`:
    /// the address it translates, and the CPUs.
    fn uses_of_slots(&mut self, slots: u8) -> Check<Option<(u64, u64)>> {
        let used = |leaf: Leaf| slots >> leaf.memory & 1 == 1;
        // A walk through an invalidated pointer may reach any leaf. The tables of other pointers
        // are searched below.
        let is_use = |held: &Held, pointers: bool| match read_held(self.roots[held.root as usize], held) {
            Entry::Leaf(leaf) => used(leaf),
            Entry::Table(_) => pointers,
            Entry::Invalid => false,
        };
        for space in [Space::Low, Space::High] {
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
                if !matches!(space, Space::Low | Space::High) {
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

/// What a walk made of the descriptor `held`.
fn read_held(root: Root, held: &Held) -> Entry {
    read(root.shape, root.space, held.level, held.value)
}

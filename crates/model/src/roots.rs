//! Writes of the registers that say where tables are and how they are read.

use crate::descriptor::is_cacheable;
use crate::machine::{Check, EntryPlace, Machine, Root};
use crate::rules::Rule;
use crate::space::{Shape, Space};
use crate::violation::Violation;

impl Machine {
    /// Writes a base register. Until an ISB, walks may start at the old table or at the new one.
    pub(crate) fn write_base(&mut self, cpu: usize, space: Space, value: u64) -> Check {
        let shape = self.shapes[space.index()];
        let table = if shape.pa_bits == 52 {
            value & 0xffff_ffff_ffc0 | (value >> 2 & 0xf) << 48
        } else {
            value & 0xffff_ffff_fffe
        };
        // TCR.A1 = 0: the ASID is that of TTBR0.
        let id = if space == Space::High { 0 } else { (value >> 48) as u16 };
        let entries = shape.entries(shape.start());
        let bytes = (8 * entries as u64).max(64);
        let violation = |rule| Violation::new(rule).on_cpu(cpu).at_pa(table);
        // CnP: translations of one CPU may be used by another.
        if value & 1 == 1 && self.cpus.len() > 1 {
            return Err(violation(Rule::Unmodelled));
        }
        if space == Space::El2 && id != 0 {
            return Err(violation(Rule::AsidInEl2));
        }
        if !table.is_multiple_of(bytes) {
            return Err(violation(Rule::MisalignedTable));
        }
        if !self.memory.holds(table, 8 * entries as u64) {
            return Err(violation(Rule::NotMemory));
        }
        self.walk_from(cpu, space, table, id)
    }

    fn walk_from(&mut self, cpu: usize, space: Space, table: u64, id: u16) -> Check {
        let own = 1u64 << cpu;
        let root = self.root(space, table, id);
        let at = space.index();
        if self.cpus[cpu].walks[at].last() == Some(&root) {
            return Ok(());
        }
        if !self.is_empty(root) {
            self.check_well_read(space, own).map_err(|violation| violation.at_pa(table))?;
        }
        let Root { shape, cpus, .. } = self.roots[root as usize];
        self.roots[root as usize].cpus |= own;
        if cpus == 0 {
            self.link(root, table, shape.start(), shape.base(space))?;
        }
        let mut others: Vec<u32> = self.cpus[cpu].walks[at].clone();
        others.extend(self.cpus[cpu].left[at].iter().map(|left| left.root));
        for other in others.into_iter().filter(|other| *other != root) {
            self.check_roots(other, root).map_err(|violation| violation.on_cpu(cpu).at_pa(table))?;
        }
        let state = &mut self.cpus[cpu];
        state.left[at].retain(|left| left.root != root);
        state.walks[at].retain(|walked| *walked != root);
        state.walks[at].push(root);
        // CPUs may still hold parts of trees that they left before.
        let level = shape.start();
        for index in 0..shape.entries(level) as u64 {
            let pa = table + 8 * index;
            let Some(value) = self.memory.newest(pa) else { continue };
            if is_cacheable(shape, space, level, value) {
                let va = shape.base(space) + (index << shape.shift(level));
                self.check_against_cached(EntryPlace { root, level, va, pa }, value)?;
            }
        }
        self.check_all_in_use(
            space,
            own,
            shape.base(space),
            u64::MAX >> (64 - shape.va_bits) | shape.base(space),
        )
    }

    /// Whether no entry of the root table can be walked or cached.
    fn is_empty(&self, root: u32) -> bool {
        let Root { shape, space, table, .. } = self.roots[root as usize];
        let level = shape.start();
        (0..shape.entries(level) as u64).all(|index| {
            let mut empty = true;
            self.memory.seen(table + 8 * index, |value| {
                empty &= value.is_some_and(|value| !is_cacheable(shape, space, level, value));
            });
            empty
        })
    }

    /// Whether `cpu` can neither walk nor hold anything in `space`.
    fn has_nothing_in(&self, cpu: usize, space: Space) -> bool {
        let state = &self.cpus[cpu];
        let at = space.index();
        state.walks[at]
            .iter()
            .chain(state.left[at].iter().map(|left| &left.root))
            .all(|root| self.is_empty(*root))
            && self.cached.of(space).all().all(|held| held.cpus >> cpu & 1 == 0)
            && state.invalidated.iter().all(|held| self.roots[held.root as usize].space != space)
    }

    /// Checks that all of `cpus` read tables of `space` with their present size: another CPU may
    /// have changed TCR, or no ISB may have followed a change.
    pub(crate) fn check_well_read(&self, space: Space, cpus: u64) -> Check {
        let (at, va_bits) = (space.index(), self.shapes[space.index()].va_bits);
        let misreads = |cpu: &usize| {
            let state = &self.cpus[*cpu];
            cpus >> cpu & 1 == 1 && (state.control_pending[at] || state.va_bits[at] != va_bits)
        };
        match (0..self.cpus.len()).find(misreads) {
            Some(cpu) => Err(Violation::new(Rule::TranslationControl).on_cpu(cpu)),
            None => Ok(()),
        }
    }

    pub(crate) fn write_tcr(&mut self, cpu: usize, value: u64) -> Check {
        // EPD0, A1, EPD1, HA and HD: walks that are off, ASIDs of TTBR1, updates by hardware.
        const UNMODELLED: u64 = 1 << 7 | 1 << 22 | 1 << 23 | 1 << 39 | 1 << 40;
        let violation = |rule| Violation::new(rule).on_cpu(cpu).with_values(0, value);
        let granule = self.shapes[Space::Low.index()].granule;
        let [tg0, tg1] = match granule {
            12 => [0b00, 0b10],
            14 => [0b10, 0b01],
            _ => [0b01, 0b11],
        };
        if value >> 14 & 3 != tg0 || value >> 30 & 3 != tg1 || value & UNMODELLED != 0 {
            return Err(violation(Rule::Unmodelled));
        }
        let ds = value >> 59 & 1 == 1;
        for (space, size) in [(Space::Low, value & 0x3f), (Space::High, value >> 16 & 0x3f)] {
            let va_bits = 64 - size as u32;
            let at = space.index();
            let shape = Shape { va_bits, ..self.shapes[at] };
            // DS is one bit for both halves.
            if !(25..=52).contains(&va_bits) || (granule < 16 && shape.ds() != ds) {
                return Err(violation(Rule::Unmodelled));
            }
            let state = &mut self.cpus[cpu];
            state.control_pending[at] |= state.va_bits[at] != va_bits;
            state.va_bits[at] = va_bits;
            if self.shapes[at] == shape {
                continue;
            }
            // Tables of a half have one shape for all CPUs of the model, so no CPU may walk or hold
            // anything there.
            for other in 0..self.cpus.len() {
                if !self.has_nothing_in(other, space) {
                    return Err(Violation::new(Rule::TranslationControl).on_cpu(other).with_values(0, value));
                }
            }
            self.shapes[at] = shape;
            for other in 0..self.cpus.len() {
                let walks = std::mem::take(&mut self.cpus[other].walks[at]);
                let left = std::mem::take(&mut self.cpus[other].left[at]);
                for &root in walks.iter().chain(left.iter().map(|left| &left.root)) {
                    self.leave(other, root)?;
                }
                if let Some(&root) = walks.last() {
                    let Root { table, id, .. } = self.roots[root as usize];
                    self.walk_from(other, space, table, id)?;
                }
            }
        }
        Ok(())
    }

    /// Ends that `cpu` walks or holds `root`.
    pub(crate) fn leave(&mut self, cpu: usize, root: u32) -> Check {
        let Root { table, shape, space, cpus, .. } = self.roots[root as usize];
        let rest = cpus & !(1 << cpu);
        if cpus != 0 && rest == 0 {
            self.unlink(root, table, shape.start(), shape.base(space))?;
        }
        self.roots[root as usize].cpus = rest;
        Ok(())
    }

    pub(crate) fn write_mair(&mut self, value: u64) -> Check {
        if self.mair == Some(value) {
            return Ok(());
        }
        for cpu in 0..self.cpus.len() {
            if !self.has_nothing_in(cpu, Space::Low) || !self.has_nothing_in(cpu, Space::High) {
                return Err(Violation::new(Rule::MemoryAttributes)
                    .on_cpu(cpu)
                    .with_values(self.mair.unwrap_or(0), value));
            }
        }
        self.mair = Some(value);
        Ok(())
    }
}

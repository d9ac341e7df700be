//! Writes of the registers that say where tables are.

use crate::descriptor::is_cacheable;
use crate::machine::{Check, EntryPlace, Machine, Root};
use crate::rules::Rule;
use crate::space::Space;
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
        let entries = shape.entries(shape.start);
        let bytes = (8 * entries as u64).max(64);
        let violation = |rule| Violation::new(rule).on_cpu(cpu).at_pa(table);
        // CnP: translations of one CPU may be used by another.
        if value & 1 == 1 && self.cpus.len() > 1 {
            return Err(violation(Rule::Unmodelled));
        }
        if space == Space::El2High && !shape.has_el0 {
            // Without E2H the register is ignored.
            return Err(violation(Rule::Unmodelled));
        }
        let id = self.identifier(cpu, space, (value >> 48) as u16).ok_or(violation(Rule::Unmodelled))?;
        if matches!(space, Space::El2 | Space::El3) && !shape.has_el0 && id != 0 {
            return Err(violation(Rule::AsidInEl2));
        }
        // VTCR_EL2.SL0 may make such a root up to 16 tables of the next level (Arm ARM D8.2.2).
        if space == Space::Stage2 && entries <= 16 && self.cpus[cpu].vtcr.is_none() {
            return Err(violation(Rule::Unmodelled));
        }
        if !table.is_multiple_of(bytes) {
            return Err(violation(Rule::MisalignedTable));
        }
        if table >> shape.out_bits != 0 {
            return Err(violation(Rule::AddressSize));
        }
        if !self.memory.holds(table, 8 * entries as u64) {
            return Err(violation(Rule::NotMemory));
        }
        // EL1's entries were cached in another VMID, or in none.
        let first = space == Space::Stage2 && self.cpus[cpu].walks[space.index()].is_empty();
        if first && self.has_el1(cpu) {
            return Err(violation(Rule::Unmodelled));
        }
        self.walk_from(cpu, space, table, id)?;
        match space {
            Space::Low | Space::High | Space::Stage2 => self.check_one_guest(),
            _ => Ok(()),
        }
    }

    /// The ASID or VMID that a base register with `field` in bits 63:48 names; `None` if that
    /// depends on a register that was not written.
    fn identifier(&self, cpu: usize, space: Space, field: u16) -> Option<u16> {
        match (space, self.cpus[cpu].tcr) {
            // TCR.A1 = 0: the ASID is that of TTBR0.
            (Space::High | Space::El2High, _) => Some(0),
            // TCR_EL2.AS is not known.
            (Space::El2 | Space::El3, _) => (field <= 0xff).then_some(field),
            // TCR.AS = 0: 8 bits.
            (Space::Low, Some(tcr)) if tcr >> 36 & 1 == 0 => Some(field & 0xff),
            (Space::Low, Some(_)) => Some(field),
            // Before TCR is written.
            (Space::Low, None) => (field <= 0xff).then_some(field),
            (Space::Stage2, _) => self.vmid(cpu, field),
        }
    }

    pub(crate) fn walk_from(&mut self, cpu: usize, space: Space, table: u64, id: u16) -> Check {
        let own = 1u64 << cpu;
        let root = self.root(space, table, id);
        let at = space.index();
        if self.cpus[cpu].walks[at].last() == Some(&root) {
            return Ok(());
        }
        self.dirty.everything();
        if !self.is_empty(root) {
            self.check_well_read(space, own).map_err(|violation| violation.at_pa(table))?;
        }
        let Root { shape, cpus, .. } = self.roots[root as usize];
        self.roots[root as usize].cpus |= own;
        if cpus == 0 {
            self.link(root, table, shape.start, shape.base(space))?;
        } else {
            self.join(root, cpu)?;
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
        let level = shape.start;
        for index in 0..shape.entries(level) as u64 {
            let pa = table + 8 * index;
            let Some(value) = self.memory.newest(pa) else { continue };
            if is_cacheable(shape, level, value) {
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
    pub(crate) fn is_empty(&self, root: u32) -> bool {
        let Root { shape, table, .. } = self.roots[root as usize];
        let level = shape.start;
        (0..shape.entries(level) as u64).all(|index| {
            let mut empty = true;
            self.memory.seen(table + 8 * index, |value| {
                empty &= value.is_some_and(|value| !is_cacheable(shape, level, value));
            });
            empty
        })
    }

    /// Ends that `cpu` walks or holds `root`.
    pub(crate) fn leave(&mut self, cpu: usize, root: u32) -> Check {
        let Root { table, shape, space, cpus, .. } = self.roots[root as usize];
        let rest = cpus & !(1 << cpu);
        if cpus != 0 && rest == 0 {
            self.unlink(root, table, shape.start, shape.base(space))?;
        }
        self.roots[root as usize].cpus = rest;
        Ok(())
    }
}

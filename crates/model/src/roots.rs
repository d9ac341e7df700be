//! Writes of the registers that say where tables are.

use crate::cached::Held;
use crate::config::Leniency;
use crate::descriptor::is_cacheable;
use crate::machine::{Check, EntryPlace, Machine, NO_TABLE, Root};
use crate::regime::Regime;
use crate::rules::Rule;
use crate::space::Space;
use crate::tcr::Tcr;
use crate::violation::Violation;

impl Machine {
    /// Writes a base register. Until an ISB, walks may start at the old table or at the new one.
    pub(crate) fn write_base(&mut self, cpu: usize, space: Space, value: u64) -> Check {
        // EL1's entries were cached in another VMID, or in none.
        let first = space == Space::Stage2 && self.cpus[cpu].walks[space.index()].is_empty();
        // With stage 2 off the VMID is 0, as it was after a reset.
        let is_none = self.is_off(cpu, space) && value >> 48 == 0;
        if first && !is_none && self.has_el1(cpu) {
            return Err(Violation::new(Rule::Unmodelled).on_cpu(cpu).at_pa(value));
        }
        let before = self.cpus[cpu].bases[space.index()].replace(value);
        if let (Some(before), Some(regime)) = (before, Regime::of(space)) {
            self.cpus[cpu].asid_pending[regime.index()] |= (before ^ value) >> 48 != 0;
        }
        if space.is_upper() && self.names_by_ttbr1(cpu, space) {
            self.change_asid(cpu, space)?;
        }
        self.walk_from_base(cpu, space)?;
        match space {
            Space::Low | Space::High | Space::Stage2 => self.check_one_guest(),
            _ => Ok(()),
        }
    }

    /// What TCR says of `space` on `cpu`, if it was written.
    fn tcr(&self, cpu: usize, space: Space) -> Option<Tcr> {
        Regime::of(space).and_then(|regime| self.cpus[cpu].tcr[regime.index()])
    }

    /// TCR.A1.
    fn names_by_ttbr1(&self, cpu: usize, space: Space) -> bool {
        self.tcr(cpu, space).is_some_and(Tcr::names_by_ttbr1)
    }

    /// Whether `cpu` walks nothing in `space`, whatever the base register has: the MMU is off, or
    /// TCR.EPD is set.
    fn walks_off(&self, cpu: usize, space: Space) -> bool {
        let is_off = |tcr: Tcr| tcr.halves().iter().any(|half| half.space == space && half.is_off);
        self.is_off(cpu, space) || self.tcr(cpu, space).is_some_and(is_off)
    }

    /// Lets `cpu` walk `space` by its registers as they are now.
    pub(crate) fn walk_from_base(&mut self, cpu: usize, space: Space) -> Check {
        if self.cpus[cpu].bases[space.index()].is_some() {
            self.adopt_shape(cpu, space)?;
        }
        self.walk_as_read(cpu, space)
    }

    /// The same, by the shape that `space` has.
    pub(crate) fn walk_as_read(&mut self, cpu: usize, space: Space) -> Check {
        let Some(value) = self.cpus[cpu].bases[space.index()] else { return Ok(()) };
        let table = self.base_table(cpu, space, value)?;
        let id = self.base_id(cpu, space, value)?;
        let is_certain = self.config.leniency == Leniency::Kernels;
        if !space.is_upper() && self.names_by_ttbr1(cpu, space) && !is_certain {
            // Until an ISB, an ASID from before may be the current one.
            for before in self.ids_of(cpu, space).into_iter().filter(|before| *before != id) {
                self.walk_from(cpu, space, table, before)?;
            }
        }
        self.walk_from(cpu, space, table, id)
    }

    /// The identifiers of the trees that `cpu` may walk in `space`.
    fn ids_of(&self, cpu: usize, space: Space) -> Vec<u16> {
        self.cpus[cpu].walks[space.index()].iter().map(|root| self.roots[*root as usize].id).collect()
    }

    /// Gives the trees of TTBR0 the ASID of TTBR1.
    fn change_asid(&mut self, cpu: usize, upper: Space) -> Check {
        let lower = if upper == Space::High { Space::Low } else { Space::El2 };
        let Some(low) = self.cpus[cpu].bases[lower.index()] else { return Ok(()) };
        let id = self.base_id(cpu, lower, low)?;
        let walks = self.cpus[cpu].walks[lower.index()].clone();
        let first = match self.config.leniency {
            Leniency::Strict => 0,
            Leniency::Kernels => walks.len().saturating_sub(1),
        };
        for root in walks.into_iter().skip(first) {
            let Root { table, .. } = self.roots[root as usize];
            self.walk_from(cpu, lower, table, id)?;
        }
        Ok(())
    }

    /// The table that a base register with `value` names.
    pub(crate) fn base_table(&self, cpu: usize, space: Space, value: u64) -> Check<u64> {
        if self.walks_off(cpu, space) {
            return Ok(NO_TABLE);
        }
        let shape = self.shapes[space.index()];
        let table = if shape.ds() || (shape.granule == 16 && shape.pa_bits == 52) {
            value & 0xffff_ffff_ffc0 | (value >> 2 & 0xf) << 48
        } else {
            value & 0xffff_ffff_fffe
        };
        let entries = shape.entries(shape.start);
        let bytes = (8 * entries as u64).max(64);
        let violation = |rule| Err(Violation::new(rule).on_cpu(cpu).at_pa(table));
        // Without E2H the register is ignored.
        if space == Space::El2High && !shape.has_el0 {
            return violation(Rule::Unmodelled);
        }
        // VTCR_EL2.SL0 may make such a root up to 16 tables of the next level (Arm ARM D8.2.2).
        if space == Space::Stage2 && entries <= 16 && self.cpus[cpu].vtcr.is_none() {
            return violation(Rule::Unmodelled);
        }
        if !table.is_multiple_of(bytes) {
            return violation(Rule::MisalignedTable);
        }
        if table >> shape.out_bits != 0 {
            return violation(Rule::AddressSize);
        }
        if self.memory.holds(table, 8 * entries as u64) { Ok(table) } else { violation(Rule::NotMemory) }
    }

    /// The ASID or VMID of the trees of a base register with `value`.
    pub(crate) fn base_id(&self, cpu: usize, space: Space, value: u64) -> Check<u16> {
        let violation = |rule| Err(Violation::new(rule).on_cpu(cpu).at_pa(value));
        let state = &self.cpus[cpu];
        let field = (value >> 48) as u16;
        let known = |field: u16| if field <= 0xff { Ok(field) } else { violation(Rule::Unmodelled) };
        match space {
            // What is not global in the upper half has the ASID of either register.
            Space::High | Space::El2High => Ok(0),
            Space::El2 | Space::El3 if !self.shapes[space.index()].has_el0 && field != 0 => {
                violation(Rule::AsidInEl2)
            }
            Space::El3 => known(field),
            Space::Stage2 => self.vmid(cpu, field).map_or_else(|| violation(Rule::Unmodelled), Ok),
            Space::Low | Space::El2 => match self.tcr(cpu, space) {
                None => known(field),
                Some(tcr) => {
                    let upper = if space == Space::Low { Space::High } else { Space::El2High };
                    let high = state.bases[upper.index()].map_or(0, |high| (high >> 48) as u16);
                    let field = if tcr.names_by_ttbr1() { high } else { field };
                    // TCR.AS = 0: 8 bits.
                    Ok(if tcr.has_wide_ids() { field } else { field & 0xff })
                }
            },
        }
    }

    pub(crate) fn walk_from(&mut self, cpu: usize, space: Space, table: u64, id: u16) -> Check {
        let own = 1u64 << cpu;
        let root = self.root(space, table, id);
        let at = space.index();
        let common = self.cpus.len() > 1 && self.cpus[cpu].bases[at].is_some_and(|base| base & 1 == 1);
        let gains = common && table != NO_TABLE && self.share(cpu, space, root)?;
        match space {
            Space::High | Space::El2High => {
                self.use_with_asid(cpu, root).map_err(|violation| violation.at_pa(table))?;
            }
            Space::Low => self.rename_upper(cpu, Regime::El1)?,
            Space::El2 => self.rename_upper(cpu, Regime::El2)?,
            _ => {}
        }
        let is_walked = self.cpus[cpu].walks[at].last() == Some(&root);
        if is_walked && !gains {
            return Ok(());
        }
        self.dirty.everything();
        if !self.is_empty(root) {
            self.check_well_read(space, own).map_err(|violation| violation.at_pa(table))?;
        }
        let Root { shape, cpus, .. } = self.roots[root as usize];
        // While a CPU may hold a part of a tree, every change is compared with all else that it may
        // hold. So a tree that it walks again has been compared.
        let is_new = cpus & own == 0;
        self.roots[root as usize].cpus |= own;
        if cpus == 0 {
            self.alive.push(root);
        }
        if table == NO_TABLE || !is_new {
            // Nothing is walked, or nothing that was not before.
        } else if cpus == 0 {
            self.link(root, table, shape.start, shape.base(space))?;
        } else {
            self.check_ordered_for(cpu, root)?;
            self.join(root, cpu)?;
        }
        // With the MMU off nothing that is held is used.
        let beside = if self.is_off(cpu, space) { Vec::new() } else { self.beside(cpu, space, root) };
        for other in beside {
            let found =
                if is_new { self.check_roots(other, root) } else { self.check_not_retired(other, root) };
            found.map_err(|violation| violation.on_cpu(cpu).at_pa(table))?;
        }
        let state = &mut self.cpus[cpu];
        state.left[at].retain(|left| left.root != root);
        state.walks[at].retain(|walked| *walked != root);
        state.walks[at].push(root);
        if is_new {
            self.check_tree_against_cached(root)?;
        }
        let concerned = if self.roots[root as usize].common { own | self.common[at] } else { own };
        self.check_all_in_use(
            space,
            concerned,
            shape.base(space),
            u64::MAX >> (64 - shape.va_bits) | shape.base(space),
        )
    }

    /// Checks all of the tree of `root` against what its CPUs may hold of trees that they left.
    pub(crate) fn check_tree_against_cached(&mut self, root: u32) -> Check {
        let Root { space, shape, table, .. } = self.roots[root as usize];
        let level = shape.start;
        let is_foreign = |held: &Held| held.root != root && self.may_meet(held.root, root);
        let meets = self.meets_others(root) || self.cached.of(space).all().any(is_foreign);
        let entries = self.memory.known(table, if meets { shape.entries(level) } else { 0 });
        let cacheable: Vec<_> = entries.filter(|(_, value)| is_cacheable(shape, level, *value)).collect();
        for (index, value) in cacheable {
            let (va, pa) = (shape.base(space) + (index << shape.shift(level)), table + 8 * index);
            self.check_against_cached(EntryPlace { root, level, va, pa }, value)?;
        }
        Ok(())
    }

    /// Whether another tree of the space may be used on the same CPUs, for the same addresses.
    fn meets_others(&self, root: u32) -> bool {
        let space = self.roots[root as usize].space;
        let mut others = self.alive.iter().filter(|other| **other != root);
        others.any(|other| self.roots[*other as usize].space == space && self.may_meet(*other, root))
    }

    /// Whether no entry of the root table can be walked or cached.
    pub(crate) fn is_empty(&self, root: u32) -> bool {
        let Root { shape, table, retired, .. } = self.roots[root as usize];
        let level = shape.start;
        (table == NO_TABLE && retired.is_none())
            || (0..shape.entries(level) as u64).all(|index| {
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
        if rest == 0 {
            self.alive.retain(|other| *other != root);
        }
        Ok(())
    }
}

//! Trees of which no CPU can use what it may hold: the CPUs left them under an ASID or VMID that is
//! not current on any of them, or their MMU is off.
//!
//! A CPU uses what it holds under an identifier only while that is the current one, so such a tree
//! may be edited and freed without an invalidation, if it has no global leaf. Software relies on it
//! when identifiers roll over. The tree is retired then: a CPU that may hold a part of it must
//! invalidate all of the identifier before it walks anything under it again.
//!
//! With the MMU off a CPU makes no use of its TLB for stage 1, which keeps what it holds (Arm ARM
//! D8.2). Before the MMU is on again, all of the regime must be invalidated if the tree was edited.

use crate::descriptor::{Entry, is_cacheable, read};
use crate::machine::{Check, EntryPlace, Machine, NO_TABLE, Retired, Root};
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

impl Machine {
    /// Whether no CPU can use what it may hold of the tree of `root`, and what that is.
    fn is_dormant(&mut self, root: u32) -> Check<Option<Retired>> {
        let Root { space, shape, id, cpus, common, .. } = self.roots[root as usize];
        let is_unused = |cpu: usize| {
            let walks = &self.cpus[cpu].walks[space.index()];
            !walks.is_empty() && walks.iter().all(|walked| self.roots[*walked as usize].id != id)
        };
        let holders = self.holders(root);
        let holders = || (0..self.cpus.len()).filter(move |cpu| holders >> cpu & 1 == 1);
        let asleep = holders().filter(|cpu| self.is_asleep(*cpu, space)).count();
        if cpus == 0 {
            return Ok(None);
        }
        if asleep == holders().count() {
            return Ok(Some(Retired::All));
        }
        let is_used = |cpu: usize| !self.is_asleep(cpu, space) && !is_unused(cpu);
        if common || holders().any(is_used) || self.has_global(root)? {
            return Ok(None);
        }
        // Global leaves behind a pointer that was overwritten are not recorded one by one.
        let held: Vec<_> = self.cached.of(space).all().filter(|held| held.root == root).copied().collect();
        for held in held {
            if let Entry::Table(table) = read(shape, space, held.level, held.value)
                && self.has_global_below(root, table, held.level + 1)?
            {
                return Ok(None);
            }
        }
        Ok(Some(if asleep > 0 { Retired::All } else { Retired::Identifier }))
    }

    /// Retires the tree of `root` if no CPU can use what it holds of it. Returns whether it did.
    pub(crate) fn retire(&mut self, root: u32) -> Check<bool> {
        let Some(what) = self.is_dormant(root)? else { return Ok(false) };
        let Root { space, shape, table, .. } = self.roots[root as usize];
        let is_global = |value, level| match read(shape, space, level, value) {
            Entry::Leaf(leaf) => leaf.global,
            Entry::Table(_) | Entry::Invalid => false,
        };
        let gone = self.cached.of_mut(space).take(shape, 0, u64::MAX, |held| {
            held.root == root && (what == Retired::All || !is_global(held.value, held.level))
        });
        for held in gone {
            self.release(root, held.level, held.va, held.value)?;
        }
        self.unlink(root, table, shape.start, shape.base(space))?;
        self.straight = None;
        let retired = &mut self.roots[root as usize];
        (retired.table, retired.retired) = (NO_TABLE, Some(what));
        Ok(true)
    }

    /// Retires the trees of `space` that CPUs hold which all have their MMU off there.
    pub(crate) fn retire_asleep(&mut self, space: Space) -> Check {
        if !(0..self.cpus.len()).any(|cpu| self.is_asleep(cpu, space)) {
            return Ok(());
        }
        for root in 0..self.roots.len() as u32 {
            let Root { space: own, table, cpus, .. } = self.roots[root as usize];
            if own == space && table != NO_TABLE && cpus != 0 && self.is_dormant(root)? == Some(Retired::All)
            {
                self.retire(root)?;
            }
        }
        Ok(())
    }

    /// Ends the tree of `place`, which gets `value`, if it is empty and no CPU walks it: what is
    /// invalid no TLB holds, so the root's frame is as good as free. Returns whether it did.
    pub(crate) fn ends_with(&mut self, place: EntryPlace, value: u64) -> Check<bool> {
        let is_root = place.level == self.roots[place.root as usize].shape.start;
        Ok(is_root && value & 1 != 0 && self.end(place.root, Some(place.pa))?)
    }

    /// Ends the tree of `root`, which a CPU has left, if it is empty and no other CPU walks it.
    pub(crate) fn end_if_empty(&mut self, root: u32) -> Check {
        let Root { table, common, retired, cpus, .. } = self.roots[root as usize];
        if table != NO_TABLE && !common && retired.is_none() && cpus != 0 {
            self.end(root, None)?;
        }
        Ok(())
    }

    /// Ends the tree of `root` if no CPU walks it and all of it is invalid, apart from the newest
    /// value at `but`. Returns whether it did.
    fn end(&mut self, root: u32, but: Option<u64>) -> Check<bool> {
        let Root { space, shape, table, id, .. } = self.roots[root as usize];
        let at = space.index();
        if self.cpus.iter().any(|cpu| cpu.walks[at].contains(&root))
            || !self.is_empty_but(root, but)
            || self.cached.of(space).all().any(|held| held.root == root)
            || self.cpus.iter().any(|cpu| {
                // A CPU uses nothing of an identifier that is not current.
                cpu.invalidated.iter().any(|held| held.root == root)
                    && cpu.walks[at].iter().any(|walked| self.roots[*walked as usize].id == id)
            })
        {
            return Ok(false);
        }
        for cpu in 0..self.cpus.len() {
            self.cpus[cpu].left[at].retain(|left| left.root != root);
        }
        self.roots[root as usize].cpus = 0;
        self.alive.retain(|other| *other != root);
        self.unlink(root, table, shape.start, shape.base(space))?;
        Ok(true)
    }

    /// Whether no entry of the root table can be walked or cached, apart from the newest value at
    /// `but`.
    fn is_empty_but(&self, root: u32, but: Option<u64>) -> bool {
        let Root { shape, table, .. } = self.roots[root as usize];
        (0..shape.entries(shape.start) as u64).all(|index| {
            let pa = table + 8 * index;
            let (mut is_newest, mut is_empty) = (but == Some(pa), true);
            self.memory.seen(pa, |value| {
                let is_invalid = value.is_some_and(|value| !is_cacheable(shape, shape.start, value));
                is_empty &= is_invalid || std::mem::take(&mut is_newest);
                is_newest = false;
            });
            is_empty
        })
    }

    /// Whether `violation`, found for an entry of the tree of `root`, is none because no CPU can
    /// use what it holds of the tree.
    pub(crate) fn is_excused(&mut self, root: u32, violation: &Violation) -> Check<bool> {
        match violation.rule {
            Rule::TooComplex | Rule::Unmodelled => Ok(false),
            _ => self.retire(root),
        }
    }
}

//! Trees that CPUs left under an ASID or VMID that is not current on any of them.
//!
//! A CPU uses what it holds under an identifier only while that is the current one, so such a tree
//! may be edited and freed without an invalidation, if it has no global leaf. Software relies on it
//! when identifiers roll over. The tree is retired then: a CPU that may hold a part of it must
//! invalidate all of the identifier before it walks anything under it again.

use crate::descriptor::{Entry, read};
use crate::machine::{Check, Machine, NO_TABLE, Root};
use crate::rules::Rule;
use crate::violation::Violation;

impl Machine {
    /// Whether every CPU that may hold a part of the tree of `root` left it, under an identifier
    /// that is not current there.
    fn is_dormant(&mut self, root: u32) -> Check<bool> {
        let Root { space, shape, id, cpus, common, .. } = self.roots[root as usize];
        let is_unused = |cpu: usize| {
            let walks = &self.cpus[cpu].walks[space.index()];
            !walks.is_empty() && walks.iter().all(|walked| self.roots[*walked as usize].id != id)
        };
        let mut holders = (0..self.cpus.len()).filter(|cpu| cpus >> cpu & 1 == 1);
        if cpus == 0 || common || !holders.all(is_unused) || self.has_global(root)? {
            return Ok(false);
        }
        // Global leaves behind a pointer that was overwritten are not recorded one by one.
        let held: Vec<_> = self.cached.of(space).all().filter(|held| held.root == root).copied().collect();
        for held in held {
            if let Entry::Table(table) = read(shape, space, held.level, held.value)
                && self.has_global_below(root, table, held.level + 1)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Retires the tree of `root` if no CPU can use what it holds of it. Returns whether it did.
    pub(crate) fn retire(&mut self, root: u32) -> Check<bool> {
        if !self.is_dormant(root)? {
            return Ok(false);
        }
        let Root { space, shape, table, .. } = self.roots[root as usize];
        let is_global = |value, level| match read(shape, space, level, value) {
            Entry::Leaf(leaf) => leaf.global,
            Entry::Table(_) | Entry::Invalid => false,
        };
        let gone = self
            .cached
            .of_mut(space)
            .take(shape, 0, u64::MAX, |held| held.root == root && !is_global(held.value, held.level));
        for held in gone {
            self.release(root, held.level, held.va, held.value)?;
        }
        self.unlink(root, table, shape.start, shape.base(space))?;
        self.straight = None;
        let retired = &mut self.roots[root as usize];
        (retired.table, retired.retired) = (NO_TABLE, true);
        Ok(true)
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

//! Translations that CPUs have in common: TTBR.CnP and VTTBR.CnP.
//!
//! CPUs that set CnP in the base register of a space may use each other's entries of the roots that
//! they installed with it (Arm ARM D8.15). So what one of them may hold all may hold, and a TLBI
//! that is not broadcast proves nothing, not even for the CPU that issues it: it may take an entry
//! from another. A CPU that set CnP once counts as one of them for good.

use crate::cached::Held;
use crate::machine::{Check, Machine, Root};
use crate::space::Space;

impl Machine {
    /// The CPUs that may hold parts of the tree of `root`.
    #[inline]
    pub(crate) fn holders(&self, root: u32) -> u64 {
        let root = &self.roots[root as usize];
        if root.common && root.cpus != 0 { root.cpus | self.common[root.space.index()] } else { root.cpus }
    }

    /// Whether a TLBI that is for CPU `by` alone proves nothing of the entries of `root`.
    pub(crate) fn outlives_local(&self, by: usize, number: u32) -> bool {
        let root = &self.roots[number as usize];
        let group = self.common[root.space.index()];
        // A CPU whose MMU is off caches nothing more that another could take, but what it walked
        // before, it holds until an invalidation reaches it.
        let has_none = |cpu: usize| {
            self.is_asleep(cpu, root.space) && self.trees_of(cpu, root.space).all(|held| held != number)
        };
        let gives = |cpu: usize| group >> cpu & 1 == 1 && cpu != by && !has_none(cpu);
        root.common && group >> by & 1 == 1 && (0..self.cpus.len()).any(gives)
    }

    /// The roots that `cpu` walks or left in `space`.
    pub(crate) fn trees_of(&self, cpu: usize, space: Space) -> impl Iterator<Item = u32> {
        let (state, at) = (&self.cpus[cpu], space.index());
        state.walks[at].iter().copied().chain(state.left[at].iter().map(|left| left.root))
    }

    /// The roots of other CPUs that `cpu` may use entries of.
    pub(crate) fn borrowed(&self, cpu: usize, space: Space) -> Vec<u32> {
        let group = self.common[space.index()];
        if group >> cpu & 1 == 0 {
            return Vec::new();
        }
        let others = (0..self.cpus.len()).filter(|other| *other != cpu && group >> other & 1 == 1);
        let trees = others.flat_map(|other| self.trees_of(other, space));
        let mut roots: Vec<u32> = trees.filter(|root| self.roots[*root as usize].common).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// The roots whose entries one CPU may use together with those of `root`, which `cpu` installs.
    pub(crate) fn beside(&self, cpu: usize, space: Space, root: u32) -> Vec<u32> {
        let group = if self.roots[root as usize].common { self.common[space.index()] } else { 0 };
        let cpus = (0..self.cpus.len()).filter(|other| *other == cpu || group >> other & 1 == 1);
        let mut roots: Vec<u32> = cpus.flat_map(|other| self.trees_of(other, space)).collect();
        roots.extend(self.borrowed(cpu, space));
        roots.sort_unstable();
        roots.dedup();
        roots.retain(|other| *other != root);
        roots
    }

    /// `cpu` installs `root` with CnP: it shares what it holds of the root from now on, and what
    /// others share. Returns whether a CPU may hold more than before.
    pub(crate) fn share(&mut self, cpu: usize, space: Space, root: u32) -> Check<bool> {
        let at = space.index();
        if self.roots[root as usize].common && self.common[at] >> cpu & 1 == 1 {
            return Ok(false);
        }
        self.dirty.everything();
        self.roots[root as usize].common = true;
        self.common[at] |= 1 << cpu;
        let group = self.common[at];
        let mut gained = Vec::new();
        let roots = &self.roots;
        for held in self.cached.of_mut(space).all_mut().filter(|held| roots[held.root as usize].common) {
            if held.cpus & group != 0 && group & !held.cpus != 0 {
                held.cpus |= group;
                held.runs |= if held.runs != 0 { group } else { 0 };
                gained.push(*held);
            }
        }
        let others = (0..self.cpus.len()).filter(|other| group >> other & 1 == 1);
        let mut trees: Vec<u32> = others.flat_map(|other| self.trees_of(other, space)).collect();
        trees.sort_unstable();
        trees.dedup();
        for &one in &trees {
            for &other in &trees {
                if one != other && self.roots[other as usize].common {
                    self.check_roots(one, other).map_err(|violation| violation.on_cpu(cpu))?;
                }
            }
        }
        if !gained.is_empty() {
            for &tree in &trees {
                self.check_tree_against_cached(tree)?;
            }
        }
        for &held in &gained {
            self.check_gained(held).map_err(|violation| violation.on_cpu(cpu))?;
        }
        Ok(!gained.is_empty())
    }

    /// Checks `gained`, which more CPUs may hold than before, against what they may hold of other
    /// trees. Either may be cached first.
    fn check_gained(&mut self, gained: Held) -> Check {
        let Root { space, shape, .. } = self.roots[gained.root as usize];
        let one = self.held_side(&gained, gained.cpus);
        let mask = self.reach(&one) - 1;
        for held in self.cached.of(space).touching(shape, gained.va & !mask, gained.va | mask) {
            let cpus = held.cpus & gained.cpus;
            if cpus != 0 && held.root != gained.root && self.may_meet(held.root, gained.root) {
                let other = self.held_side(&held, cpus);
                self.check_pair(one, other)?;
                self.check_pair(other, one)?;
            }
        }
        Ok(())
    }
}

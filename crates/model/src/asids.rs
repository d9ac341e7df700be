//! The ASIDs that trees of the upper half were used with.
//!
//! What is not global in the upper half has the ASID of either base register, so an upper tree has
//! no ASID of its own: a CPU uses it with whatever is current. A kernel that unmaps itself from user
//! space keeps two upper trees and gives each its own ASIDs. Pointers in walk caches and leaves that
//! are not global then never meet, although no invalidation lies between them (Arm ARM D8.16).

use crate::machine::{Check, Machine};
use crate::roots::A1;
use crate::space::Space;

/// The ASIDs that a tree was used with.
#[derive(Clone, Debug)]
struct Asids {
    root: u32,
    /// Any, since a register that names it is not known.
    any: bool,
    /// One bit each.
    bits: Vec<u64>,
}

impl Asids {
    fn has(&self, asid: Option<u16>) -> bool {
        self.any
            || match asid {
                Some(asid) => {
                    self.bits.get(usize::from(asid) / 64).is_some_and(|word| word >> (asid % 64) & 1 == 1)
                }
                None => false,
            }
    }

    fn add(&mut self, asid: Option<u16>) {
        let Some(asid) = asid else {
            self.any = true;
            return;
        };
        let word = usize::from(asid) / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (asid % 64);
    }
}

/// The ASIDs of the trees of TTBR1_EL1, and which of them have one in common.
#[derive(Debug, Default)]
pub(crate) struct UpperAsids {
    trees: Vec<Asids>,
    /// Pairs of roots, the lower first.
    common: Vec<(u32, u32)>,
}

impl UpperAsids {
    /// A CPU may use the tree of `root` with `asid`, or with any. Returns whether the tree has an
    /// ASID in common with another that it had none with before.
    fn add(&mut self, root: u32, asid: Option<u16>) -> bool {
        let nth = match self.trees.iter().position(|tree| tree.root == root) {
            Some(nth) => nth,
            None => {
                self.trees.push(Asids { root, any: false, bits: Vec::new() });
                self.trees.len() - 1
            }
        };
        if self.trees[nth].has(asid) {
            return false;
        }
        self.trees[nth].add(asid);
        let before = self.common.len();
        for tree in self.trees.iter().filter(|tree| tree.root != root) {
            let pair = (root.min(tree.root), root.max(tree.root));
            if (asid.is_none() || tree.has(asid)) && !self.common.contains(&pair) {
                self.common.push(pair);
            }
        }
        self.common.len() > before
    }

    fn are_common(&self, one: u32, other: u32) -> bool {
        self.common.contains(&(one.min(other), one.max(other)))
    }
}

impl Machine {
    /// Whether what is not global in the trees of both roots may be used with one identifier.
    pub(crate) fn share_id(&self, one: u32, other: u32) -> bool {
        let [first, second] = [one, other].map(|root| self.roots[root as usize]);
        if one != other && first.space == Space::High && second.space == Space::High {
            return self.upper_asids.are_common(one, other);
        }
        first.id == second.id
    }

    /// The ASID that `cpu` uses the trees of EL1&0 with; `None` if a register that says so is not
    /// known.
    fn current_asid(&self, cpu: usize) -> Option<u16> {
        let state = &self.cpus[cpu];
        let tcr = state.tcr?;
        let named = if tcr & A1 != 0 { Space::High } else { Space::Low };
        let asid = (state.bases[named.index()]? >> 48) as u16;
        Some(if tcr >> 36 & 1 == 0 { asid & 0xff } else { asid })
    }

    /// Notes that `cpu` may use the upper tree of `root` with its ASID as it is now, and checks the
    /// tree against those that may have the ASID as well.
    pub(crate) fn use_with_asid(&mut self, cpu: usize, root: u32) -> Check {
        let asid = self.current_asid(cpu);
        if self.upper_asids.add(root, asid) {
            for other in self.beside(cpu, Space::High, root) {
                self.check_roots(other, root).map_err(|violation| violation.on_cpu(cpu))?;
            }
        }
        Ok(())
    }

    /// `cpu` uses its upper trees with another ASID, that of TTBR0.
    pub(crate) fn rename_upper(&mut self, cpu: usize) -> Check {
        if self.cpus[cpu].tcr.is_none_or(|tcr| tcr & A1 != 0) {
            return Ok(());
        }
        let walks = self.cpus[cpu].walks[Space::High.index()].clone();
        walks.into_iter().try_for_each(|root| self.use_with_asid(cpu, root))
    }

    /// All of EL1&0 was invalidated on the CPUs `reached`. Trees that no other CPU holds, and that
    /// none of these left since, have no ASIDs but the current ones.
    pub(crate) fn forget_asids(&mut self, reached: u64) {
        let is_kept = |tree: &Asids| {
            let root = &self.roots[tree.root as usize];
            root.cpus & !reached != 0
                || self.cpus.iter().any(|cpu| {
                    let at = Space::High.index();
                    let before = cpu.walks[at].split_last().map_or(&[][..], |(_, before)| before);
                    before.contains(&tree.root) || cpu.left[at].iter().any(|left| left.root == tree.root)
                })
        };
        let trees: Vec<_> = self.upper_asids.trees.iter().filter(|tree| is_kept(tree)).cloned().collect();
        let is_kept = |root: u32| trees.iter().any(|tree| tree.root == root);
        let common = self.upper_asids.common.iter().copied();
        let common = common.filter(|(one, other)| is_kept(*one) && is_kept(*other)).collect();
        self.upper_asids = UpperAsids { trees, common };
        for cpu in 0..self.cpus.len() {
            if let Some(&root) = self.cpus[cpu].walks[Space::High.index()].last() {
                let asid = self.current_asid(cpu);
                self.upper_asids.add(root, asid);
            }
        }
    }
}

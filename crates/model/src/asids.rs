//! The ASIDs that trees of the upper half were used with.
//!
//! What is not global in the upper half has the ASID of either base register, so an upper tree has
//! no ASID of its own: a CPU uses it with whatever is current. A kernel that unmaps itself from
//! user space keeps two upper trees and gives each its own ASIDs. Pointers in walk caches and
//! leaves that are not global then never meet, although nothing is invalidated (Arm ARM D8.16).

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
    pub fn add(&mut self, root: u32, asid: Option<u16>) -> bool {
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

    pub fn are_common(&self, one: u32, other: u32) -> bool {
        self.common.contains(&(one.min(other), one.max(other)))
    }

    /// Forgets the ASIDs of all trees but those for which `is_kept` is true.
    pub fn retain(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.trees.retain(|tree| is_kept(tree.root));
        self.common.retain(|(one, other)| is_kept(*one) && is_kept(*other));
    }
}

//! Which CPUs one write of a GICv3's SGI register reaches.
//!
//! ICC_SGI1R_EL1 names a cluster by Aff3, Aff2 and Aff1, and in it 16 CPUs by a bit for each of
//! Aff0 % 16; the range selector RS is Aff0 / 16 (Arm IHI 0069, ICC_SGI1R_EL1). The mode IRM = 1
//! would reach all CPUs but the sender with one write, those that are not online among them, so it
//! is not used.

use crate::affinity::Affinity;

/// The CPUs that one write reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Group {
    /// Aff3, Aff2, Aff1 and RS where the register has them.
    place: u64,
    /// The target list, in bits 15:0 of the register.
    list: u16,
}

impl Group {
    fn of(affinity: Affinity) -> Self {
        let [aff0, aff1, aff2, aff3] = affinity.packed().to_le_bytes();
        let fields = [(aff3, 48), (aff0 / 16, 44), (aff2, 32), (aff1, 16)];
        let place = fields.into_iter().fold(0, |place, (field, at)| place | u64::from(field) << at);
        Self { place, list: 1 << (aff0 % 16) }
    }
}

/// The values of ICC_SGI1R_EL1 that send one SGI to a set of CPUs: one for each distinct Aff3,
/// Aff2, Aff1 and RS among them.
#[derive(Debug)]
pub struct SgiWrites<F, const WORDS: usize> {
    /// The CPUs that no value has reached yet: a bit for each, by number.
    left: [u64; WORDS],
    affinity_of: F,
    sgi: u64,
}

impl<F: Fn(usize) -> Affinity, const WORDS: usize> SgiWrites<F, WORDS> {
    /// Sends `sgi`, a number below 16, to the CPUs whose bits are set in `targets`: that of CPU
    /// `n` is bit `n % 64` of word `n / 64`. `affinity_of` returns the affinity of each.
    pub fn new(sgi: u8, targets: [u64; WORDS], affinity_of: F) -> Self {
        Self { left: targets, affinity_of, sgi: u64::from(sgi & 0xf) << 24 }
    }
}

impl<F: Fn(usize) -> Affinity, const WORDS: usize> Iterator for SgiWrites<F, WORDS> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let mut group: Option<Group> = None;
        'words: for (nth, word) in self.left.iter_mut().enumerate() {
            let mut unseen = *word;
            while unseen != 0 {
                let bit = unseen & unseen.wrapping_neg();
                unseen ^= bit;
                let number = nth * 64 + bit.trailing_zeros() as usize;
                let own = Group::of((self.affinity_of)(number));
                let list = match group {
                    Some(group) if group.place != own.place => continue,
                    Some(group) => group.list | own.list,
                    None => own.list,
                };
                *word ^= bit;
                group = Some(Group { list, ..own });
                // Numbers mostly follow clusters: a full list ends the search early.
                if list == u16::MAX {
                    break 'words;
                }
            }
        }
        group.map(|group| group.place | self.sgi | u64::from(group.list))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn affinity(aff3: u64, aff2: u64, aff1: u64, aff0: u64) -> Affinity {
        Affinity::of_mpidr(aff3 << 32 | aff2 << 16 | aff1 << 8 | aff0)
    }

    fn writes<const WORDS: usize>(targets: [u64; WORDS], cpus: &[Affinity]) -> Vec<u64> {
        SgiWrites::new(5, targets, |number| cpus[number]).collect()
    }

    #[test]
    fn a_cluster_takes_one_write_however_many_of_its_cpus_are_meant() {
        let cpus: Vec<_> = (0..64).map(|n| affinity(0, 0, n / 16, n % 16)).collect();
        assert_eq!(writes([u64::MAX], &cpus), [0x500_ffff, 0x501_ffff, 0x502_ffff, 0x503_ffff]);
        assert_eq!(writes([1 << 17], &cpus), [0x501_0002]);
        assert_eq!(writes([0x8001], &cpus), [0x500_8001]);
        assert_eq!(writes([0], &cpus), []);
    }

    #[test]
    fn every_field_of_the_affinity_has_its_place() {
        let cpus = [affinity(0x12, 0x34, 0x56, 0xfa)];
        assert_eq!(writes([1], &cpus), [0x0012_f034_0556_0400]);
    }

    #[test]
    fn numbers_that_do_not_follow_clusters_take_no_more_writes() {
        // Four clusters in turn, as some firmware numbers CPUs.
        let cpus: Vec<_> = (0..64).map(|n| affinity(0, 0, n % 4, n / 4)).collect();
        assert_eq!(writes([u64::MAX], &cpus).len(), 4);
        // One CPU a cluster, as with multithreading and one thread.
        let cpus: Vec<_> = (0..64).map(|n| affinity(0, 0, n, 0)).collect();
        assert_eq!(writes([u64::MAX], &cpus).len(), 64);
    }

    proptest! {
        #[test]
        fn each_target_is_reached_once_and_nobody_else(
            cpus in prop::collection::btree_set((0..3u64, 0..2u64, 0..3u64, 0..40u64), 1..256),
            targets in any::<[u64; 4]>(),
        ) {
            let cpus: Vec<_> = cpus.into_iter().map(|(a, b, c, d)| affinity(a, b, c, d)).collect();
            let is_target = |number: usize| targets[number / 64] >> (number % 64) & 1 == 1;
            let numbers = (0..cpus.len()).filter(|n| is_target(*n));
            let wanted: BTreeSet<_> = numbers.clone().map(|n| cpus[n].bits()).collect();
            let mut present = [0u64; 4];
            numbers.for_each(|n| present[n / 64] |= 1 << (n % 64));
            let mut reached = BTreeMap::new();
            let mut places = BTreeSet::new();
            for value in writes(present, &cpus) {
                prop_assert_eq!(value >> 24 & 0xf, 5);
                prop_assert_eq!(value & !0x00ff_f0ff_0fff_ffff, 0, "IRM and what is reserved are 0");
                prop_assert!(places.insert(value & !0xffff), "no place is written twice");
                let [aff3, rs, aff2, aff1] = [48, 44, 32, 16].map(|at| value >> at & 0xff);
                for bit in (0..16).filter(|bit| value >> bit & 1 == 1) {
                    let at = affinity(aff3, aff2, aff1, (rs & 0xf) * 16 + bit);
                    *reached.entry(at.bits()).or_insert(0) += 1;
                }
            }
            prop_assert!(reached.values().all(|times| *times == 1));
            prop_assert!(reached.into_keys().eq(wanted));
        }
    }
}

//! Contiguous runs: whether their entries agree.
//!
//! A TLB may hold a run as one entry made of any of its descriptors, so all of them have to say the
//! same of the whole run (Arm ARM D8.7.1). The access flag, and AP[2] (S2AP[1] at stage 2) beside
//! DBM, may differ only where hardware updates them, one descriptor at a time.

use crate::descriptor::{CONTIGUOUS, Entry, Leaf, read};
use crate::machine::{Check, EntryPlace, Machine};
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

/// What two entries of a run disagree about, the gravest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unevenness {
    /// Output address, memory type, shareability or global: one address would have two
    /// translations that no TLB may hold together.
    Translation,
    /// Permissions or the contiguous bit: allowed for the moment above BBM level 0.
    Attributes,
    /// The access flag or nT: allowed for the moment.
    Flags,
}

/// The entry of a run that was compared last. What it was found to agree with, the entries in step
/// with it agree with as well; almost all are.
#[derive(Default)]
struct Compared(Option<(usize, u64)>);

impl Compared {
    /// Whether the entry number `nth`, `word`, differs from the one compared last in the output
    /// address alone, by the distance between them in entries of `size` bytes. If not, it is the
    /// one that is compared now.
    fn stands_for(&mut self, nth: usize, word: u64, size: u64) -> bool {
        // Bits of the address that lie where every format of descriptors has them.
        const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
        let in_step = self.0.is_some_and(|(before, other)| {
            (word ^ other) & !ADDRESS == 0
                && word.wrapping_sub(other) == ((nth - before) as u64).wrapping_mul(size)
        });
        if !in_step {
            self.0 = Some((nth, word));
        }
        in_step
    }
}

impl Machine {
    /// What `one` and `other`, which lies `apart` bytes further, disagree about as entries of one
    /// run.
    fn unevenness(&self, space: Space, one: &Leaf, other: &Leaf, apart: u64) -> Option<Unevenness> {
        let memory = |leaf: &Leaf| self.memory_type(space, leaf.memory);
        if other.pa != one.pa.wrapping_add(apart)
            || one.pa_space != other.pa_space
            || memory(one) != memory(other)
            || one.share != other.share
            || one.global != other.global
        {
            Some(Unevenness::Translation)
        } else if one.permissions != other.permissions || one.contiguous != other.contiguous {
            Some(Unevenness::Attributes)
        } else if one.accessed != other.accessed || one.no_translation != other.no_translation {
            Some(Unevenness::Flags)
        } else {
            None
        }
    }

    /// Checks the change of `old` to `new` against the other entries of the contiguous run.
    pub(crate) fn check_run(&mut self, place: EntryPlace, old: u64, new: u64, entry: Entry) -> Check {
        let root = self.roots[place.root as usize];
        let run = root.shape.run(place.level);
        if run == 0 {
            return Ok(());
        }
        let first = place.pa & !(8 * run as u64 - 1);
        if self.is_excused_run(place.root, place.level, first) {
            return Ok(());
        }
        let words = self.memory.words(first, run);
        let any = words.iter().fold(old | new, |any, word| any | word) & CONTIGUOUS;
        if any == 0 || words.len() < run {
            return Ok(());
        }
        let leaf = |value| match read(root.shape, root.space, place.level, value) {
            Entry::Leaf(leaf) => Some(leaf),
            Entry::Invalid | Entry::Table(_) => None,
        };
        let size = 1u64 << root.shape.shift(place.level);
        if let Entry::Leaf(mine) = entry {
            let own = (place.pa - first) / 8;
            let mut compared = Compared::default();
            for (nth, &word) in words.iter().enumerate() {
                if compared.stands_for(nth, word, size) {
                    continue;
                }
                let Some(other) = leaf(word).filter(|other| other.contiguous || mine.contiguous) else {
                    continue;
                };
                let apart = (nth as u64).wrapping_sub(own).wrapping_mul(size);
                let forbidden = match self.unevenness(root.space, &mine, &other, apart) {
                    Some(Unevenness::Translation) => true,
                    Some(Unevenness::Attributes) => self.config.bbm == 0,
                    Some(Unevenness::Flags) | None => false,
                };
                if forbidden {
                    return Err(Violation::new(Rule::MixedRun)
                        .at_va(place.va)
                        .at_pa(place.pa)
                        .with_values(word, new));
                }
            }
        }
        let key = (place.root, place.level, first, place.va & !((size * run as u64) - 1));
        if leaf(old).is_some() || leaf(new).is_some() {
            self.runs.insert(key);
        }
        Ok(())
    }

    /// Checks that contiguous runs that were written to are complete and even, or without the bit.
    pub(crate) fn check_runs(&mut self) -> Check {
        let runs = std::mem::take(&mut self.runs);
        let mut runs: Vec<_> = runs.into_iter().collect();
        runs.sort_unstable();
        for (nth, &(root, level, first, va)) in runs.iter().enumerate() {
            if self.is_table(first, root, level) {
                let judged = self.check_whole(root, level, first, va);
                if judged.is_ok() {
                    self.excused.remove(&(root, level, first));
                } else if !self.is_excused_run(root, level, first) {
                    // What was not looked at is due the next time.
                    self.runs.extend(&runs[nth + 1..]);
                    return judged;
                }
            }
        }
        Ok(())
    }

    /// Whether the contiguous run whose first entry is at `first` was reported already.
    pub(crate) fn is_excused_run(&self, root: u32, level: i8, first: u64) -> bool {
        !self.excused.is_empty() && self.excused.contains(&(root, level, first))
    }

    /// Checks the run of `root` at `level` whose first entry is at `first` and translates `va`.
    fn check_whole(&self, root: u32, level: i8, first: u64, va: u64) -> Check {
        let (shape, space) = {
            let root = self.roots[root as usize];
            (root.shape, root.space)
        };
        let words = self.memory.words(first, shape.run(level));
        let leaf = |value: &u64| self.leaf(root, level, *value);
        let contiguous = |value| leaf(value).filter(|leaf| leaf.contiguous);
        let Some((at, model)) =
            words.iter().enumerate().find_map(|(nth, word)| Some((nth, contiguous(word)?)))
        else {
            return Ok(());
        };
        let size = 1u64 << shape.shift(level);
        let mut compared = Compared::default();
        for (nth, word) in words.iter().enumerate() {
            if compared.stands_for(nth, *word, size) {
                continue;
            }
            let apart = (nth as u64).wrapping_sub(at as u64).wrapping_mul(size);
            let even = leaf(word).is_some_and(|leaf| self.unevenness(space, &model, &leaf, apart).is_none());
            if !even {
                return Err(Violation::new(Rule::IncompleteRun)
                    .at_va(va + nth as u64 * size)
                    .at_pa(first + 8 * nth as u64)
                    .with_values(words[at], *word));
            }
        }
        Ok(())
    }
}

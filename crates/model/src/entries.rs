//! Entries that are impossible by themselves, or beside the other entries of their contiguous run.

use crate::descriptor::{CONTIGUOUS, Entry, HIERARCHICAL, read};
use crate::machine::{Check, EntryPlace, Machine};
use crate::rules::Rule;
use crate::violation::Violation;

impl Machine {
    /// Refuses a descriptor that is not valid at its place or not modelled.
    pub(crate) fn check_well_formed(&self, place: EntryPlace, entry: Entry, value: u64) -> Check {
        let violation = |rule| Violation::new(rule).at_va(place.va).at_pa(place.pa);
        match entry {
            Entry::Invalid => Ok(()),
            Entry::Table(_) if value & HIERARCHICAL != 0 => Err(violation(Rule::Unmodelled)),
            Entry::Table(table) if !self.memory.holds(table, self.config.granule) => {
                Err(violation(Rule::NotMemory).with_values(value, table))
            }
            Entry::Table(_) => Ok(()),
            Entry::Leaf(leaf) => {
                if leaf.no_translation && self.config.bbm == 0 {
                    return Err(violation(Rule::NoTranslation));
                }
                let shape = self.roots[place.root as usize].shape;
                let entries = shape.run(place.level);
                let run = (entries as u64) << leaf.shift;
                // A root may be shorter than a run.
                let fits = entries <= shape.entries(place.level);
                if leaf.contiguous && run > 0 && (!fits || (leaf.pa ^ place.va) & (run - 1) != 0) {
                    return Err(violation(Rule::MisalignedRun));
                }
                Ok(())
            }
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
            for (nth, &word) in words.iter().enumerate() {
                let Some(other) = leaf(word).filter(|other| other.contiguous || mine.contiguous) else {
                    continue;
                };
                let expected = mine.pa.wrapping_add((nth as u64).wrapping_sub(own).wrapping_mul(size));
                let alike = other.permissions == mine.permissions
                    && other.global == mine.global
                    && other.contiguous == mine.contiguous;
                let above = mine.global && !other.global;
                if other.pa != expected
                    || self.memory_type(root.space, other.memory) != self.memory_type(root.space, mine.memory)
                    || other.share != mine.share
                    || above
                    || (self.config.bbm == 0 && !alike)
                {
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
}

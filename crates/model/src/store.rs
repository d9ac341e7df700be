//! An entry that can be walked changes.

use crate::cached::{Held, SEEN};
use crate::descriptor::{CONTIGUOUS, Entry, HIERARCHICAL, cacheable, read};
use crate::machine::{Check, MAX_OLDER, MAX_PAGES, Machine, Place};
use crate::rules::Rule;
use crate::space::Space;
use crate::tables::Places;
use crate::violation::Violation;

impl Machine {
    pub(crate) fn store(&mut self, cpu: usize, pa: u64, value: u64) -> Check {
        let stored = self.memory.store(cpu, pa, value);
        if self.memory.pages() > MAX_PAGES || stored.older > MAX_OLDER {
            return Err(Violation::of(Rule::TooComplex).entry(pa));
        }
        if !stored.table || stored.before == Some(value) {
            return Ok(());
        }
        let mut places = Places::default();
        self.each_place(pa, |place| places.push(place));
        for place in places.iter() {
            self.changed(place, stored.before.unwrap_or(0), value)?;
        }
        Ok(())
    }

    /// An entry that can be walked changes.
    pub(crate) fn changed(&mut self, place: Place, old: u64, new: u64) -> Check {
        let root = self.roots[place.root as usize];
        let (space, shape) = (root.space, root.shape);
        if place.level < 3 {
            self.straight = None;
        }
        let mark = |violation: Violation| {
            let mut violation = violation;
            violation.pa = violation.pa.or(Some(place.pa));
            violation
        };
        let entry = read(shape, space, place.level, new);
        self.well_formed(place, entry, new)?;
        if cacheable(shape, space, place.level, new) {
            self.well_read(space, root.cpus).map_err(mark)?;
        }
        if cacheable(shape, space, place.level, old) {
            let runs = match read(shape, space, place.level, old) {
                Entry::Leaf(leaf) if leaf.contiguous && shape.run(place.level) > 0 => root.cpus,
                _ => 0,
            };
            let held = Held {
                root: place.root,
                id: root.id,
                level: place.level,
                va: place.va,
                value: old,
                since: SEEN,
                cpus: root.cpus,
                runs,
                combined: false,
            };
            let known = self.cached.of_mut(space).add(held);
            if known {
                // The note has its own reference to the table.
                self.release(place.root, place.level, place.va, old)?;
            }
        }
        if let Entry::Table(table) = entry {
            self.link(place.root, table, place.level + 1, place.va)?;
        }
        self.joins(place, new).map_err(mark)?;
        self.run_of(place, old, new, entry)?;
        self.fits_in(place, new).map_err(mark)?;
        let last = place.va + ((1u64 << shape.shift(place.level)) - 1);
        self.still_kept(space, root.cpus, place.va, last).map_err(mark)
    }

    /// Refuses what no walker could make sense of, or the model can't.
    pub(crate) fn well_formed(&self, place: Place, entry: Entry, value: u64) -> Check {
        let violation = |rule| Violation::of(rule).at(place.va).entry(place.pa);
        match entry {
            Entry::Invalid => Ok(()),
            Entry::Table(_) if value & HIERARCHICAL != 0 => Err(violation(Rule::Unmodelled)),
            Entry::Table(table) if !self.memory.holds(table, self.config.granule) => {
                Err(violation(Rule::NotMemory).values(value, table))
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

    /// A change of `old` to `new` and the other entries of its contiguous run.
    pub(crate) fn run_of(&mut self, place: Place, old: u64, new: u64, entry: Entry) -> Check {
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
                    return Err(Violation::of(Rule::MixedRun).at(place.va).entry(place.pa).values(word, new));
                }
            }
        }
        let key = (place.root, place.level, first, place.va & !((size * run as u64) - 1));
        if leaf(old).is_some() || leaf(new).is_some() {
            self.runs.insert(key);
        }
        Ok(())
    }

    /// What MAIR_EL1 gives for the memory attribute index of a leaf of `space`; the index itself while MAIR was not
    /// written, and where another register or none holds the types.
    pub(crate) fn memory_type(&self, space: Space, index: u8) -> u8 {
        match (space, self.mair) {
            (Space::Low | Space::High, Some(mair)) => (mair >> (8 * index)) as u8,
            _ => index,
        }
    }
}

//! Stores, and changes of entries that can be walked.

use linmap_trace::PAGE;

use crate::cached::{Held, SEEN, run_shift};
use crate::descriptor::{CONTIGUOUS, Entry, is_cacheable, read};
use crate::machine::{Check, EntryPlace, MAX_OLDER, MAX_PAGES, Machine};
use crate::places::EntryPlaces;
use crate::rules::Rule;
use crate::violation::Violation;

impl Machine {
    /// Stores `count` words, page by page.
    pub(crate) fn fill(&mut self, cpu: usize, pa: u64, count: u64, first: u64, step: u64) -> Check {
        let end = pa + 8 * count;
        let (mut at, mut value) = (pa, first);
        while at < end {
            let words = (PAGE - at % PAGE).min(end - at) / 8;
            if self.memory.store_first(cpu, at, words as usize, value, step) {
                if self.memory.pages() > MAX_PAGES {
                    return Err(Violation::new(Rule::TooComplex).at_pa(at));
                }
                at += 8 * words;
                value = value.wrapping_add(step.wrapping_mul(words));
            } else {
                for _ in 0..words {
                    self.store(cpu, at, value)?;
                    at += 8;
                    value = value.wrapping_add(step);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn store(&mut self, cpu: usize, pa: u64, value: u64) -> Check {
        if self.updates {
            self.check_no_update_lost(pa)?;
        }
        self.store_updated(cpu, pa, value)
    }

    /// Stores a word that has what hardware updated, or that software has seen without.
    pub(crate) fn store_updated(&mut self, cpu: usize, pa: u64, value: u64) -> Check {
        self.pending.cpu = cpu;
        if self.passed.any {
            self.passed.linker = Some(cpu);
            let done = self.store_changed(cpu, pa, value);
            self.passed.linker = None;
            return done;
        }
        self.store_changed(cpu, pa, value)
    }

    fn store_changed(&mut self, cpu: usize, pa: u64, value: u64) -> Check {
        let stored = self.memory.store(cpu, pa, value);
        if self.memory.pages() > MAX_PAGES || stored.older > MAX_OLDER {
            return Err(Violation::new(Rule::TooComplex).at_pa(pa));
        }
        if !stored.table || stored.before == Some(value) {
            return Ok(());
        }
        let before = stored.before.unwrap_or(0);
        if let Some(place) = self.only_place(pa) {
            if self.ends_with(place, value)? {
                return Ok(());
            }
            return match self.changed(place, before, value) {
                Ok(()) => Ok(()),
                Err(violation) => self.excuse(place.root, violation),
            };
        }
        let mut places = EntryPlaces::default();
        self.each_place(pa, |place| places.push(place));
        for place in places.iter() {
            // An entry before it may have retired the tree.
            if self.roots[place.root as usize].retired.is_some() || self.ends_with(place, value)? {
                continue;
            }
            if let Err(violation) = self.changed(place, before, value)
                && let Err(violation) = self.excuse(place.root, violation)
            {
                // The other places are still to be changed.
                self.links_whole = false;
                return Err(violation);
            }
        }
        Ok(())
    }

    /// Returns `violation`, of an entry of the tree of `root`, unless no CPU can use what it holds
    /// of the tree.
    fn excuse(&mut self, root: u32, violation: Violation) -> Check {
        if self.is_excused(root, &violation)? { Ok(()) } else { Err(violation) }
    }

    /// Checks the change of an entry that can be walked, and records the old descriptor.
    pub(crate) fn changed(&mut self, place: EntryPlace, old: u64, new: u64) -> Check {
        let root = self.roots[place.root as usize];
        let (space, shape) = (root.space, root.shape);
        if place.level < 3 {
            self.straight = None;
        }
        // Either may be held as one entry for its run.
        let shift = if (old | new) & CONTIGUOUS == 0 {
            shape.shift(place.level)
        } else {
            run_shift(shape, place.level)
        };
        let mask = (1u64 << shift) - 1;
        self.dirty.of_mut(space).add(place.va & !mask, place.va | mask);
        let mark = |violation: Violation| {
            let mut violation = violation;
            violation.pa = violation.pa.or(Some(place.pa));
            violation
        };
        let entry = read(shape, space, place.level, new);
        self.note_global(place.root, place.level, new);
        let was_whole = self.links_whole;
        self.links_whole &= place.level == 3;
        self.check_well_formed(place, entry, new)?;
        if is_cacheable(shape, place.level, new) {
            self.check_well_read(space, root.cpus).map_err(mark)?;
            if let Entry::Leaf(leaf) = entry {
                self.check_slot(space, &leaf, root.cpus).map_err(mark)?;
            }
        }
        if is_cacheable(shape, place.level, old) {
            let holders = self.holders(place.root);
            let before = read(shape, space, place.level, old);
            let runs = match before {
                Entry::Leaf(leaf) if leaf.contiguous && shape.run(place.level) > 0 => holders,
                _ => 0,
            };
            let held = Held {
                root: place.root,
                limits: self.limits_at(place)?,
                level: place.level,
                va: place.va,
                value: old,
                since: SEEN,
                cpus: holders,
                runs,
                replaced: self.now,
                edit: self.edit,
                combined: false,
            };
            if let Entry::Leaf(before) = before {
                self.note_taken(&held, place.pa, before, entry);
            }
            let known = self.cached.of_mut(space).add(held);
            if known {
                // The record has its own reference to the table.
                self.release(place.root, place.level, place.va, old)?;
            }
        }
        if let Entry::Table(table) = entry {
            self.link(place.root, table, place.level + 1, place.va)?;
        }
        self.links_whole = was_whole;
        if !self.is_alone(place, old | new) {
            self.check_against_cached(place, new).map_err(mark)?;
            self.check_run(place, old, new, entry)?;
            self.check_against_tree(place, new).map_err(mark)?;
        }
        let last = place.va + ((1u64 << shape.shift(place.level)) - 1);
        self.check_all_in_use(space, self.holders(place.root), place.va, last).map_err(mark)
    }

    /// Whether nothing but the entry itself, which has the `bits`, can translate the addresses of
    /// `place`: nothing is held, no other tree is walked, no contiguous run is near. This is so for
    /// almost all pages while a map is built.
    fn is_alone(&self, place: EntryPlace, bits: u64) -> bool {
        let root = &self.roots[place.root as usize];
        if place.level != 3
            || self.straight != Some((place.root, place.pa & !(self.config.granule - 1)))
            || !self.cached.of(root.space).is_empty()
            // CPUs with CnP may use several trees.
            || self.common[root.space.index()] != 0
        {
            return false;
        }
        // Level 3 has runs with every granule.
        let run = root.shape.run(3);
        let near = self.memory.words(place.pa & !(8 * run as u64 - 1), run);
        near.iter().fold(bits, |any, word| any | word) & CONTIGUOUS == 0
            && self.alive.iter().all(|&nth| {
                let other = &self.roots[nth as usize];
                nth == place.root || other.space != root.space || other.cpus & root.cpus == 0
            })
    }
}

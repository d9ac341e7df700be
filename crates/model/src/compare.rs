//! Whether two descriptors may be used at the same time: the one in the tables, and the one that
//! may be cached.

use crate::cached::{Held, run_shift};
use crate::conflict::{PlacedLeaf, conflict};
use crate::descriptor::{CONTIGUOUS, Entry, is_cacheable, read};
use crate::machine::{Check, EntryPlace, Machine, Retired, Root, first_cpu};
use crate::rules::Rule;
use crate::violation::Violation;

/// A descriptor where it translates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    pub root: u32,
    pub level: i8,
    pub va: u64,
    pub value: u64,
    /// Whether a TLB may hold it as one entry for its whole contiguous run.
    pub run: bool,
    /// Whether a walk may find it again, in the tables or through a pointer in a walk cache, after
    /// what it is compared with was cached.
    pub again: bool,
}

impl Machine {
    /// Checks `new`, which is stored at `place`, against everything that the same CPUs may hold
    /// there.
    pub(crate) fn check_against_cached(&mut self, place: EntryPlace, new: u64) -> Check {
        let root = self.roots[place.root as usize];
        if !is_cacheable(root.shape, place.level, new) {
            return Ok(());
        }
        let side = self.side(place.root, place.level, place.va, new);
        let holders = self.holders(place.root);
        if !self.cached.of(root.space).is_empty() {
            let mask = self.reach(&side) - 1;
            let (start, last) = (place.va & !mask, place.va | mask);
            let mut compared: Option<Side> = None;
            for held in self.cached.of(root.space).touching(root.shape, start, last) {
                if held.cpus & holders == 0 || !self.may_meet(held.root, place.root) {
                    continue;
                }
                let own =
                    (held.root, held.level, held.va, held.value) == (place.root, place.level, place.va, new);
                if !own {
                    let old = self.held_side(&held, holders);
                    // As one entry for their run, leaves in step are the same.
                    if compared.is_some_and(|other| self.is_same_run(&old, &other)) {
                        continue;
                    }
                    self.check_pair(old, side)
                        .map_err(|violation| violation.on_cpu(first_cpu(held.cpus & holders)))?;
                    compared = Some(old);
                }
            }
        }
        for nth in 0..self.alive.len() {
            let other = self.alive[nth];
            if other == place.root || self.roots[other as usize].space != root.space {
                continue;
            }
            let cpus = self.holders(other) & holders;
            if cpus != 0 && self.may_meet(other, place.root) {
                self.check_against_root(other, side)
                    .map_err(|violation| violation.on_cpu(first_cpu(cpus)))?;
            }
        }
        Ok(())
    }

    /// Checks `new` against the tree of another root, which the same CPU walks or may hold a part
    /// of.
    fn check_against_root(&mut self, other: u32, new: Side) -> Check {
        let Root { shape, table, space, .. } = self.roots[other as usize];
        if !shape.holds(space, new.va) {
            return Ok(());
        }
        // Walk caches have the ASID of their tree: only this tree's own pointers lead on beside
        // `new`.
        let again = other == new.root;
        self.each_below(other, table, shape.start, shape.base(space), new, |machine, old| {
            machine.check_pair(Side { again, ..old }, new)
        })
    }

    /// Checks that `old`, which a CPU may hold, was not retired under the identifier of `new`, that
    /// the CPU walks.
    pub(crate) fn check_not_retired(&self, old: u32, new: u32) -> Check {
        let [old, new] = [old, new].map(|root| &self.roots[root as usize]);
        match old.retired {
            Some(Retired::Identifier) if old.id != new.id => Ok(()),
            None => Ok(()),
            Some(_) => Err(Violation::new(Rule::StaleTranslation)),
        }
    }

    /// Checks two trees that one CPU walks or may hold against each other.
    pub(crate) fn check_roots(&mut self, old: u32, new: u32) -> Check {
        let Root { shape, table, space, .. } = self.roots[new as usize];
        self.check_not_retired(old, new)?;
        if self.roots[old as usize].table == table || !self.may_meet(old, new) {
            return Ok(());
        }
        let level = shape.start;
        let entries = self.memory.known(table, shape.entries(level));
        let cacheable: Vec<_> = entries.filter(|(_, value)| is_cacheable(shape, level, *value)).collect();
        for (index, value) in cacheable {
            let va = shape.base(space) + (index << shape.shift(level));
            self.check_against_root(old, Side { root: new, level, va, value, run: false, again: true })?;
        }
        Ok(())
    }

    /// Checks `new`, which is at `place` now, against the rest of its own tree: only a cached
    /// pointer may lead to the place, or the place may be in a contiguous run.
    pub(crate) fn check_against_tree(&mut self, place: EntryPlace, new: u64) -> Check {
        let root = self.roots[place.root as usize];
        if !is_cacheable(root.shape, place.level, new) || self.is_straight(place) {
            return Ok(());
        }
        let mut side = self.side(place.root, place.level, place.va, new);
        if side.run {
            // The leaves of its run were compared already.
            let run = root.shape.run(place.level);
            let words = self.memory.words(place.pa & !(8 * run as u64 - 1), run);
            let table =
                |word: &u64| matches!(read(root.shape, root.space, place.level, *word), Entry::Table(_));
            side.run = words.iter().any(table);
        }
        self.check_against_root(place.root, side).map_err(|violation| violation.on_cpu(first_cpu(root.cpus)))
    }

    /// Whether `place` is a page that the tree leads to by table descriptors with no contiguous run
    /// beside any of them. Such a page has to be compared with its neighbours in its own table
    /// alone.
    fn is_straight(&mut self, place: EntryPlace) -> bool {
        let target = (place.root, place.pa & !(self.config.granule - 1));
        if place.level != 3 || self.straight == Some(target) {
            return place.level == 3;
        }
        let Root { shape, space, table, .. } = self.roots[place.root as usize];
        let mut table = table;
        let mut base = shape.base(space);
        for level in shape.start..3 {
            let index = (place.va - base) >> shape.shift(level);
            let run = (shape.run(level).max(1) as u64).min(shape.entries(level) as u64);
            let words = self.memory.words(table + 8 * (index & !(run - 1)), run as usize);
            let runs = words.iter().fold(0, |any, word| any | word) & CONTIGUOUS != 0;
            let entry =
                words.get((index & (run - 1)) as usize).map(|value| read(shape, space, level, *value));
            let Some(Entry::Table(next)) = entry else { return false };
            if runs {
                return false;
            }
            base += index << shape.shift(level);
            table = next;
        }
        if table != target.1 {
            return false;
        }
        self.straight = Some(target);
        true
    }

    /// What `cpus` may hold, which was overwritten.
    pub(crate) fn held_side(&self, held: &Held, cpus: u64) -> Side {
        Side {
            root: held.root,
            level: held.level,
            va: held.va,
            value: held.value,
            run: held.runs & cpus != 0,
            // Leaves are in no table any more. A pointer in a walk cache still leads on.
            again: self.leaf(held.root, held.level, held.value).is_none(),
        }
    }

    /// The descriptor `value` at a place of a tree.
    fn side(&self, root: u32, level: i8, va: u64, value: u64) -> Side {
        let leaf = self.leaf(root, level, value);
        let run = leaf.is_some_and(|leaf| leaf.contiguous && self.roots[root as usize].shape.run(level) > 0);
        Side { root, level, va, value, run, again: true }
    }

    /// The entries of the table at `table` that translate addresses of `start..=last`, by
    /// themselves or through their contiguous runs.
    pub(crate) fn around(
        &mut self,
        root: u32,
        table: u64,
        level: i8,
        va: u64,
        (start, last): (u64, u64),
    ) -> Check<Vec<Side>> {
        let mut found = Vec::new();
        let Root { shape, .. } = self.roots[root as usize];
        let shift = shape.shift(level);
        let entries = shape.entries(level) as u64;
        if last < va || start.saturating_sub(va) >> shift >= entries {
            return Ok(found);
        }
        let from = start.saturating_sub(va) >> shift;
        let to = ((last - va) >> shift).min(entries - 1);
        let run = (shape.run(level) as u64).clamp(1, entries);
        let (before, end) = (from & !(run - 1), (to | (run - 1)) + 1);
        for (mut index, end, near) in [(before, from, false), (from, to + 1, true), (to + 1, end, false)] {
            while index < end {
                let words = self.memory.words(table + 8 * index, (end - index) as usize);
                let count = words.len().max(1) as u64;
                if near || words.iter().fold(0, |any, word| any | word) & CONTIGUOUS != 0 {
                    for (nth, &value) in words.iter().enumerate() {
                        let va = va + ((index + nth as u64) << shift);
                        if is_cacheable(shape, level, value) {
                            let side = self.side(root, level, va, value);
                            if side.run || near {
                                found.push(side);
                            }
                        }
                    }
                }
                self.spend_all(count)?;
                index += count;
            }
        }
        Ok(found)
    }

    /// Calls `each` for every entry of the table at `table` that may translate an address of
    /// `around`.
    fn each_below(
        &mut self,
        root: u32,
        table: u64,
        level: i8,
        va: u64,
        around: Side,
        mut each: impl FnMut(&mut Self, Side) -> Check,
    ) -> Check {
        let reach = self.reach(&around);
        let range = (around.va & !(reach - 1), around.va | (reach - 1));
        if let Some(first) = self.first_in_step(root, table, level, va, range, around) {
            self.spend()?;
            return each(self, first);
        }
        for side in self.around(root, table, level, va, range)? {
            each(self, side)?;
        }
        Ok(())
    }

    /// The first of the entries that [`around`](Self::around) finds, if all of them are leaves in
    /// step and so is what they are compared with, so that the first stands for all.
    fn first_in_step(
        &self,
        root: u32,
        table: u64,
        level: i8,
        va: u64,
        (start, last): (u64, u64),
        other: Side,
    ) -> Option<Side> {
        let shape = self.roots[root as usize].shape;
        let shift = shape.shift(level);
        let from = start.saturating_sub(va) >> shift;
        if last < va || from >= shape.entries(level) as u64 {
            return None;
        }
        let to = ((last - va) >> shift).min(shape.entries(level) as u64 - 1);
        self.leaf(other.root, other.level, other.value)?;
        if !self.is_in_step_between(root, table, level, from, to) {
            return None;
        }
        let value = self.memory.newest(table + 8 * from)?;
        Some(self.side(root, level, va + (from << shift), value))
    }

    /// Bytes that `side` may translate as one TLB entry.
    pub(crate) fn reach(&self, side: &Side) -> u64 {
        let shape = self.roots[side.root as usize].shape;
        1 << if side.run { run_shift(shape, side.level) } else { shape.shift(side.level) }
    }

    /// Whether a TLB may hold both as the same entry for their contiguous run.
    fn is_same_run(&self, one: &Side, other: &Side) -> bool {
        let run = |side: &Side| side.va & !(self.reach(side) - 1);
        one.run
            && other.run
            && one.again == other.again
            && one.value & CONTIGUOUS == other.value & CONTIGUOUS
            && self.is_in_step(one, other)
            && run(one) == run(other)
    }

    /// Whether both are leaves of one level that differ in the address alone, by the distance of
    /// their places: entries of one run, or one entry before and after it was unfolded. Almost
    /// every pair is.
    fn is_in_step(&self, old: &Side, new: &Side) -> bool {
        const ADDRESS: u64 = 0x0003_ffff_ffff_f000;
        let free = if self.config.bbm == 0 { 0 } else { CONTIGUOUS };
        let [one, other] = [old.value & !free, new.value & !free];
        let leaves = old.level == 3 || old.value & 2 == 0;
        old.root == new.root
            && old.level == new.level
            && leaves
            && (one ^ other) & !ADDRESS == 0
            && one.wrapping_sub(other) == old.va.wrapping_sub(new.va)
    }

    /// Checks that `new` may be used while `old` may be cached.
    pub(crate) fn check_pair(&mut self, old: Side, new: Side) -> Check {
        self.spend()?;
        if self.is_in_step(&old, &new) {
            return Ok(());
        }
        let [old_root, new_root] = [old.root, new.root].map(|root| self.roots[root as usize]);
        let violation =
            |rule| Violation::new(rule).at_va(old.va.max(new.va)).with_values(old.value, new.value);
        let entries = [(&old, &old_root), (&new, &new_root)]
            .map(|(side, root)| read(root.shape, root.space, side.level, side.value));
        match entries {
            [Entry::Invalid, _] | [_, Entry::Invalid] => Ok(()),
            [Entry::Leaf(leaf), Entry::Leaf(other)] => {
                let apart = !self.share_id(old.root, new.root);
                let placed = |leaf, side: &Side, root: &Root, apart: bool| PlacedLeaf {
                    leaf,
                    level: side.level,
                    va: side.va,
                    id: if apart { !root.id } else { root.id },
                    reach: self.reach(side),
                };
                let old_placed = placed(leaf, &old, &old_root, false);
                let new_placed = placed(other, &new, &new_root, apart && old_root.id == new_root.id);
                let memory = |index| self.memory_type(new_root.space, index);
                let found = conflict(self.config.bbm, &old_placed, old.again, &new_placed, memory);
                found.map_or(Ok(()), |rule| Err(violation(rule)))
            }
            [Entry::Leaf(leaf), Entry::Table(table)] => {
                let forbidden = self.share_id(old.root, new.root) || leaf.global;
                if old.level <= new.level && forbidden && !self.may_resize(leaf.no_translation) {
                    return Err(violation(Rule::Size));
                }
                self.each_below(new.root, table, new.level + 1, new.va, old, |machine, new| {
                    machine.check_pair(old, new)
                })
            }
            [Entry::Table(table), Entry::Leaf(leaf)] => {
                let forbidden = self.share_id(old.root, new.root) || leaf.global;
                if new.level <= old.level && forbidden && !self.may_resize(leaf.no_translation) {
                    return Err(violation(Rule::Size));
                }
                let again = old.again;
                self.each_below(old.root, table, old.level + 1, old.va, new, |machine, old| {
                    machine.check_pair(Side { again, ..old }, new)
                })
            }
            [Entry::Table(table), Entry::Table(other)] => {
                if old.level == new.level {
                    if table == other || old.va != new.va {
                        return Ok(());
                    }
                    if self.share_id(old.root, new.root) {
                        return Err(violation(Rule::NextTable));
                    }
                }
                if old.level <= new.level {
                    let again = old.again;
                    self.each_below(old.root, table, old.level + 1, old.va, new, |machine, old| {
                        machine.check_pair(Side { again, ..old }, new)
                    })
                } else {
                    self.each_below(new.root, other, new.level + 1, new.va, old, |machine, new| {
                        machine.check_pair(old, new)
                    })
                }
            }
        }
    }

    /// Whether a block, with nT or without, may replace a table or be replaced by one.
    fn may_resize(&self, no_translation: bool) -> bool {
        self.config.bbm >= 2 || (self.config.bbm == 1 && no_translation)
    }
}

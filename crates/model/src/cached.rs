//! Overwritten descriptors that TLBs and walk caches may still hold.
//!
//! The present descriptors may always be cached and are not recorded. An overwritten descriptor is
//! recorded with the CPUs that may hold it, until an invalidation that reaches it has completed on
//! each of them.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::limits::Limits;
use crate::space::{SPACES, Shape, Space};

/// Marks an overwritten descriptor that walkers may still see, so that no invalidation removes it
/// yet.
pub(crate) const SEEN: u64 = u64::MAX;

/// A descriptor that may be cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    /// The tree it was found in.
    pub root: u32,
    /// What the tables above it took away when it was cached.
    pub limits: Limits,
    pub level: i8,
    /// The first address it translates, or that its table does.
    pub va: u64,
    pub value: u64,
    /// The time from which no walker sees it; [`SEEN`] before. A TLBI issued later removes it.
    pub since: u64,
    /// The CPUs that may hold it.
    pub cpus: u64,
    /// The CPUs among them that may hold it as one entry for its whole contiguous run.
    pub runs: u64,
    /// When it was overwritten last.
    pub replaced: u64,
    /// The number of DSBs of reads and writes before that.
    pub edit: u64,
    /// At stage 2: only translations that combine both stages may still be cached.
    pub combined: bool,
}

/// The records of one space.
#[derive(Debug, Default)]
pub(crate) struct Cached {
    /// By level (−1 first) and address.
    levels: [BTreeMap<u64, Vec<Held>>; 5],
    count: usize,
    /// By the number of an edit: what it left.
    edits: FxHashMap<u64, Left>,
}

/// The records that one edit left.
#[derive(Clone, Copy, Debug)]
struct Left {
    count: usize,
    /// The first address of the lowest record and of the highest, of all that there were.
    first: u64,
    last: u64,
}

impl Left {
    const NONE: Self = Self { count: 0, first: u64::MAX, last: 0 };
}

fn slot(level: i8) -> usize {
    (level + 1) as usize
}

impl Cached {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records `held`, merged with an equal record. Returns whether there was one.
    pub fn add(&mut self, held: Held) -> bool {
        let list = self.levels[slot(held.level)].entry(held.va).or_default();
        let same = |other: &&mut Held| {
            other.root == held.root && other.value == held.value && other.combined == held.combined
        };
        if let Some(other) = list.iter_mut().find(same) {
            other.since = other.since.max(held.since);
            other.replaced = other.replaced.max(held.replaced);
            other.cpus |= held.cpus;
            other.runs |= held.runs;
            other.limits = other.limits.or(held.limits);
            let before = other.edit;
            other.edit = before.max(held.edit);
            if before < held.edit {
                self.is_gone(before);
                self.is_left(held.edit, held.va);
            }
            return true;
        }
        list.push(held);
        self.count += 1;
        self.is_left(held.edit, held.va);
        false
    }

    fn is_left(&mut self, edit: u64, va: u64) {
        let left = self.edits.entry(edit).or_insert(Left::NONE);
        *left = Left { count: left.count + 1, first: left.first.min(va), last: left.last.max(va) };
    }

    fn is_gone(&mut self, edit: u64) {
        if let Some(left) = self.edits.get_mut(&edit) {
            left.count -= 1;
            if left.count == 0 {
                self.edits.remove(&edit);
            }
        }
    }

    /// The record of this place and value.
    pub fn find(&mut self, root: u32, level: i8, va: u64, value: u64) -> Option<&mut Held> {
        let list = self.levels[slot(level)].get_mut(&va)?;
        list.iter_mut().find(|held| held.root == root && held.value == value && !held.combined)
    }

    /// The record of what was at this place before the change that was made at `replaced`.
    pub fn replaced_at(&self, (root, level, va): (u32, i8, u64), value: u64, replaced: u64) -> Option<&Held> {
        let list = self.levels[slot(level)].get(&va)?;
        let is_it = |held: &&Held| {
            held.root == root && held.value == value && !held.combined && held.replaced == replaced
        };
        list.iter().find(is_it)
    }

    /// Removes and returns the records that may concern `start..=last` and for which `take` is
    /// true.
    pub fn take(
        &mut self,
        shape: Shape,
        start: u64,
        last: u64,
        mut take: impl FnMut(&Held) -> bool,
    ) -> Vec<Held> {
        let mut taken = Vec::new();
        if self.count == 0 {
            return taken;
        }
        for level in -1..=3i8 {
            let Some((from, to)) = bounds(shape, level, start, last) else { continue };
            let mut emptied = Vec::new();
            for (&va, list) in self.levels[slot(level)].range_mut(from..=to) {
                list.retain(|held| {
                    let take = touches(shape, held, start, last) && take(held);
                    if take {
                        taken.push(*held);
                    }
                    !take
                });
                if list.is_empty() {
                    emptied.push(va);
                }
            }
            for va in emptied {
                self.levels[slot(level)].remove(&va);
            }
        }
        self.count -= taken.len();
        for held in &taken {
            self.is_gone(held.edit);
        }
        taken
    }

    /// The records that may translate, or lead to a translation of, an address of `start..=last`.
    pub fn touching(&self, shape: Shape, start: u64, last: u64) -> Vec<Held> {
        let mut found = Vec::new();
        if self.count == 0 {
            return found;
        }
        for level in -1..=3i8 {
            let Some((from, to)) = bounds(shape, level, start, last) else { continue };
            for list in self.levels[slot(level)].range(from..=to).map(|(_, list)| list) {
                found.extend(list.iter().filter(|held| touches(shape, held, start, last)));
            }
        }
        found
    }

    /// The records that the edit left.
    pub fn of_edit(&self, edit: u64) -> impl Iterator<Item = &Held> {
        let within = self.edits.get(&edit).map(|left| left.first..=left.last);
        within.into_iter().flat_map(move |within| {
            let lists = self.levels.iter().flat_map(move |level| level.range(within.clone()));
            lists.flat_map(|(_, list)| list).filter(move |held| held.edit == edit)
        })
    }

    /// The first of the records that [`touching`](Self::touching) returns, from level and address
    /// `from` on: those of one address together, and few beyond `most`.
    pub fn touching_from(
        &self,
        shape: Shape,
        (start, last): (u64, u64),
        from: (i8, u64),
        most: usize,
    ) -> Vec<Held> {
        let mut found = Vec::new();
        if self.count == 0 {
            return found;
        }
        for level in from.0..=3 {
            let Some((first, to)) = bounds(shape, level, start, last) else { continue };
            let first = if level == from.0 { first.max(from.1) } else { first };
            if first > to {
                continue;
            }
            for list in self.levels[slot(level)].range(first..=to).map(|(_, list)| list) {
                if found.len() >= most {
                    return found;
                }
                found.extend(list.iter().filter(|held| touches(shape, held, start, last)));
            }
        }
        found
    }

    /// All records.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.levels.iter().flat_map(|level| level.values().flatten())
    }

    /// All records, to be changed in place: neither their address nor their value.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        self.levels.iter_mut().flat_map(|level| level.values_mut().flatten())
    }

    /// The records at `level` that begin in `start..=last`.
    pub fn at_level_mut(&mut self, level: i8, start: u64, last: u64) -> impl Iterator<Item = &mut Held> {
        self.levels[slot(level)].range_mut(start..=last).flat_map(|(_, list)| list)
    }
}

/// log2 of the bytes of a contiguous run at `level`, or of an entry if the level has no runs.
pub(crate) fn run_shift(shape: Shape, level: i8) -> u32 {
    let run = shape.run(level);
    shape.shift(level) + if run > 0 { run.trailing_zeros() } else { 0 }
}

/// The first addresses of the entries at `level` that may concern `start..=last`.
fn bounds(shape: Shape, level: i8, start: u64, last: u64) -> Option<(u64, u64)> {
    let shift = run_shift(shape, level);
    if shift >= 64 {
        return None;
    }
    let mask = (1u64 << shift) - 1;
    Some((start & !mask, last | mask))
}

/// Whether `held` may translate, or lead to a translation of, an address of `start..=last`.
pub(crate) fn touches(shape: Shape, held: &Held, start: u64, last: u64) -> bool {
    let shift = if held.runs != 0 { run_shift(shape, held.level) } else { shape.shift(held.level) };
    let mask = (1u64 << shift) - 1;
    held.va & !mask <= last && start <= held.va | mask
}

/// The records of each space.
#[derive(Debug, Default)]
pub(crate) struct CachedSpaces([Cached; SPACES]);

impl CachedSpaces {
    pub fn of(&self, space: Space) -> &Cached {
        &self.0[space.index()]
    }

    pub fn of_mut(&mut self, space: Space) -> &mut Cached {
        &mut self.0[space.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_an_edit_are_those_that_say_so() {
        let shape = Shape {
            granule: 12,
            va_bits: 48,
            pa_bits: 48,
            out_bits: 48,
            start: 0,
            has_ds: false,
            hierarchical: true,
            sets_accessed: false,
            sets_dirty: false,
            has_el0: true,
        };
        let mut cached = Cached::default();
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..2000 {
            if random(4) > 0 {
                let level = 2 + random(2) as i8;
                cached.add(Held {
                    root: 0,
                    limits: Limits::NONE,
                    level,
                    va: random(20) << shape.shift(level),
                    value: random(2),
                    since: 0,
                    cpus: 1,
                    runs: 0,
                    replaced: 0,
                    edit: random(6),
                    combined: false,
                });
            } else {
                let (edit, va) = (random(6), random(20) << shape.shift(3));
                cached.take(shape, va, va << 1, |held| held.edit == edit);
            }
            for edit in 0..6 {
                let said: Vec<Held> = cached.all().filter(|held| held.edit == edit).copied().collect();
                assert_eq!(cached.of_edit(edit).copied().collect::<Vec<_>>(), said);
                assert_eq!(cached.edits.get(&edit).map_or(0, |left| left.count), said.len());
            }
        }
    }
}

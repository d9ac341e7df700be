//! Overwritten descriptors that TLBs and walk caches may still hold.
//!
//! The present descriptors may always be cached and are not recorded. An overwritten descriptor is
//! recorded with the CPUs that may hold it, until an invalidation that reaches it has completed on
//! each of them.

use std::collections::BTreeMap;

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
            other.edit = other.edit.max(held.edit);
            other.cpus |= held.cpus;
            other.runs |= held.runs;
            other.limits = other.limits.or(held.limits);
            return true;
        }
        list.push(held);
        self.count += 1;
        false
    }

    /// The record of this place and value.
    pub fn find(&mut self, root: u32, level: i8, va: u64, value: u64) -> Option<&mut Held> {
        let list = self.levels[slot(level)].get_mut(&va)?;
        list.iter_mut().find(|held| held.root == root && held.value == value && !held.combined)
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

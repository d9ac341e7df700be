//! How many tables and leaves a tree takes, from its list of mappings alone.
//!
//! A mapping is a range, so what it takes at a level follows from its two ends: whole entries in
//! the middle are leaves where the level has them, and at most one entry at either end leads to a
//! table. Each such part is looked at once a level, however many entries it has: 64 TiB cost as
//! little as 64 KiB.

use core::ops::RangeInclusive;

use linmap_table::{Leaves, Mapping, Mappings, contiguous_part};
use linmap_vmsa::{Geometry, Level};

use crate::fixmap_build::advance;

/// The levels that a tree can have, from pages up.
const LEVELS: usize = 5;

/// What a tree has at one level, as [`BuildCost::at`](crate::BuildCost::at) returns it.
///
/// ```
/// use linmap::LevelCounts;
///
/// let level = LevelCounts { tables: 1, single: 2, contiguous: 16 };
/// assert_eq!(level.leaves(), 18);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LevelCounts {
    /// Tables. The root is not counted: it exists before the map does.
    pub tables: u64,
    /// Leaves without the contiguous bit.
    pub single: u64,
    /// Leaves with the contiguous bit.
    pub contiguous: u64,
}

impl LevelCounts {
    /// Returns how many leaves there are.
    pub fn leaves(&self) -> u64 {
        self.single + self.contiguous
    }
}

/// What a tree has at each level, and what a walk down each mapping in turn meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TreeCounts {
    /// From pages up.
    pub levels: [LevelCounts; LEVELS],
    /// How often the walks come to a table of a level: once for each mapping that has a part in it.
    pub visits: [u64; LEVELS],
    /// How often they come to the part of a table that one contiguous run can have. Where a level
    /// has no runs, to a table.
    pub run_visits: [u64; LEVELS],
    /// How many batches the walks' visits to tables of pages make. A batch ends with its mapping.
    pub batches: u64,
}

impl TreeCounts {
    /// Counts the tree of `mappings`. A batch is `batch` tables of pages at most.
    pub fn of(mappings: &Mappings<'_>, batch: u64) -> Self {
        let geometry = mappings.geometry();
        let mut count = Count { geometry, counts: Self::default(), last: [None; LEVELS] };
        for mapping in mappings.list() {
            let before = count.counts.visits[0];
            count.entries(*mapping, geometry.start_level());
            count.counts.batches += (count.counts.visits[0] - before).div_ceil(batch.max(1));
        }
        count.counts
    }

    /// Returns how many tables there are, without the root.
    pub fn tables(&self) -> u64 {
        self.levels.iter().map(|level| level.tables).sum()
    }
}

struct Count {
    geometry: Geometry,
    counts: TreeCounts,
    /// The last table of each level: its number in the address space.
    last: [Option<u64>; LEVELS],
}

impl Count {
    /// Counts what `part` takes at `level` and below. It lies in tables of that level.
    fn entries(&mut self, part: Mapping, level: Level) {
        let (geometry, size) = (self.geometry, self.geometry.entry_bytes(level));
        let is_congruent = (part.va.0 ^ part.pa.0) & (size - 1) == 0;
        let may_be_leaf = level == Level::L3 || part.leaves != Leaves::Pages && geometry.has_leaf(level);
        let head = (part.va.0.wrapping_neg() & (size - 1)).min(part.len);
        let count = (part.len - head) >> geometry.shift(level);
        if !is_congruent || !may_be_leaf || count == 0 {
            return self.below(part, level);
        }
        self.below(Mapping { len: head, ..part }, level);
        let whole = advance(part, head);
        self.leaves(whole, count, level);
        self.below(advance(whole, count * size), level);
    }

    /// Counts `count` leaves at `level` that map the beginning of `whole`.
    fn leaves(&mut self, whole: Mapping, count: u64, level: Level) {
        // More leaves than fit a `usize` are more than memory has room for.
        let in_runs = usize::try_from(count).ok().and_then(|count| {
            contiguous_part(self.geometry, level, whole, count).map(|(_, in_runs)| in_runs as u64)
        });
        let at = &mut self.counts.levels[level.above_pages() as usize];
        at.contiguous += in_runs.unwrap_or(0);
        at.single += count - in_runs.unwrap_or(0);
    }

    /// Counts the tables below `level` that `part` lies in, and what it takes there.
    fn below(&mut self, part: Mapping, level: Level) {
        let Some(next) = level.next().filter(|_| part.len > 0) else { return };
        let at = next.above_pages() as usize;
        let units = |bytes: u64| part.va.0 / bytes..=(part.va.0 + (part.len - 1)) / bytes;
        let count = |units: &RangeInclusive<u64>| units.end() - units.start() + 1;
        let table_bytes = self.geometry.entry_bytes(level);
        let tables = units(table_bytes);
        let is_known = self.last[at] == Some(*tables.start());
        self.counts.levels[at].tables += count(&tables) - u64::from(is_known);
        self.counts.visits[at] += count(&tables);
        self.last[at] = Some(*tables.end());
        let run_bytes = match self.geometry.new_run_entries(next) {
            Some(entries) => entries as u64 * self.geometry.entry_bytes(next),
            None => table_bytes,
        };
        self.counts.run_visits[at] += count(&units(run_bytes));
        self.entries(part, next);
    }
}

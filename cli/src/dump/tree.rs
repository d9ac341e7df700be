//! A tree as it was read: rows of leaves in ascending order, each shared table once.

use std::collections::HashMap;
use std::ops::Range;

use linmap_vmsa::{Level, TablePermissions};

/// Consecutive entries of one table that say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// Leaves with equal attributes at consecutive addresses.
    Leaves {
        /// The first address that they translate.
        va: u64,
        /// Its output address.
        pa: u64,
        /// The bits of the leaves that are not address.
        bits: u64,
        /// How many leaves.
        count: u32,
        /// Their level.
        level: Level,
        /// What the tables on the way take away.
        tables: TablePermissions,
    },
    /// Entries that all lead to one table that was read before.
    Again {
        /// The first address that they translate.
        va: u64,
        /// The table, by its place in [`Tree::tables`].
        table: u32,
        /// How many entries.
        count: u32,
        /// The level of the entries.
        level: Level,
    },
    /// Entries that are valid and mean nothing at their level.
    Reserved {
        /// The first address.
        va: u64,
        /// The first entry.
        entry: u64,
        /// How many entries.
        count: u32,
        /// Their level.
        level: Level,
    },
    /// Entries that lead to frames that are no memory.
    Outside {
        /// The first address.
        va: u64,
        /// The frame of the first.
        frame: u64,
        /// How many entries.
        count: u32,
        /// Their level.
        level: Level,
    },
}

impl Row {
    /// The first address.
    pub fn va(&self) -> u64 {
        match *self {
            Self::Leaves { va, .. }
            | Self::Again { va, .. }
            | Self::Reserved { va, .. }
            | Self::Outside { va, .. } => va,
        }
    }

    /// How many entries, and their level.
    pub fn entries(&self) -> (u64, Level) {
        match *self {
            Self::Leaves { count, level, .. }
            | Self::Again { count, level, .. }
            | Self::Reserved { count, level, .. }
            | Self::Outside { count, level, .. } => (u64::from(count), level),
        }
    }
}

/// An entry of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The table's frame.
    pub table: u64,
    /// The entry's index.
    pub index: u32,
    /// The first address that the entry translates.
    pub va: u64,
    /// Its level.
    pub level: Level,
}

/// A table with all that lies below it.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its frame.
    pub frame: u64,
    /// Its level.
    pub level: Level,
    /// The first address that it translates, where it was read first.
    pub va: u64,
    /// The rows below it.
    pub rows: Range<u32>,
    /// The one leaf that could replace it.
    pub leaf: Option<WouldBeLeaf>,
}

/// A leaf that maps all that a table maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WouldBeLeaf {
    /// Its output address.
    pub pa: u64,
    /// Its attributes, without the contiguous bit.
    pub bits: u64,
    /// The tables that it frees.
    pub tables: u64,
    /// The entries that it stands for.
    pub entries: u64,
}

/// How a frame is used as a table.
#[derive(Clone, Copy, Debug)]
pub struct FrameUse {
    /// How many entries lead to it. The root counts as one.
    pub times: u64,
    /// The first that does; `None` for the root.
    pub first: Option<Entry>,
    /// The second.
    pub second: Option<Entry>,
    /// The levels at which it is used: bit n is level n − 1.
    pub levels: u8,
}

/// Contiguous runs whose entries break the rules, or could be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contiguity {
    /// The addresses are those of no run: not consecutive.
    NotConsecutive,
    /// The addresses are consecutive, but start at no multiple of the run's size.
    Misaligned,
    /// Some entries of the run don't have the bit, or are no leaves.
    Incomplete {
        /// How many.
        without: u32,
    },
    /// Attributes differ in these bits.
    Differs {
        /// The bits.
        bits: u64,
    },
}

/// What is wrong in a tree, where it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// An entry leads to a frame that is no memory.
    OutsideMemory {
        /// The entry.
        entry: Entry,
        /// The frame.
        frame: u64,
    },
    /// An entry leads to a table on the way to it.
    Cycle {
        /// The entry.
        entry: Entry,
        /// The frame.
        frame: u64,
        /// The level at which the frame stands on the way.
        above: Level,
    },
    /// A contiguous run breaks a rule.
    Run {
        /// Its first entry.
        entry: Entry,
        /// How many entries the run has.
        entries: u32,
        /// What is wrong.
        what: Contiguity,
    },
    /// A valid entry has a reserved encoding.
    Reserved {
        /// The entry.
        entry: Entry,
        /// Its value.
        value: u64,
    },
}

/// How many flaws of a kind are held; the others are only counted.
pub const FLAWS_HELD: u64 = 256;

/// The flaws of a tree, by kind.
#[derive(Clone, Debug, Default)]
pub struct Flaws {
    /// The first of each kind.
    pub held: Vec<Flaw>,
    /// How many there are: outside memory, cycles, runs, reserved encodings.
    pub counts: [u64; 4],
}

impl Flaw {
    /// Its kind's place in [`Flaws::counts`].
    pub fn kind(&self) -> usize {
        match self {
            Self::OutsideMemory { .. } => 0,
            Self::Cycle { .. } => 1,
            Self::Run { .. } => 2,
            Self::Reserved { .. } => 3,
        }
    }
}

impl Flaws {
    /// Adds one.
    pub fn add(&mut self, flaw: Flaw) {
        if let Some(count) = self.counts.get_mut(flaw.kind()) {
            *count += 1;
            if *count <= FLAWS_HELD {
                self.held.push(flaw);
            }
        }
    }
}

/// Entries that fewer, larger leaves could replace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Foldable {
    /// The first address.
    pub va: u64,
    /// The bytes.
    pub bytes: u64,
    /// The level of the larger leaves.
    pub level: Level,
    /// Whether they are contiguous runs of the same leaves, not larger leaves.
    pub is_run: bool,
    /// How many leaves or runs there would be.
    pub leaves: u64,
    /// The tables that this frees.
    pub tables: u64,
    /// The entries that there are now.
    pub entries: u64,
}

/// A tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// What it maps, ascending.
    pub rows: Vec<Row>,
    /// Its tables in the order of reading, each before those below it. A table that was read in
    /// part, since only a range was asked for, is not among them.
    pub tables: Vec<Table>,
    /// Frames that are tables.
    pub frames: HashMap<u64, FrameUse>,
    /// How many tables there are at levels −1 to 3, each frame once.
    pub tables_by_level: [u64; 5],
    /// What is wrong.
    pub flaws: Flaws,
    /// What larger leaves could replace.
    pub foldable: Vec<Foldable>,
    /// Invalid entries that are not zero: swapped out, or marked by software.
    pub invalid_not_zero: u64,
    /// Whether reading ended early, since the tree has more rows than were asked for.
    pub is_cut: bool,
    /// log2 of what an entry at levels −1 to 3 translates.
    pub shifts: [u32; 5],
}

/// The place of a level in an array of all five.
pub fn nth(level: Level) -> usize {
    (level.number() + 1).clamp(0, 4) as usize
}

impl Tree {
    /// log2 of what an entry at `level` translates.
    pub fn shift(&self, level: Level) -> u32 {
        self.shifts.get(nth(level)).copied().unwrap_or(12)
    }

    /// How many bytes `row` translates.
    pub fn bytes(&self, row: &Row) -> u64 {
        let (count, level) = row.entries();
        count << self.shift(level)
    }

    /// The row that translates `va`, and the address in that row: another one where the row is of a
    /// table that is reached again.
    pub fn find(&self, va: u64) -> Option<(&Row, u64)> {
        let (mut within, mut at) = (0..self.rows.len() as u32, va);
        // Each table that is reached again stands one level lower.
        for _ in 0..self.shifts.len() + 1 {
            let rows = self.rows.get(within.start as usize..within.end as usize)?;
            let row = rows.get(rows.partition_point(|row| row.va() <= at).checked_sub(1)?)?;
            if at - row.va() >= self.bytes(row) {
                return None;
            }
            let Row::Again { table, level, .. } = *row else { return Some((row, at)) };
            let table = self.tables.get(table as usize)?;
            at = table.va + ((at - row.va()) & ((1 << self.shift(level)) - 1));
            within = table.rows.clone();
        }
        None
    }

    /// The output address of `va`.
    pub fn translate(&self, va: u64) -> Option<u64> {
        match self.find(va)? {
            (Row::Leaves { va, pa, .. }, at) => Some(pa + (at - va)),
            _ => None,
        }
    }

    /// The entry of the leaf that translates `at`, an address in the row with number `row`.
    pub fn entry_of(&self, row: usize, at: u64) -> Option<Entry> {
        let (_, level) = self.rows.get(row)?.entries();
        let row = row as u32;
        let before = self.tables.partition_point(|table| table.rows.start <= row);
        let tables = self.tables.get(..before)?.iter().rev();
        let table = tables.into_iter().find(|table| table.level == level && table.rows.contains(&row))?;
        let index = ((at - table.va) >> self.shift(level)) as u32;
        Some(Entry { table: table.frame, index, va: at & !((1 << self.shift(level)) - 1), level })
    }
}

//! Reads a tree, depth first.
//!
//! Memory is live or hostile, so a table may lead anywhere: outside memory, to itself, or to one
//! table from every entry. A frame at a level, below the same permissions, is read once. Levels
//! descend on every path, so there are at most five frames on one, and a table that leads to itself
//! is read at most once at each level. Work and memory are in proportion to the frames that are
//! tables.

use std::collections::HashMap;
use std::collections::hash_map;

use indicatif::ProgressBar;
use linmap_vmsa::{Decoded, Descriptor, Geometry, LINEAR_SPAN, Level, Pa, TablePermissions};

use crate::dump::contiguity::{self, Group};
use crate::dump::frames::{Frames, Through};
use crate::dump::guest::Root;
use crate::dump::meaning::{CONTIGUOUS, Decoder};
use crate::dump::tree::{Entry, Flaw, Foldable, FrameUse, Row, Table, Tree, WouldBeLeaf, nth};
use crate::failure::Failure;

/// How much of a tree is read.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The first and the last address.
    pub range: (u64, u64),
    /// How many rows at most.
    pub rows: usize,
}

/// Reads the tree of `root`. Returns `None` if the root table lies outside memory.
///
/// # Errors
/// Those of the guest's memory.
pub fn read(
    root: &Root,
    frames: &mut Frames<'_>,
    through: Through<'_>,
    bounds: Bounds,
    progress: &ProgressBar,
) -> Result<Option<Tree>, Failure> {
    let geometry = root.geometry;
    let mut tree = Tree::default();
    for number in -1..=3 {
        if let Some((level, shift)) = Level::new(number).and_then(|level| {
            let shift = tree.shifts.get_mut(nth(level))?;
            Some((level, shift))
        }) {
            *shift = geometry.shift(level);
        }
    }
    let mut reader = Reader {
        geometry,
        decoder: Decoder::new(root),
        has_table_permissions: root.has_table_permissions,
        frames,
        through,
        bounds,
        progress,
        tree,
        seen: HashMap::new(),
        path: Vec::new(),
        buffers: Vec::new(),
    };
    let level = geometry.start_level();
    let entries = geometry.entries(level) * geometry.root_tables();
    let granule = geometry.granule().bytes();
    for table in 0..geometry.root_tables() as u64 {
        reader.uses((root.table.0 & !(granule - 1)) + table * granule, level, None);
    }
    let words = reader.words(root.table, entries)?;
    let Some(words) = words else { return Ok(None) };
    reader.table(root.table.0, level, TablePermissions::UNRESTRICTED, root.first.0, words)?;
    let mut tree = reader.tree;
    tree.foldable = merged(&tree.foldable);
    Ok(Some(tree))
}

struct Reader<'r, 'm> {
    geometry: Geometry,
    decoder: Decoder,
    has_table_permissions: bool,
    frames: &'r mut Frames<'m>,
    through: Through<'r>,
    bounds: Bounds,
    progress: &'r ProgressBar,
    tree: Tree,
    /// Tables that were read as a whole.
    seen: HashMap<(u64, Level, TablePermissions), u32>,
    /// The tables on the way: first frame, bytes, level.
    path: Vec<(u64, u64, Level)>,
    /// Words of tables that are done.
    buffers: Vec<Vec<u64>>,
}

/// What of a table is read.
struct Part {
    frame: u64,
    level: Level,
    /// What the tables on the way take away.
    tables: TablePermissions,
    /// The first address that the table translates.
    va: u64,
    /// The first entry that is read.
    from: usize,
    /// What is foldable from here on is of this table.
    mark: usize,
}

/// The last row, while the next entry may belong to it.
struct Open {
    /// The entry that would.
    next: u64,
    /// How many more entries hold their addresses in the same bits.
    left: u64,
}

impl Reader<'_, '_> {
    fn words(&mut self, at: Pa, entries: usize) -> Result<Option<Vec<u64>>, Failure> {
        let mut words = self.buffers.pop().unwrap_or_default();
        words.resize(entries, 0);
        if self.frames.read(at, self.through, &mut words)? {
            return Ok(Some(words));
        }
        self.buffers.push(words);
        Ok(None)
    }

    /// Counts a use of `frame` as a table, by `entry` or as the root.
    fn uses(&mut self, frame: u64, level: Level, entry: Option<Entry>) {
        let bit = 1 << nth(level);
        let used = match self.tree.frames.entry(frame) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(FrameUse { times: 0, first: entry, second: None, levels: 0 })
            }
            hash_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        used.times += 1;
        if used.times == 2 {
            used.second = entry;
        }
        if used.levels & bit == 0 {
            used.levels |= bit;
            if let Some(count) = self.tree.tables_by_level.get_mut(nth(level)) {
                *count += 1;
            }
        }
    }

    /// The table at `frame` with its entries `words`, from `va` on. Returns the leaf that could
    /// replace it.
    fn table(
        &mut self,
        frame: u64,
        level: Level,
        tables: TablePermissions,
        va: u64,
        words: Vec<u64>,
    ) -> Result<Option<WouldBeLeaf>, Failure> {
        self.progress.inc(1);
        let granule = self.geometry.granule().bytes();
        let shift = self.geometry.shift(level);
        let last_of_table = va.wrapping_add(((words.len() as u64) << shift).wrapping_sub(1));
        let (first, last) = self.bounds.range;
        let this = self.tree.tables.len();
        let start = self.tree.rows.len();
        let mark = self.tree.foldable.len();
        let record = Table { frame, level, va, rows: start as u32..start as u32, leaf: None };
        self.tree.tables.push(record);
        self.path.push((frame & !(granule - 1), (words.len() as u64 * 8).max(granule), level));
        let is_whole = first <= va && last_of_table <= last;
        let mut leaf = None;
        if first <= last_of_table && va <= last {
            let from = (first.saturating_sub(va) >> shift) as usize;
            let to = ((last.min(last_of_table) - va) >> shift) as usize;
            let within = words.get(from..=to).unwrap_or_default();
            let part = Part { frame, level, tables, va, from, mark };
            self.entries(&part, within)?;
            self.runs(frame, level, va, &words, (from, to), mark);
            if is_whole && !self.tree.is_cut {
                leaf = self.would_be_leaf(this, level, words.len());
            }
        }
        self.path.pop();
        let end = self.tree.rows.len() as u32;
        if let Some(record) = self.tree.tables.get_mut(this) {
            record.rows.end = end;
            record.leaf = leaf;
        }
        if leaf.is_some() {
            // One leaf replaces all that was found below.
            self.tree.foldable.truncate(mark);
        }
        if is_whole {
            self.seen.insert((frame, level, tables), this as u32);
        }
        self.buffers.push(words);
        Ok(leaf)
    }

    /// The entries `words` of a table.
    fn entries(&mut self, part: &Part, words: &[u64]) -> Result<(), Failure> {
        let Part { frame: table, level, tables, from, .. } = *part;
        let (start, shift) = (self.tree.rows.len(), self.geometry.shift(level));
        let mut open: Option<Open> = None;
        for (nth, &word) in words.iter().enumerate() {
            if let Some(Open { next, left }) = &mut open
                && word == *next
                && *left > 0
                && let Some(Row::Leaves { count, .. }) = self.tree.rows.last_mut()
            {
                *count += 1;
                *next = next.wrapping_add(1 << shift);
                *left -= 1;
                continue;
            }
            open = None;
            if self.tree.rows.len() >= self.bounds.rows {
                self.tree.is_cut = true;
                return Ok(());
            }
            let index = from + nth;
            let va = part.va.wrapping_add((index as u64) << shift);
            let entry = Entry { table, index: index as u32, va, level };
            match Descriptor(word).decode(self.geometry, level) {
                Decoded::Leaf(pa) => {
                    let bits = self.decoder.attribute_bits(Descriptor(word), pa);
                    self.tree.rows.push(Row::Leaves { va, pa: pa.0, bits, count: 1, level, tables });
                    let left = (LINEAR_SPAN - (pa.0 & (LINEAR_SPAN - 1))).wrapping_sub(1) >> shift;
                    open = Some(Open { next: word.wrapping_add(1 << shift), left });
                }
                Decoded::Table(frame) => self.link(word, frame.0, entry, part, start)?,
                Decoded::Invalid if Descriptor(word).is_valid() => {
                    self.tree.flaws.add(Flaw::Reserved { entry, value: word });
                    self.extend(start, Row::Reserved { va, entry: word, count: 1, level });
                }
                Decoded::Invalid => self.tree.invalid_not_zero += u64::from(word != 0),
            }
            if self.tree.is_cut {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `entry` of a table leads to `frame`.
    fn link(
        &mut self,
        word: u64,
        frame: u64,
        entry: Entry,
        part: &Part,
        start: usize,
    ) -> Result<(), Failure> {
        let Entry { va, level, .. } = entry;
        let Part { tables, mark, .. } = *part;
        let Some(next) = level.next() else { return Ok(()) };
        let below = match self.has_table_permissions {
            true => tables.and(Descriptor(word).table_permissions(self.geometry.regime())),
            false => TablePermissions::UNRESTRICTED,
        };
        let above = self.path.iter().find(|(from, len, _)| frame.wrapping_sub(*from) < *len);
        if let Some(&(_, _, above)) = above {
            self.tree.flaws.add(Flaw::Cycle { entry, frame, above });
        }
        if let Some(&table) = self.seen.get(&(frame, next, below)) {
            self.uses(frame, next, Some(entry));
            self.extend(start, Row::Again { va, table, count: 1, level });
            return Ok(());
        }
        let words = match self.geometry.holds(Pa(frame)) {
            true => self.words(Pa(frame), self.geometry.granule().entries())?,
            false => None,
        };
        let Some(words) = words else {
            self.tree.flaws.add(Flaw::OutsideMemory { entry, frame });
            self.extend(start, Row::Outside { va, frame, count: 1, level });
            return Ok(());
        };
        self.uses(frame, next, Some(entry));
        let Some(leaf) = self.table(frame, next, below, va, words)? else { return Ok(()) };
        if self.allows_the_same(&leaf, level, tables, below) {
            let foldable = Foldable {
                va,
                bytes: self.geometry.entry_bytes(level),
                level,
                is_run: false,
                leaves: 1,
                tables: leaf.tables,
                entries: leaf.entries,
            };
            push_foldable(&mut self.tree.foldable, mark, foldable);
        }
        Ok(())
    }

    /// Whether a leaf allows the same without the table above it.
    fn allows_the_same(
        &self,
        leaf: &WouldBeLeaf,
        level: Level,
        tables: TablePermissions,
        below: TablePermissions,
    ) -> bool {
        let of = |tables| {
            let meaning = self.decoder.meaning(leaf.bits, level, tables);
            (meaning.access, meaning.execute)
        };
        of(tables) == of(below)
    }

    /// Adds `new`, or lets the last row of this table grow by its one entry.
    fn extend(&mut self, start: usize, new: Row) {
        let rows = &mut self.tree.rows;
        let is_own = rows.len() > start;
        let shift = self.geometry.shift(new.entries().1);
        let extended = match (rows.last_mut().filter(|_| is_own), new) {
            (
                Some(Row::Again { va, table, count, level }),
                Row::Again { va: at, table: other, level: here, .. },
            ) if *table == other && *level == here && va.wrapping_add(u64::from(*count) << shift) == at => {
                Some(count)
            }
            (Some(Row::Reserved { va, count, level, .. }), Row::Reserved { va: at, level: here, .. })
                if *level == here && va.wrapping_add(u64::from(*count) << shift) == at =>
            {
                Some(count)
            }
            (Some(Row::Outside { va, count, level, .. }), Row::Outside { va: at, level: here, .. })
                if *level == here && va.wrapping_add(u64::from(*count) << shift) == at =>
            {
                Some(count)
            }
            _ => None,
        };
        match extended {
            Some(count) => *count += 1,
            None => rows.push(new),
        }
    }

    /// Judges the contiguous runs of a table, as far as they lie `within` what was asked for.
    fn runs(
        &mut self,
        frame: u64,
        level: Level,
        va: u64,
        words: &[u64],
        within: (usize, usize),
        mark: usize,
    ) {
        let Some(entries) = self.geometry.contiguous_entries(level).filter(|_| self.geometry.has_leaf(level))
        else {
            return;
        };
        let shift = self.geometry.shift(level);
        let (first, last) = (within.0 / entries, within.1 / entries);
        for (nth, group) in words.chunks(entries).enumerate().skip(first).take(last - first + 1) {
            // Most tables are empty, or all run.
            if group.iter().all(|&word| word & 1 == 0) {
                continue;
            }
            let index = (nth * entries) as u32;
            let va = va.wrapping_add(u64::from(index) << shift);
            match contiguity::judge(&self.decoder, self.geometry, level, group) {
                Group::Broken(what) => {
                    let entry = Entry { table: frame, index, va, level };
                    self.tree.flaws.add(Flaw::Run { entry, entries: entries as u32, what });
                }
                Group::Could if group.len() == entries => {
                    let bytes = (entries as u64) << shift;
                    let entries = entries as u64;
                    let run = Foldable { va, bytes, level, is_run: true, leaves: 1, tables: 0, entries };
                    push_foldable(&mut self.tree.foldable, mark, run);
                }
                _ => {}
            }
        }
    }

    /// The leaf that could replace the table with number `this`: all of it translates to
    /// consecutive addresses with the same attributes.
    fn would_be_leaf(&self, this: usize, level: Level, entries: usize) -> Option<WouldBeLeaf> {
        let upper = Level::new(level.number() - 1).filter(|upper| self.geometry.has_leaf(*upper))?;
        if level <= self.geometry.start_level() {
            return None;
        }
        let table = self.tree.tables.get(this)?;
        let rows = self.tree.rows.get(table.rows.start as usize..)?;
        // Contiguous, and the type bit of pages: a leaf of the upper level has neither.
        let plain = |bits: u64| bits & !(CONTIGUOUS | 0b10);
        let &Row::Leaves { pa: first, bits: wanted, tables: permissions, .. } = rows.first()? else {
            return None;
        };
        let (mut va, mut pa, mut leaves) = (table.va, first, 0);
        for row in rows {
            let Row::Leaves { va: at, pa: to, bits, count, tables, .. } = *row else { return None };
            if at != va || to != pa || plain(bits) != plain(wanted) || tables != permissions {
                return None;
            }
            let bytes = self.tree.bytes(row);
            (va, pa) = (va.wrapping_add(bytes), pa.wrapping_add(bytes));
            leaves += u64::from(count);
        }
        let span = (entries as u64) << self.geometry.shift(level);
        let fits = span == self.geometry.entry_bytes(upper) && va.wrapping_sub(table.va) == span;
        let tables = (self.tree.tables.len() - this) as u64;
        (fits && first & (span - 1) == 0 && self.decoder.meaning(wanted, level, permissions).reserved == 0)
            .then_some(WouldBeLeaf { pa: first, bits: plain(wanted), tables, entries: leaves })
    }
}

/// Adds `new`, or lets the last one after `mark` grow by it.
fn push_foldable(to: &mut Vec<Foldable>, mark: usize, new: Foldable) {
    let is_own = to.len() > mark;
    match to.last_mut().filter(|_| is_own) {
        Some(last) if joins(last, &new) => join(last, &new),
        _ => to.push(new),
    }
}

fn joins(last: &Foldable, new: &Foldable) -> bool {
    last.level == new.level && last.is_run == new.is_run && last.va.wrapping_add(last.bytes) == new.va
}

fn join(last: &mut Foldable, new: &Foldable) {
    last.bytes += new.bytes;
    last.leaves += new.leaves;
    last.tables += new.tables;
    last.entries += new.entries;
}

/// The same with neighbours of different tables joined.
fn merged(all: &[Foldable]) -> Vec<Foldable> {
    let mut ascending = all.to_vec();
    ascending.sort_by_key(|foldable| foldable.va);
    let mut merged: Vec<Foldable> = Vec::new();
    for new in &ascending {
        push_foldable(&mut merged, 0, *new);
    }
    merged
}

//! What a tree maps in total, by leaf size and by what it allows.

use std::collections::HashMap;
use std::ops::Range;

use linmap::listing::Size;
use linmap_vmsa::Level;
use serde::Serialize;

use crate::dump::counted::Counted;
use crate::dump::guest::Root;
use crate::dump::listing::heading;
use crate::dump::meaning::Decoder;
use crate::dump::tree::{Row, Tree, nth};
use crate::failure::Failure;
use crate::output::Output;

/// Leaves of one size.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Leaves {
    count: u64,
    /// Those with the contiguous bit.
    contiguous: u64,
}

/// Totals of a tree, or of what lies below one of its tables.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Totals {
    leaves: [Leaves; 5],
    writable_and_executable: u64,
    executable: u64,
    device: u64,
}

impl Totals {
    /// Adds `times` times `other`. A hostile tree may map more than fits.
    fn add(&mut self, other: &Self, times: u64) {
        let add = |to: &mut u64, what: u64| *to = to.saturating_add(what.saturating_mul(times));
        for (to, what) in self.leaves.iter_mut().zip(&other.leaves) {
            add(&mut to.count, what.count);
            add(&mut to.contiguous, what.contiguous);
        }
        add(&mut self.writable_and_executable, other.writable_and_executable);
        add(&mut self.executable, other.executable);
        add(&mut self.device, other.device);
    }
}

/// Sums rows, those of shared tables once for each path.
struct Sums<'t> {
    tree: &'t Tree,
    decoder: Decoder,
    of_tables: HashMap<u32, Totals>,
}

impl Sums<'_> {
    fn of(&mut self, rows: Range<u32>) -> Totals {
        let mut totals = Totals::default();
        for row in self.tree.rows.get(rows.start as usize..rows.end as usize).unwrap_or_default() {
            match *row {
                Row::Leaves { bits, count, level, tables, .. } => {
                    let meaning = self.decoder.meaning(bits, level, tables);
                    let bytes = self.tree.bytes(row);
                    let mut own = Totals::default();
                    if let Some(leaves) = own.leaves.get_mut(nth(level)) {
                        leaves.count = u64::from(count);
                        leaves.contiguous = if meaning.is_contiguous() { u64::from(count) } else { 0 };
                    }
                    let if_so = |is: bool| if is { bytes } else { 0 };
                    own.writable_and_executable = if_so(meaning.is_writable_and_executable());
                    own.executable = if_so(meaning.rights.executors != 0);
                    own.device = if_so(meaning.memory.is_device());
                    totals.add(&own, 1);
                }
                Row::Again { table, count, .. } => {
                    let below = self.of_table(table);
                    totals.add(&below, u64::from(count));
                }
                Row::Reserved { .. } | Row::Outside { .. } => {}
            }
        }
        totals
    }

    /// Of a table that was read before: it stands lower than the entry, so this ends.
    fn of_table(&mut self, table: u32) -> Totals {
        if let Some(totals) = self.of_tables.get(&table) {
            return *totals;
        }
        let rows = self.tree.tables.get(table as usize).map(|table| table.rows.clone()).unwrap_or_default();
        let totals = self.of(rows);
        self.of_tables.insert(table, totals);
        totals
    }
}

/// Leaves of one size, as JSON has them.
#[derive(Clone, Debug, Serialize)]
pub struct BySize {
    /// Their level.
    pub level: i8,
    /// What one maps.
    pub leaf: u64,
    /// Whether they have the contiguous bit.
    pub contiguous: bool,
    /// How many.
    pub count: u64,
    /// What they map together.
    pub bytes: u64,
}

/// Tables at one level.
#[derive(Clone, Debug, Serialize)]
pub struct TablesAt {
    /// The level.
    pub level: i8,
    /// How many.
    pub count: u64,
}

/// The summary of a tree.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What is mapped.
    pub mapped: u64,
    /// By leaf size, the largest first.
    pub leaves: Vec<BySize>,
    /// What is mapped by blocks, leaves above level 3.
    pub blocks: u64,
    /// What is writable and executable by the same leaf.
    pub writable_and_executable: u64,
    /// What is executable.
    pub executable: u64,
    /// What is device memory.
    pub device: u64,
    /// Its tables by level.
    pub tables: Vec<TablesAt>,
    /// The bytes of its tables.
    pub table_bytes: u64,
    /// Invalid entries that are not zero.
    pub invalid_not_zero: u64,
}

impl Summary {
    /// The summary of `tree` below `root`.
    pub fn of(root: &Root, tree: &Tree) -> Self {
        let mut sums = Sums { tree, decoder: Decoder::new(root), of_tables: HashMap::new() };
        let totals = sums.of(0..tree.rows.len() as u32);
        let levels = || (-1..=3).filter_map(Level::new);
        let mut leaves = Vec::new();
        for level in levels() {
            // Not every granule has every level.
            let Some(of_level) = totals.leaves.get(nth(level)).filter(|of_level| of_level.count > 0) else {
                continue;
            };
            let leaf = root.geometry.entry_bytes(level);
            for (contiguous, count) in
                [(true, of_level.contiguous), (false, of_level.count - of_level.contiguous)]
            {
                if count > 0 {
                    let bytes = count.saturating_mul(leaf);
                    leaves.push(BySize { level: level.number(), leaf, contiguous, count, bytes });
                }
            }
        }
        let sum = |of: &dyn Fn(&BySize) -> bool| {
            leaves.iter().filter(|size| of(size)).fold(0u64, |sum, size| sum.saturating_add(size.bytes))
        };
        let tables: Vec<_> = levels()
            .filter_map(|level| {
                let count = tree.tables_by_level.get(nth(level)).copied().filter(|count| *count > 0)?;
                Some(TablesAt { level: level.number(), count })
            })
            .collect();
        // A frame that is used at two levels is one.
        let table_bytes = tree.frames.len() as u64 * root.geometry.granule().bytes();
        Self {
            mapped: sum(&|_| true),
            blocks: sum(&|size| size.level < 3),
            leaves,
            writable_and_executable: totals.writable_and_executable,
            executable: totals.executable,
            device: totals.device,
            tables,
            table_bytes,
            invalid_not_zero: tree.invalid_not_zero,
        }
    }

    /// Writes the summary of the tree of `root`.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn write(&self, root: &Root, output: &mut Output) -> Result<(), Failure> {
        output.line(heading(root))?;
        output.line(format_args!("  mapped      {:>9}", Rounded(self.mapped)))?;
        for size in &self.leaves {
            let kind = if size.contiguous { "CON" } else { "   " };
            let share = percent(size.bytes, self.mapped);
            let (leaf, bytes, count) = (Size(size.leaf), Rounded(size.bytes), Counted(size.count, "leaf"));
            let level = size.level;
            output.line(format_args!("    {leaf:>4} {kind}  {bytes:>9} {share:>7}  {count} of L{level}"))?;
        }
        for (name, bytes) in [
            ("in blocks", self.blocks),
            ("executable", self.executable),
            ("W+X", self.writable_and_executable),
            ("device", self.device),
        ] {
            let share = percent(bytes, self.mapped);
            output.line(format_args!("  {name:<11} {:>9} {share:>7}", Rounded(bytes)))?;
        }
        let levels: Vec<_> =
            self.tables.iter().map(|tables| format!("{} of L{}", tables.count, tables.level)).collect();
        let count: u64 = self.tables.iter().map(|tables| tables.count).sum();
        let bytes = Rounded(self.table_bytes);
        output.line(format_args!("  tables      {bytes:>9}          {count}: {}", levels.join(", ")))?;
        if self.invalid_not_zero > 0 {
            let count = self.invalid_not_zero;
            let are = if count == 1 { "is" } else { "are" };
            output.line(format_args!("  {} {are} invalid and not zero", Counted(count, "entry")))?;
        }
        Ok(())
    }
}

fn percent(part: u64, whole: u64) -> String {
    let whole = whole.max(1) as f64;
    format!("{:.1} %", part as f64 * 100.0 / whole)
}

/// A size in bytes with one decimal, as people read it: `3.9G`. Whole numbers have none.
struct Rounded(u64);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];
        let unit = (self.0.checked_ilog2().unwrap_or(0) / 10) as usize;
        let scaled = self.0 as f64 / (1u64 << (10 * unit)) as f64;
        let name = UNITS.get(unit).unwrap_or(&"");
        let text = match self.0 % (1 << (10 * unit)) {
            0 => format!("{scaled}{name}"),
            _ => format!("{scaled:.1}{name}"),
        };
        f.pad(&text)
    }
}

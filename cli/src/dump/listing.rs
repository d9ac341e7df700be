//! Trees as text: a line for each run.

use std::collections::HashMap;
use std::fmt;

use linmap::listing::Size;
use linmap_vmsa::{HardwareUpdates, Level, TablePermissions};

use crate::dump::described::Described;
use crate::dump::guest::Root;
use crate::dump::meaning::Decoder;
use crate::dump::runs::{self, Run};
use crate::dump::tree::{Row, Tree};
use crate::failure::Failure;
use crate::output::Output;

/// The line that tells which tree is listed, and how its addresses are translated.
pub fn heading(root: &Root) -> String {
    let geometry = root.geometry;
    let mut text = format!("{} {}: {}", root.register, root.table, geometry.regime());
    let address = if geometry.regime().is_stage_2() { "IPA" } else { "VA" };
    let kib = geometry.granule().bytes() >> 10;
    text += &format!(", {kib}K pages, {}-bit {address}, {}-bit PA", geometry.va_bits(), geometry.pa_bits());
    if geometry.lpa2() {
        text += ", LPA2";
    }
    if geometry.regime().is_stage_2() {
        text += &format!(", VMID {}", root.id);
    } else if geometry.regime().has_user_space() {
        text += &format!(", ASID {}", root.id);
    }
    match (geometry.regime().is_stage_2(), root.mair) {
        (true, _) => {}
        (false, Some(mair)) => text += &format!(", MAIR {mair:#018x}"),
        (false, None) => text += ", MAIR unknown: memory types by index",
    }
    match root.updates {
        HardwareUpdates::Off => {}
        HardwareUpdates::Accessed => text += ", HA",
        HardwareUpdates::AccessedAndDirty => text += ", HA, HD",
    }
    if !root.has_table_permissions {
        text += ", HPD";
    }
    if root.writable_never_executes {
        text += ", WXN";
    }
    text
}

/// The columns of leaves, each made once.
#[derive(Debug)]
pub struct Columns {
    decoder: Decoder,
    made: HashMap<(u64, Level, TablePermissions), String>,
}

/// More combinations of attributes than any kernel uses.
const COLUMNS_HELD: usize = 1 << 12;

impl Columns {
    /// Those of the leaves below `root`.
    pub fn new(root: &Root) -> Self {
        Self { decoder: Decoder::new(root), made: HashMap::new() }
    }

    /// What `make` makes of a leaf.
    pub fn of(
        &mut self,
        bits: u64,
        level: Level,
        tables: TablePermissions,
        make: impl FnOnce(&Described) -> String,
    ) -> &str {
        if self.made.len() > COLUMNS_HELD {
            self.made.clear();
        }
        let decoder = self.decoder;
        self.made
            .entry((bits, level, tables))
            .or_insert_with(|| make(&Described::of(&decoder.meaning(bits, level, tables))))
    }
}

/// Writes the line of a run to `to`.
///
/// # Errors
/// Those of `to`.
pub fn line(to: &mut impl fmt::Write, run: &Run, tree: &Tree, columns: &mut Columns) -> fmt::Result {
    let (va, end) = (run.row.va(), run.row.va().wrapping_add(run.bytes));
    write!(to, "{va:#018x}-{end:#018x} ")?;
    let size = Size(run.bytes);
    match run.row {
        Row::Leaves { pa, bits, level, tables, .. } => {
            write!(to, "{pa:#014x} {size:>6} ")?;
            to.write_str(columns.of(bits, level, tables, Described::to_string))
        }
        Row::Again { table, level, .. } => {
            let (frame, first) =
                tree.tables.get(table as usize).map_or((0, 0), |table| (table.frame, table.va));
            write!(to, "{frame:#014x} {size:>6} L{level} table again, as at {first:#018x}")
        }
        Row::Reserved { entry, level, .. } => {
            write!(to, "{:14} {size:>6} L{level} RESERVED encoding {entry:#018x}", "")
        }
        Row::Outside { frame, level, .. } => {
            write!(to, "{frame:#014x} {size:>6} L{level} table OUTSIDE memory")
        }
    }
}

/// Writes the lines of a tree.
///
/// # Errors
/// Those of standard output.
pub fn write(root: &Root, tree: &Tree, output: &mut Output) -> Result<(), Failure> {
    output.line(heading(root))?;
    let (mut columns, mut text) = (Columns::new(root), String::new());
    for run in runs::of(tree) {
        if !output.has_reader() {
            return Ok(());
        }
        text.clear();
        if line(&mut text, &run, tree, &mut columns).is_ok() {
            output.line(&text)?;
        }
    }
    if tree.is_cut {
        output.line("the tree has more rows; read them with --rows or in parts with --va")?;
    }
    Ok(())
}

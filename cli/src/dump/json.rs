//! Dumps as JSON, a run a line, written while the tree is folded.

use linmap_vmsa::{Geometry, HardwareUpdates};
use serde::Serialize;
use serde_json::{Value, json};

use crate::dump::finding::Findings;
use crate::dump::guest::Root;
use crate::dump::listing::Columns;
use crate::dump::runs;
use crate::dump::saved::{FORMAT, VERSION};
use crate::dump::segments::other;
use crate::dump::summary::Summary;
use crate::dump::tree::{Row, Tree};
use crate::failure::Failure;
use crate::output::Output;

/// What begins a dump.
///
/// # Errors
/// Those of standard output.
pub fn begin(notes: &[String], output: &mut Output) -> Result<(), Failure> {
    let notes = Value::from(notes);
    output.line(format_args!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"notes\":{notes},\"roots\":["))
}

/// What ends it.
///
/// # Errors
/// Those of standard output.
pub fn end(findings: &[Findings], output: &mut Output) -> Result<(), Failure> {
    output.line(format_args!("],\"findings\":{}}}", text(&findings)))
}

fn text<T: Serialize>(value: &T) -> String {
    // Nothing here has keys that are no strings, or writes to what may fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// The members of a root that say how its addresses are translated, without braces.
pub fn root_members(root: &Root) -> String {
    let Root { register, geometry, table, first, id, tcr, mair, .. } = root;
    let hex = |value: u64| format!("{value:#x}");
    let members = json!({
        "register": register.to_string(),
        "regime": geometry.regime().to_string(),
        "granule": Geometry::granule(*geometry).bytes(),
        "va_bits": geometry.va_bits(),
        "pa_bits": geometry.pa_bits(),
        "lpa2": geometry.lpa2(),
        "table": hex(table.0),
        "first": hex(first.0),
        "id": id,
        "tcr": tcr.map(hex),
        "mair": mair.map(hex),
        "hardware_access_flag": root.updates != HardwareUpdates::Off,
        "hardware_dirty_state": root.updates == HardwareUpdates::AccessedAndDirty,
        "table_permissions": root.has_table_permissions,
        "writable_never_executes": root.writable_never_executes,
    });
    let text = members.to_string();
    text.trim_start_matches('{').trim_end_matches('}').to_owned()
}

/// Whether a root has its runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// It has.
    Listed,
    /// It has its summary alone.
    Left,
}

/// Writes a root with its tree.
///
/// # Errors
/// Those of standard output.
pub fn write(
    root: &Root,
    tree: &Tree,
    runs: Runs,
    is_first: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let comma = if is_first { "" } else { "," };
    let summary = text(&Summary::of(root, tree));
    output.write(format_args!("{comma}{{{},\"summary\":{summary}", root_members(root)))?;
    output.write(format_args!(",\"complete\":{}", !tree.is_cut))?;
    if runs == Runs::Left {
        return output.line("}");
    }
    output.line(",\"runs\":[")?;
    let mut columns = Columns::new(root);
    let mut comma = "";
    for run in runs::of(tree) {
        if !output.has_reader() {
            return Ok(());
        }
        let (va, bytes) = (run.row.va(), run.bytes);
        output.write(format_args!("{comma}{{\"va\":\"{va:#x}\",\"bytes\":{bytes},"))?;
        comma = ",";
        match run.row {
            Row::Leaves { pa, bits, level, tables, .. } => {
                let attributes = columns.of(bits, level, tables, text);
                output.line(format_args!("\"pa\":\"{pa:#x}\",\"attributes\":{attributes}}}"))?;
            }
            _ => output.line(format_args!("\"other\":{}}}", Value::from(other(&run.row, tree))))?,
        }
    }
    output.line("]}")
}

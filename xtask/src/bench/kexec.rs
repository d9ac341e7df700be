//! What it costs to enter a payload, in instructions: linmap kexecs into itself in QEMU, whose
//! virtual counter counts them.
//!
//! The payload is the kernel and its archive, made longer by bytes that can't be cleared instead of
//! moved. All of it is scattered page by page, so that all of it has to be moved. The counter
//! begins with the last instruction of the old kernel and ends with the first of the next one. It
//! counts the instructions of all CPUs; QEMU runs them in turn, and those that wait execute next to
//! nothing. So the longest list's share of the bytes gives what the busiest CPU executes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::workspace::{Workspace, write_atomically};
use crate::{process, progress};

/// Bytes that Linux 7.2.13 moved, in whole pages, and the instructions it took.
const LINUX: (u64, u64) = (50_335_744, 12_774_626);

/// How the payload gets where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is loaded there.
    InPlace,
    /// It is moved with the MMU on.
    MmuOn,
    /// It is moved with the MMU off, which one CPU does.
    MmuOff,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::MmuOn => "MMU on",
            Self::MmuOff => "MMU off",
        }
    }

    fn load(self) -> &'static str {
        match self {
            Self::InPlace => "kexec load",
            Self::MmuOn => "kexec load --scattered",
            Self::MmuOff => "kexec load --scattered --mmu-off",
        }
    }
}

/// One kexec.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// Bytes of the payload; 0 adds none to what it has.
    bytes: u64,
    way: Way,
    cpus: u32,
    memory: &'static str,
    /// Whether it is left out of a quick run.
    slow: bool,
}

const fn case(bytes: u64, way: Way, cpus: u32) -> Case {
    Case { bytes, way, cpus, memory: "4G", slow: bytes > LINUX.0 }
}

const CASES: [Case; 13] = [
    case(0, Way::InPlace, 1),
    case(LINUX.0, Way::MmuOn, 1),
    Case { memory: "512G", ..case(LINUX.0, Way::MmuOn, 1) },
    case(LINUX.0, Way::MmuOn, 4),
    case(25_000_000, Way::MmuOn, 1),
    case(25_000_000, Way::MmuOn, 4),
    case(25_000_000, Way::MmuOff, 1),
    case(84_000_000, Way::MmuOn, 1),
    case(84_000_000, Way::MmuOn, 4),
    case(84_000_000, Way::MmuOff, 1),
    case(380_000_000, Way::MmuOn, 1),
    case(380_000_000, Way::MmuOn, 4),
    case(380_000_000, Way::MmuOff, 1),
];

/// What a kexec took.
#[derive(Debug, Clone, Copy)]
struct Row {
    case: Case,
    /// Bytes that were moved or cleared.
    moved: u64,
    /// Bytes of the longest list.
    longest: u64,
    /// Instructions of all CPUs from the last of the old kernel to the first of the new one.
    all: u64,
    /// Instructions for the transitional tables, where there are any.
    tables: Option<u64>,
}

impl Row {
    fn per_byte(&self) -> f64 {
        self.all as f64 / self.moved as f64
    }

    /// Instructions of the CPU that has most to do.
    fn busiest(&self) -> u64 {
        if self.moved == 0 {
            return self.all;
        }
        (u128::from(self.all) * u128::from(self.longest)).div_ceil(u128::from(self.moved)) as u64
    }
}

/// Measures all cases, prints them and writes target/bench/kexec.json.
pub fn run(workspace: &Workspace, quick: bool) -> Result<()> {
    let folder = workspace.folder("bench")?;
    // What there is without more bytes: the image, the archive with it once more, and the device
    // tree.
    let mut least = 0;
    let mut rows = Vec::new();
    for case in CASES.into_iter().filter(|case| !(quick && case.slow)) {
        let what = format!("kexec: {} {} bytes, {} CPUs", case.way.name(), case.bytes, case.cpus);
        let (row, in_place) =
            progress::during(&what, || measure(&folder, case, case.bytes.saturating_sub(least)))?;
        least = least.max(in_place);
        rows.push(row);
    }
    let path = folder.join("kexec.json");
    let text: Vec<_> = rows.iter().map(json).collect();
    write_atomically(&path, format!("{:#}\n", json!({"bench": "kexec", "rows": text})).as_bytes())?;
    print(&rows).context("writing the results")?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// A kexec with `more` bytes in the archive, and how many bytes were loaded in place.
fn measure(folder: &Path, case: Case, more: u64) -> Result<(Row, u64)> {
    let records = tempfile::NamedTempFile::new_in(folder)?;
    let padding = tempfile::NamedTempFile::new_in(folder)?;
    pad(padding.as_file(), more)?;
    let Case { way, cpus, memory, .. } = case;
    let mut boot = Command::new(std::env::current_exe().context("finding our own program")?);
    boot.args(["boot", "--icount", "--payload", "self", "--timeout", "300", "--memory", memory]);
    boot.args(["--cpus", &cpus.to_string(), "--script", &format!("{}; kexec plan; kexec exec", way.load())]);
    boot.arg("--json").arg(records.path()).arg("--initrd").arg(padding.path());
    process::capture(&mut boot)?;
    let records: Vec<Map<String, Value>> = serde_json::from_slice(&std::fs::read(records.path())?)?;
    let number = |key: &str, value: &str, field: &str| -> Option<u64> {
        records
            .iter()
            .find(|record| record.get(key).is_some_and(|found| found == value))?
            .get(field)?
            .as_u64()
    };
    let needed =
        |key, value, field| number(key, value, field).with_context(|| format!("no {key}={value} {field}="));
    let moved = needed("kexec", "plan", "moved")? + needed("kexec", "plan", "cleared")?;
    let row = Row {
        case,
        moved,
        longest: needed("kexec", "plan", "longest")?,
        all: needed("phase", "kexec-jump", "ticks")?,
        tables: number("phase", "kexec-tables", "ticks"),
    };
    if (way == Way::InPlace) != (moved == 0) || needed("state", "kexec", "cpus")? != u64::from(cpus) {
        bail!("not what was asked for: {}", process::line(&boot));
    }
    Ok((row, needed("phase", "kexec-load", "in_place")?))
}

/// Writes `len` bytes as 64-bit words that are never zero: xorshift64.
fn pad(file: &File, len: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..len / 8 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.write_all(&word.to_le_bytes())?;
    }
    Ok(out.flush()?)
}

fn json(row: &Row) -> Value {
    json!({
        "way": row.case.way.name(),
        "cpus": row.case.cpus,
        "memory": row.case.memory,
        "moved_bytes": row.moved,
        "instructions": row.all,
        "longest_list_bytes": row.longest,
        "busiest_cpu_instructions": row.busiest(),
        "tables_instructions": row.tables,
    })
}

fn print(rows: &[Row]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "kexec of linmap into itself, -cpu max --icount: instructions")?;
    writeln!(
        out,
        "{:>11} {:>8} {:>6} {:>4} {:>12} {:>8} {:>12} {:>7}",
        "bytes", "way", "memory", "CPUs", "all CPUs", "per byte", "busiest CPU", "tables"
    )?;
    for row in rows {
        let Case { way, cpus, memory, .. } = row.case;
        let per_byte = if row.moved == 0 { String::new() } else { format!("{:.4}", row.per_byte()) };
        let tables = row.tables.map(|tables| tables.to_string()).unwrap_or_default();
        writeln!(
            out,
            "{:>11} {:>8} {memory:>6} {cpus:>4} {:>12} {per_byte:>8} {:>12} {tables:>7}",
            row.moved,
            way.name(),
            row.all,
            row.busiest()
        )?;
    }
    let (bytes, instructions) = LINUX;
    writeln!(
        out,
        "{bytes:>11} {:>8} {:>6} {:>4} {instructions:>12} {:>8.4} {instructions:>12} {:>7}",
        "Linux",
        "4G",
        1,
        instructions as f64 / bytes as f64,
        123_131
    )?;
    writeln!(out)?;
    writeln!(out, "Linux        7.2.13; its tables with blocks, 97 135 490 instructions with pages")?;
    writeln!(
        out,
        "all CPUs     the virtual counter, which includes waiting in WFE: next to nothing in QEMU"
    )?;
    writeln!(out, "busiest CPU  the longest list's share of it")?;
    writeln!(
        out,
        "MMU off      the same copy and two more passes of cache maintenance. On real CPUs its accesses are \
         uncached, which"
    )?;
    writeln!(
        out,
        "             no instruction count shows. Published, MMU off and on: 25 MB 0.4405 s and 0.0222 s, \
         84 MB 7.4895 s"
    )?;
    writeln!(out, "             and 0.0395 s, 380 MB with the whole reboot 3.9 s and 0.33 s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_has_its_length_and_no_zero_page() {
        let file = tempfile::NamedTempFile::new().unwrap();
        pad(file.as_file(), 1 << 20).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes.chunks(8).all(|word| word.iter().any(|&byte| byte != 0)));
    }

    #[test]
    fn the_busiest_cpu_executes_its_lists_part() {
        let mut row = Row { case: CASES[3], moved: 4000, longest: 1001, all: 400, tables: None };
        assert_eq!(row.busiest(), 101);
        row = Row { moved: 0, longest: 0, ..row };
        assert_eq!(row.busiest(), 400);
    }
}

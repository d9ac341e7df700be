//! The results for machines: `host.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::contestant::Role;
use crate::machine::Machine;
use crate::measure::{Effort, Results, Row};
use crate::table::{gib_per_second, ns_per_entry};
use crate::wanted::{WANTED, Wanted};

/// Writes `host.json` into `folder`, which is created when missing, and returns its path.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write(folder: &Path, machine: &Machine, effort: Effort, all: &[Results]) -> Result<PathBuf> {
    let value = json!({
        "bench": "host",
        "effort": match effort { Effort::Quick => "quick", Effort::Full => "full" },
        "machine": {
            "cpu": machine.cpu,
            "cpus": machine.cpus,
            "arena_bytes": machine.arena_bytes,
            "huge_bytes": machine.huge_bytes,
        },
        "rustc": machine.rustc,
        "cases": all.iter().map(case).collect::<Vec<_>>(),
        "wanted": WANTED.iter().flat_map(|aim| wanted(*aim, all)).collect::<Vec<_>>(),
    });
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("host.json");
    let text = format!("{value:#}\n");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn case(results: &Results) -> Value {
    json!({
        "gib": results.case.gib,
        "leaf": results.case.leaf.key(),
        "entries": results.case.entries(),
        "tables": results.case.tables(),
        "table_bytes": results.case.table_bytes(),
        "rows": results.rows.iter().map(|one| row(results, one)).collect::<Vec<_>>(),
    })
}

fn row(results: &Results, row: &Row) -> Value {
    let times = row.times;
    let compared = |role| results.of(role).map(|other| rounded(row.ratio(other)));
    json!({
        "name": row.contestant.name,
        "median_ns": times.median.as_nanos() as u64,
        "min_ns": times.min.as_nanos() as u64,
        "max_ns": times.max.as_nanos() as u64,
        "samples": times.samples,
        "ns_per_entry": rounded(ns_per_entry(results, row)),
        "gib_per_s": rounded(gib_per_second(results, row)),
        "times_raw": compared(Role::Floor),
        "times_linmap": compared(Role::Subject),
    })
}

/// How each of linmap's rows does beside an aim.
fn wanted(wanted: Wanted, all: &[Results]) -> Vec<Value> {
    let Some(results) = all.iter().find(|results| results.case == wanted.case) else { return Vec::new() };
    let judged = results.ours().filter_map(|row| {
        let verdict = wanted.bound.judge(results, row)?;
        Some(json!({
            "gib": wanted.case.gib,
            "leaf": wanted.case.leaf.key(),
            "name": row.contestant.name,
            "want": wanted.bound.describe(results),
            "limit": wanted.bound.limit(),
            "measured": rounded(verdict.measured),
            "met": verdict.met,
        }))
    });
    judged.collect()
}

/// To four decimal places.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

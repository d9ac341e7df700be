//! The results for machines: `host.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::contestant::Role;
use crate::machine::Machine;
use crate::measure::{Effort, Results, Row};
use crate::model::Outcome;
use crate::table::gib_per_second;
use crate::wanted::{MODEL_WANTED, ModelBound, WANTED, Wanted};

/// Writes `host.json` into `folder`, which is created when missing, and returns its path.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write(
    folder: &Path,
    machine: &Machine,
    effort: Effort,
    all: &[Results],
    model: &[Outcome],
) -> Result<PathBuf> {
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
        "model": model.iter().map(outcome).collect::<Vec<_>>(),
        "model_wanted": MODEL_WANTED.iter().flat_map(|aim| model_wanted(*aim, model)).collect::<Vec<_>>(),
    });
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("host.json");
    let text = format!("{value:#}\n");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn case(results: &Results) -> Value {
    json!({
        "work": results.case.work.key(),
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
        "tlbis": row.tlbis,
        "ns_per_entry": rounded(row.ns_per_entry(results.case)),
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
            "work": wanted.case.work.key(),
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

fn outcome(outcome: &Outcome) -> Value {
    json!({
        "source": outcome.job.source.key(),
        "gib": outcome.job.gib,
        "events": outcome.events,
        "ns": outcome.time.as_nanos() as u64,
        "events_per_s": outcome.events_per_second().round(),
        "table_bytes": outcome.table_bytes,
        "peak_bytes": outcome.peak_bytes,
        "times_tables": rounded(outcome.times_tables()),
    })
}

/// How each of the model's jobs does beside an aim.
fn model_wanted(bound: ModelBound, model: &[Outcome]) -> Vec<Value> {
    let judged = model.iter().filter_map(|outcome| {
        let verdict = bound.judge(outcome)?;
        Some(json!({
            "source": outcome.job.source.key(),
            "gib": outcome.job.gib,
            "want": bound.describe(),
            "limit": bound.limit(),
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

//! What of a guest's trees the user sees.

use linmap_vmsa::Va;
use serde_json::{Value, json};

use crate::dump::arguments::ViewArgs;
use crate::dump::asked::untranslated;
use crate::dump::counted::Counted;
use crate::dump::finding::{Findings, Severity};
use crate::dump::frames::{Frames, Through};
use crate::dump::guest::{AddressSpace, Guest};
use crate::dump::json;
use crate::dump::judgement::{self, ReadTree};
use crate::dump::listing;
use crate::dump::read_trees::{ReadTrees, say_notes, stage_2_of};
use crate::dump::summary::Summary;
use crate::dump::walk::{self, End, Walk};
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

/// Shows what `arguments` ask for of `guest`.
///
/// # Errors
/// No such root or address, or those of the guest's memory and of standard output.
pub fn show(mut guest: Guest, arguments: &ViewArgs, output: &mut Output) -> Result<Outcome, Failure> {
    if let Some(va) = arguments.walked() {
        return show_walks(&mut guest, va, arguments, output);
    }
    let asked = arguments.asked();
    let parts = asked.parts_of(&guest.roots)?;
    let read = ReadTrees::read(&mut guest, &parts, arguments.rows(), output.verbosity())?;
    say_notes(&read.notes, output);
    let findings = judgement::findings(&read.trees, &read.ranges);
    if arguments.json {
        let runs = match arguments.summary || arguments.findings {
            true => json::Runs::Left,
            false => json::Runs::Listed,
        };
        json::begin(&read.notes, &asked, output)?;
        for (nth, ReadTree { root, tree }) in read.trees.iter().enumerate() {
            json::write(root, tree, runs, nth == 0, output)?;
        }
        json::end(&findings, output)?;
        return Ok(Outcome::Good);
    }
    for ReadTree { root, tree } in &read.trees {
        if arguments.summary {
            Summary::of(root, tree).write(root, output)?;
        } else if !arguments.findings {
            listing::write(root, tree, output)?;
        }
    }
    write_findings(&findings, arguments, output)?;
    Ok(Outcome::Good)
}

fn show_walks(
    guest: &mut Guest,
    va: u64,
    arguments: &ViewArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let notes = guest.notes.clone();
    let asked = arguments.asked();
    let roots: Vec<_> =
        asked.roots_of(&guest.roots)?.into_iter().filter(|root| root.translates(va)).collect();
    if roots.is_empty() {
        return Err(untranslated(va, &guest.roots));
    }
    say_notes(&notes, output);
    let mut frames = Frames::new(&mut *guest.memory);
    let stage_2 = stage_2_of(roots.iter().copied(), &guest.roots, &mut frames, arguments.rows())?;
    if arguments.json {
        json::begin(&notes, &asked, output)?;
    }
    for (nth, root) in roots.iter().enumerate() {
        let through = Through::of(root.addresses, stage_2.as_ref());
        let walk = walk::walk(root, va, &mut frames, through)?;
        if arguments.json {
            let comma = if nth == 0 { "" } else { "," };
            let members = json::root_members(root);
            output.line(format_args!("{comma}{{{members},\"walk\":{}}}", walk_value(va, &walk)))?;
            continue;
        }
        output.line(listing::heading(root))?;
        write_walk(va, &walk, output)?;
        if let (End::Leaf(ipa, _), Some(stage_2)) = (&walk.end, &stage_2)
            && root.addresses == AddressSpace::Intermediate
        {
            match stage_2.translate(ipa.0) {
                Some(pa) => output.line(format_args!("  stage 2: {ipa} -> {pa:#x}"))?,
                None => output.line(format_args!("  stage 2: {ipa} faults"))?,
            }
        }
    }
    if arguments.json {
        json::end(&[], output)?;
    }
    Ok(Outcome::Good)
}

fn end_text(end: &End) -> String {
    match end {
        End::Leaf(pa, described) => format!("{:#014x} {described}", pa.0),
        End::Invalid => "translation fault: the entry is invalid".to_owned(),
        End::Reserved => "translation fault: the encoding is reserved".to_owned(),
        End::BeyondPa(pa) => format!("address size fault: {pa} has more bits than a PA"),
        End::Outside(table) => format!("the table at {table:#x} is no memory"),
    }
}

fn write_walk(va: u64, walk: &Walk, output: &mut Output) -> Result<(), Failure> {
    for step in &walk.steps {
        let value = step.value.map_or("no memory".to_owned(), |value| format!("{value:#018x}"));
        output.line(format_args!(
            "  L{} entry {:4} of {:#014x}: {value}",
            step.level, step.index, step.table
        ))?;
    }
    output.line(format_args!("{} {}", Va(va), end_text(&walk.end)))
}

fn walk_value(va: u64, walk: &Walk) -> Value {
    let steps: Vec<_> = walk
        .steps
        .iter()
        .map(|step| {
            let value = step.value.map(|value| format!("{value:#018x}"));
            let table = format!("{:#x}", step.table);
            json!({"level": step.level.number(), "table": table, "index": step.index, "entry": value})
        })
        .collect();
    let (pa, attributes) = match &walk.end {
        End::Leaf(pa, described) => (Some(format!("{pa}")), serde_json::to_value(described).ok()),
        _ => (None, None),
    };
    let fault = if pa.is_none() { Some(end_text(&walk.end)) } else { None };
    json!({"va": format!("{va:#x}"), "steps": steps, "pa": pa, "attributes": attributes, "fault": fault})
}

/// How many findings of a kind are shown without --all.
const SHOWN: usize = 8;

fn write_findings(all: &[Findings], arguments: &ViewArgs, output: &mut Output) -> Result<(), Failure> {
    let count = |severity| -> u64 {
        all.iter().filter(|findings| findings.severity == severity).map(|findings| findings.total).sum()
    };
    let (problems, notes) = (count(Severity::Problem), count(Severity::Note));
    let (problems, notes) = (Counted(problems, "problem"), Counted(notes, "note"));
    output.line(format_args!("findings: {problems}, {notes}"))?;
    for Findings { kind, severity, total, sum, findings } in all {
        let style = match severity {
            Severity::Problem => anstyle::AnsiColor::Red.on_default(),
            Severity::Note => anstyle::AnsiColor::Cyan.on_default(),
        };
        let sum = sum.as_ref().map_or(String::new(), |sum| format!(", {sum}"));
        output.line(format_args!("{style}{severity}{style:#}: {kind}: {total}{sum}"))?;
        let shown = if arguments.all { findings.len() } else { SHOWN };
        for finding in findings.iter().take(shown) {
            output.line(format_args!("  {kind}: {}", finding.text))?;
        }
        let left = total.saturating_sub(findings.len().min(shown) as u64);
        if left > 0 {
            output.line(format_args!("  and {left} more"))?;
        }
    }
    Ok(())
}

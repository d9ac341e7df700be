//! What of a guest's trees the user sees.

use std::path::{Path, PathBuf};

use linmap::listing::Size;
use linmap_vmsa::Va;
use serde_json::{Value, json};

use crate::dump::address_range::AddressRange;
use crate::dump::diff::{self, Change};
use crate::dump::finding::{Findings, Severity};
use crate::dump::frames::{Frames, Through};
use crate::dump::guest::{AddressSpace, Guest, Root, RootRegister};
use crate::dump::json;
use crate::dump::judgement::{self, ReadTree};
use crate::dump::listing;
use crate::dump::reading::{self, Bounds};
use crate::dump::saved::{self, SavedRoot};
use crate::dump::segments::{Segments, What};
use crate::dump::summary::Summary;
use crate::dump::tree::Tree;
use crate::dump::walk::{self, End, Walk};
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::{Output, Verbosity};
use crate::progress;

/// What of the trees is shown, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is shown")]
pub struct ViewArgs {
    /// Only the trees of these registers, such as ttbr1_el1; all by default
    #[arg(long, value_name = "REGISTER")]
    root: Vec<String>,
    /// Only these addresses: START-END, START+SIZE, or one address, whose walk is shown
    #[arg(long, value_name = "RANGE")]
    va: Option<AddressRange>,
    /// Totals instead of runs
    #[arg(long)]
    summary: bool,
    /// Findings instead of runs
    #[arg(long, conflicts_with = "summary")]
    findings: bool,
    /// Every finding that is held, up to 256 of a kind, not the first eight
    #[arg(long)]
    all: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    /// What changed since OTHER, a dump saved with --json or another core: exit code 1 if anything
    #[arg(long, value_name = "OTHER", conflicts_with_all = ["summary", "findings"])]
    pub diff: Option<PathBuf>,
    /// Read at most this many rows of a tree, 32 bytes each
    #[arg(long, value_name = "COUNT", default_value_t = 1 << 25)]
    rows: u32,
}

/// A dump to compare with.
pub enum Other {
    /// JSON.
    Saved(Vec<SavedRoot>),
    /// Another core.
    Guest(Box<Guest>),
}

impl Other {
    /// The saved dump in the file at `path`.
    ///
    /// # Errors
    /// It is none.
    pub fn saved(path: &Path) -> Result<Self, Failure> {
        saved::read(path).map(Self::Saved)
    }
}

/// Shows what `arguments` ask for of `guest`; what differs from `other` if there is one.
///
/// # Errors
/// No such root or address, or those of the guest's memory and of standard output.
pub fn show(
    mut guest: Guest,
    other: Option<Other>,
    arguments: &ViewArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    if let Some(range) = arguments.va.filter(|range| range.is_address) {
        return show_walks(&mut guest, range.first, arguments, output);
    }
    let read = read(&mut guest, arguments, output)?;
    say_notes(&read.notes, output);
    if let Some(other) = other {
        return show_differences(&read, other, arguments, output);
    }
    let findings = judgement::findings(&read.trees, &read.ranges);
    if arguments.json {
        let runs = match arguments.summary || arguments.findings {
            true => json::Runs::Left,
            false => json::Runs::Listed,
        };
        json::begin(&read.notes, output)?;
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

/// All trees that were asked for.
struct ReadTrees {
    trees: Vec<ReadTree>,
    ranges: Vec<std::ops::Range<u64>>,
    notes: Vec<String>,
}

fn say_notes(notes: &[String], output: &Output) {
    if output.verbosity() > Verbosity::Quiet {
        for note in notes {
            anstream::eprintln!("note: {}", note.replace(char::is_control, " "));
        }
    }
}

/// Whether `name` is what a user calls `register`: its name, or that of stage 2.
fn is_called(register: RootRegister, name: &str) -> bool {
    let is_stage_2 = register == RootRegister::VttbrEl2 && matches!(name, "stage2" | "stage-2" | "vttbr");
    is_stage_2 || register.to_string().eq_ignore_ascii_case(name)
}

fn selected<'r>(roots: &'r [Root], names: &[String]) -> Result<Vec<&'r Root>, Failure> {
    let known: Vec<_> = roots.iter().map(|root| root.register.to_string().to_lowercase()).collect();
    for name in names {
        if !roots.iter().any(|root| is_called(root.register, name)) {
            return Err(Failure::new(format_args!("there is no root {name}"))
                .hint(format_args!("the guest has {}", known.join(", "))));
        }
    }
    if roots.is_empty() {
        return Err(Failure::new("the guest has no translation tables").hint("is its MMU on?"));
    }
    let is_asked = |root: &&Root| names.is_empty() || names.iter().any(|name| is_called(root.register, name));
    Ok(roots.iter().filter(is_asked).collect())
}

/// The tree of stage 2, if what was selected needs it to find its tables.
fn stage_2_of(
    selected: &[&Root],
    roots: &[Root],
    frames: &mut Frames<'_>,
    rows: usize,
) -> Result<Option<Tree>, Failure> {
    if selected.iter().all(|root| root.addresses == AddressSpace::Physical) {
        return Ok(None);
    }
    let Some(root) = roots.iter().find(|root| root.register == RootRegister::VttbrEl2) else {
        return Ok(None);
    };
    let bounds = Bounds { range: (0, u64::MAX), rows };
    reading::read(root, frames, Through::Nothing, bounds, &indicatif::ProgressBar::hidden())
}

fn read(guest: &mut Guest, arguments: &ViewArgs, output: &Output) -> Result<ReadTrees, Failure> {
    let mut notes = guest.notes.clone();
    let mut roots = selected(&guest.roots, &arguments.root)?;
    let range = arguments.va.map_or((0, u64::MAX), |range| (range.first, range.last));
    roots.retain(|root| {
        let last = root.first.0.wrapping_add((1u64 << root.geometry.va_bits()).wrapping_sub(1));
        root.first.0 <= range.1 && range.0 <= last
    });
    if roots.is_empty() {
        return Err(untranslated(range.0, &guest.roots));
    }
    let mut frames = Frames::new(&mut *guest.memory);
    let rows = arguments.rows as usize;
    let stage_2 = stage_2_of(&roots, &guest.roots, &mut frames, rows)?;
    let bar = progress::of("reading tables", "tables", None, output.verbosity());
    let mut trees = Vec::new();
    let mut outside = None;
    for root in &roots {
        let through = Through::of(root.addresses, stage_2.as_ref());
        match reading::read(root, &mut frames, through, Bounds { range, rows }, &bar)? {
            Some(tree) => trees.push(ReadTree { root: (*root).clone(), tree }),
            None => {
                let what = format!("{} {}: the root table is no memory", root.register, root.table);
                outside = Some(what.clone());
                notes.push(what);
            }
        }
    }
    bar.finish_and_clear();
    if let (true, Some(outside)) = (trees.is_empty(), outside) {
        return Err(Failure::new(outside).hint("was the guest stopped before it set the register?"));
    }
    let ranges = frames.ranges().to_vec();
    Ok(ReadTrees { trees, ranges, notes })
}

fn untranslated(va: u64, roots: &[Root]) -> Failure {
    let ranges: Vec<_> = roots
        .iter()
        .map(|root| {
            let last = root.first.0.wrapping_add((1u64 << root.geometry.va_bits()).wrapping_sub(1));
            format!("{} {}-{:#x}", root.register, root.first, last)
        })
        .collect();
    Failure::new(format_args!("no root translates {}", Va(va)))
        .hint(format_args!("they translate {}", ranges.join(", ")))
}

fn show_walks(
    guest: &mut Guest,
    va: u64,
    arguments: &ViewArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let notes = guest.notes.clone();
    let roots = selected(&guest.roots, &arguments.root)?;
    let roots: Vec<_> = roots.into_iter().filter(|root| walk::translates(root, va)).collect();
    if roots.is_empty() {
        return Err(untranslated(va, &guest.roots));
    }
    say_notes(&notes, output);
    let mut frames = Frames::new(&mut *guest.memory);
    let stage_2 = stage_2_of(&roots, &guest.roots, &mut frames, arguments.rows as usize)?;
    if arguments.json {
        json::begin(&notes, output)?;
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
    output.line(format_args!("findings: {problems} problems, {notes} notes"))?;
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

/// Trees by register, in the form in which they are compared.
fn compared(other: Other, arguments: &ViewArgs, output: &Output) -> Result<Vec<(String, Segments)>, Failure> {
    let named = |read: &ReadTree| (read.root.register.to_string(), Segments::of(&read.root, &read.tree));
    Ok(match other {
        Other::Saved(roots) => roots.into_iter().map(|root| (root.register, root.runs)).collect(),
        Other::Guest(mut guest) => read(&mut guest, arguments, output)?.trees.iter().map(named).collect(),
    })
}

fn show_differences(
    read: &ReadTrees,
    other: Other,
    arguments: &ViewArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let range = arguments.va.map_or((0, u64::MAX), |range| (range.first, range.last));
    let before = compared(other, arguments, output)?.into_iter();
    // A saved dump may have more than was read now.
    let before: Vec<_> = before.map(|(register, segments)| (register, segments.within(range))).collect();
    let none = Segments::default();
    let (mut total, mut comma) = (0u64, "");
    if arguments.json {
        output.line("{\"format\":\"linmap-dump-diff\",\"version\":1,\"differences\":[")?;
    }
    for ReadTree { root, tree } in &read.trees {
        let name = root.register.to_string();
        let before =
            before.iter().find(|(register, _)| *register == name).map_or(&none, |(_, before)| before);
        let after = Segments::of(root, tree).within(range);
        let mut has_heading = false;
        diff::diff(before, &after, |change| {
            total += 1;
            if arguments.json {
                output.line(format_args!("{comma}{}", change_value(&name, change, before, &after)))?;
                comma = ",";
                return Ok(());
            }
            if !has_heading {
                has_heading = true;
                output.line(listing::heading(root))?;
            }
            output.line(change_line(change, before, &after))
        })?;
    }
    for (name, segments) in &before {
        let is_there = read.trees.iter().any(|read| read.root.register.to_string() == *name);
        let is_asked = arguments.root.is_empty() && arguments.va.is_none();
        if !is_there && is_asked && !segments.list.is_empty() {
            total += 1;
            let text = match arguments.json {
                true => format!("{comma}{}", json!({"root": name, "change": "root removed"})),
                false => format!("- {name} is no longer there"),
            };
            output.line(text)?;
            comma = ",";
        }
    }
    match arguments.json {
        true => output.line(format_args!("],\"count\":{total}}}"))?,
        false => output.line(format_args!("{total} differences"))?,
    }
    Ok(if total == 0 { Outcome::Good } else { Outcome::Bad })
}

fn what_text(at: Option<(u64, u32)>, segments: &Segments) -> String {
    let Some((pa, what)) = at else { return String::new() };
    match segments.what.get(what as usize) {
        Some(What::Leaf(leaf)) => format!("{pa:#014x} {leaf}"),
        Some(What::Other(text)) => text.clone(),
        None => String::new(),
    }
}

fn change_line(change: &Change, before: &Segments, after: &Segments) -> String {
    let (first, end) = (change.first, change.last.wrapping_add(1));
    let size = Size(change.last.wrapping_sub(change.first).wrapping_add(1));
    let range = format!("{first:#018x}-{end:#018x} {size:>6}");
    let style = |color: anstyle::AnsiColor| color.on_default();
    match (change.before, change.after) {
        (None, is) => {
            let style = style(anstyle::AnsiColor::Green);
            format!("{style}+{style:#} {range} {}", what_text(is, after))
        }
        (was, None) => {
            let style = style(anstyle::AnsiColor::Red);
            format!("{style}-{style:#} {range} {}", what_text(was, before))
        }
        _ => {
            let style = style(anstyle::AnsiColor::Yellow);
            let fields: Vec<_> = change
                .fields(before, after)
                .into_iter()
                .map(|field| format!("{} {} -> {}", field.field, field.before, field.after))
                .collect();
            format!("{style}~{style:#} {range} {}", fields.join(", "))
        }
    }
}

fn change_value(root: &str, change: &Change, before: &Segments, after: &Segments) -> Value {
    let kind = match (change.before, change.after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    json!({
        "root": root,
        "va": format!("{:#x}", change.first),
        "bytes": change.last.wrapping_sub(change.first).wrapping_add(1),
        "change": kind,
        "before": change.before.map(|was| what_text(Some(was), before)),
        "after": change.after.map(|is| what_text(Some(is), after)),
        "fields": change.fields(before, after),
    })
}

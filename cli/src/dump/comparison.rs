//! What differs between a guest and another dump, as the user sees it.
//!
//! A dump that was saved in part tells nothing about the rest. What both have is compared: the same
//! trees, the same addresses, and no address behind the one where `--rows` ended the reading.

use std::path::Path;

use linmap::listing::Size;
use serde_json::{Value, json};

use crate::dump::arguments::ViewArgs;
use crate::dump::asked::{Asked, Part, common};
use crate::dump::counted::Counted;
use crate::dump::diff::{self, Change};
use crate::dump::guest::{Guest, Root};
use crate::dump::listing;
use crate::dump::read_trees::{ReadTrees, say_notes};
use crate::dump::saved::{self, SavedDump};
use crate::dump::segments::{Segments, What};
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

/// A dump to compare with.
pub enum Other {
    /// JSON.
    Saved(SavedDump),
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

/// A tree in the form in which it is compared.
struct Compared {
    register: String,
    segments: Segments,
    /// The last address that was read; `None` if none was.
    reach: Option<u64>,
}

impl Compared {
    fn new(register: String, segments: Segments, is_complete: bool) -> Self {
        let reach = match is_complete {
            true => Some(u64::MAX),
            false => segments.list.last().map(|segment| segment.last),
        };
        Self { register, segments, reach }
    }

    fn all_of(read: &ReadTrees) -> Vec<Self> {
        let trees = read.trees.iter();
        trees
            .map(|read| {
                let register = read.root.register.to_string();
                Self::new(register, Segments::of(&read.root, &read.tree), !read.tree.is_cut)
            })
            .collect()
    }
}

/// The two sides of a tree, both in the range that is compared.
struct Sides {
    root: Root,
    before: Segments,
    after: Segments,
}

/// What is compared, and what has to be said of it.
struct Comparison {
    sides: Vec<Sides>,
    /// The roots that only the other dump has.
    gone: Vec<String>,
    notes: Vec<String>,
}

/// Shows what differs in `guest` from `other`, as far as `arguments` ask for it.
///
/// # Errors
/// No such root or address, or those of the guest's memory and of standard output.
pub fn show(
    guest: Guest,
    other: Other,
    arguments: &ViewArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let Comparison { sides, gone, notes } = compare(guest, other, arguments, output)?;
    say_notes(&notes, output);
    let (mut total, mut comma) = (0u64, "");
    if arguments.json {
        output.line(format_args!(
            "{{\"format\":\"linmap-dump-diff\",\"version\":1,\"notes\":{},\"differences\":[",
            Value::from(notes)
        ))?;
    }
    for Sides { root, before, after } in &sides {
        let name = root.register.to_string();
        let mut has_heading = false;
        diff::diff(before, after, |change| {
            total += 1;
            if arguments.json {
                output.line(format_args!("{comma}{}", change_value(&name, change, before, after)))?;
                comma = ",";
                return Ok(());
            }
            if !has_heading {
                has_heading = true;
                output.line(listing::heading(root))?;
            }
            output.line(change_line(change, before, after))
        })?;
    }
    for name in gone {
        total += 1;
        let text = match arguments.json {
            true => format!("{comma}{}", json!({"root": name, "change": "root removed"})),
            false => format!("- {name} is no longer there"),
        };
        output.line(text)?;
        comma = ",";
    }
    match arguments.json {
        true => output.line(format_args!("],\"count\":{total}}}"))?,
        false => output.line(Counted(total, "difference"))?,
    }
    Ok(if total == 0 { Outcome::Good } else { Outcome::Bad })
}

fn compare(
    mut guest: Guest,
    other: Other,
    arguments: &ViewArgs,
    output: &Output,
) -> Result<Comparison, Failure> {
    let asked = arguments.asked();
    let all: Vec<_> = guest.roots.iter().map(|root| root.register.to_string()).collect();
    let parts = asked.parts_of(&guest.roots)?;
    let mut notes = Vec::new();
    let (read, ranges, before) = match other {
        Other::Saved(SavedDump { asked: saved, roots }) => {
            let parts = parts_in_both(parts, &saved, &mut notes)?;
            // A table that several entries lead to is listed where it is met first: to meet it in
            // the same place, what is read is what was read for the saved dump.
            let of_saved = |part: &Part| Part { root: part.root.clone(), range: saved.range_of(&part.root) };
            let to_read: Vec<_> = parts.iter().map(of_saved).collect();
            let read = ReadTrees::read(&mut guest, &to_read, arguments.rows(), output.verbosity())?;
            let before = roots.into_iter();
            let before = before.map(|root| Compared::new(root.register, root.runs, root.complete));
            (read, parts, before.collect())
        }
        Other::Guest(mut other) => {
            let read = ReadTrees::read(&mut guest, &parts, arguments.rows(), output.verbosity())?;
            let of_other = asked.parts_of(&other.roots)?;
            let of_other = ReadTrees::read(&mut other, &of_other, arguments.rows(), output.verbosity())?;
            (read, parts, Compared::all_of(&of_other))
        }
    };
    // The guest goes on before its trees are compared.
    drop(guest);
    let mut before: Vec<Compared> = before;
    let has_all = asked.roots.is_empty() && asked.range == Asked::ALL;
    let is_gone = |other: &&Compared| has_all && !all.contains(&other.register);
    let gone = before.iter().filter(is_gone).filter(|other| !other.segments.list.is_empty());
    let gone = gone.map(|other| other.register.clone()).collect();
    notes.splice(0..0, read.notes.iter().cloned());
    let mut sides = Vec::new();
    for (read, after) in read.trees.iter().zip(Compared::all_of(&read)) {
        let register = read.root.register;
        let Some(part) = ranges.iter().find(|part| part.root.register == register) else { continue };
        let before = before.iter_mut().find(|other| other.register == after.register);
        let (before, reach) = before.map_or((Segments::default(), Some(u64::MAX)), |before| {
            (std::mem::take(&mut before.segments), before.reach)
        });
        let reach = reach.zip(after.reach).map(|(one, other)| one.min(other));
        let range = reach.and_then(|reach| common(part.range, (0, reach)));
        let Some(range) = range else {
            notes.push(format!("{register} is not compared: --rows ended the reading of one side before it"));
            continue;
        };
        if range != part.range {
            let last = range.1;
            notes.push(format!(
                "{register} is compared up to {last:#018x}, where --rows ended the reading of one side"
            ));
        }
        let (before, after) = (before.within(range), after.segments.within(range));
        sides.push(Sides { root: read.root.clone(), before, after });
    }
    Ok(Comparison { sides, gone, notes })
}

/// What of `parts` a dump has that was saved when `saved` was asked for.
fn parts_in_both(parts: Vec<Part>, saved: &Asked, notes: &mut Vec<String>) -> Result<Vec<Part>, Failure> {
    let (first, last) = saved.range;
    let (mut both, mut is_narrowed) = (Vec::new(), false);
    for Part { root, range } in parts {
        let register = root.register;
        if !saved.names(register) {
            let names = saved.roots.join(" --root ");
            notes.push(format!("{register} is not compared: the dump was saved with --root {names}"));
            continue;
        }
        let of_both = common(range, saved.range_of(&root));
        is_narrowed |= of_both != Some(range);
        both.extend(of_both.map(|range| Part { root, range }));
    }
    if is_narrowed {
        notes.push(format!(
            "only {first:#018x}-{last:#018x} is compared, with which the dump was saved by --va"
        ));
    }
    if both.is_empty() {
        return Err(Failure::new("the saved dump has nothing of what is compared")
            .hint("it was saved with --root or --va: save all of it, or compare what it has"));
    }
    Ok(both)
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

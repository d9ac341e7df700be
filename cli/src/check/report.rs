//! The verdict as text.

use anstyle::{AnsiColor, Style};
use linmap_model::{Legal, Missed};

use super::explain::{arm, rule_name, sentence};
use super::form;
use super::found::{Found, Group, groups};
use super::judge::Judged;
use super::names::Names;
use super::overdue::{self, Overdue, Row};
use super::shown::Shown;
use super::summary::{Summary, Unneeded};
use super::trail::runs;
use crate::failure::Failure;
use crate::output::{Output, Verbosity};

const LEGAL: Style = AnsiColor::Green.on_default().bold();
const ILLEGAL: Style = AnsiColor::Red.on_default().bold();
const MARK: Style = Style::new().bold();
const WHY: Style = AnsiColor::Yellow.on_default();

/// The most notes, runs before a violation, functions of a kind, groups of violations and places
/// that are printed; all with -v.
const MOST_NOTES: usize = 8;
const MOST_RUNS: usize = 8;
const MOST_ROWS: usize = 8;
const MOST_GROUPS: usize = 16;
const MOST_PLACES: usize = 16;
/// The most events that are named of a group.
const MOST_NEXT: usize = 6;

/// `most`, or all if the user wants to know everything.
fn at_most(most: usize, output: &Output) -> usize {
    if output.verbosity() == Verbosity::Verbose { usize::MAX } else { most }
}

const UNSETTLED: &str = "a guest does not say by when old translations have to be gone: a missing \
     invalidation is found only where a later event depends on it";

/// Prints `judged`.
pub fn print(judged: &Judged, all: bool, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let Judged { name, events, legal, found, .. } = judged;
    match legal {
        Some(_) if judged.is_guest() => {
            output.line(format_args!("{name}: {LEGAL}legal{LEGAL:#} ({events} events)"))?;
        }
        Some(legal) => {
            let said = legal.to_string();
            let (word, rest) = said.split_at("legal".len().min(said.len()));
            output.line(format_args!("{name}: {LEGAL}{word}{LEGAL:#}{rest} ({events} events)"))?;
        }
        None if all => {
            let count = judged.count;
            let mistakes = if count == 1 { "mistake" } else { "mistakes" };
            output.line(format_args!(
                "{name}: {ILLEGAL}illegal{ILLEGAL:#}: {count} {mistakes} ({events} events)"
            ))?;
        }
        None => output.line(format_args!("{name}: {ILLEGAL}illegal{ILLEGAL:#}"))?,
    }
    violations(judged, names, output)?;
    // A recorded trace is of a whole guest, whose user wants to know what it did.
    let is_whole = judged.is_guest() && (all || legal.is_some());
    if output.verbosity() == Verbosity::Verbose || output.verbosity() == Verbosity::Normal && is_whole {
        summary(judged, names, output)?;
    }
    if all && !found.is_empty() {
        counts(judged, names, output)?;
    }
    if output.verbosity() >= Verbosity::Normal {
        notes(judged, names, output)?;
    }
    Ok(())
}

/// The violations, by rule and function.
fn violations(judged: &Judged, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let groups = groups(&judged.found, &judged.counts, names);
    let most = at_most(MOST_GROUPS, output);
    for group in groups.iter().take(most) {
        one(group.first, names, output)?;
        for found in &group.few {
            one(found, names, output)?;
        }
        next(group, output)?;
    }
    if groups.len() > most {
        let mistakes: u64 = groups.iter().skip(most).map(|group| group.count).sum();
        let functions = groups.len() - most;
        output.line(format_args!(
            "and {mistakes} more mistakes in {functions} more functions, shown with -v"
        ))?;
    }
    Ok(())
}

fn notes(judged: &Judged, names: &Names, output: &mut Output) -> Result<(), Failure> {
    if judged.is_guest() && judged.legal == Some(Legal::NeverSettled) {
        output.line(format_args!("note: {UNSETTLED}"))?;
    }
    if judged.is_cut && judged.legal.is_none() {
        output.line("note: the trace has been cut off: what followed is not judged")?;
    }
    let most = at_most(MOST_NOTES, output);
    for note in judged.notes.iter().take(most) {
        output.line(format_args!("note: {note}"))?;
    }
    if judged.notes.len() > most {
        output.line(format_args!("note: {} more notes, shown with -v", judged.notes.len() - most))?;
    }
    if output.verbosity() == Verbosity::Verbose && !names.places().is_empty() {
        let places: Vec<String> = names.places().iter().map(|place| format!("{place:#x}")).collect();
        output.line(format_args!("note: the kernel's first byte is at {}", places.join(" and ")))?;
    }
    Ok(())
}

fn one(found: &Found, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let Found { violation, at, shown, .. } = found;
    let line = if at.line > 0 { format!(", line {}", at.line) } else { String::new() };
    let pc = at.recorded.pc.map_or(String::new(), |pc| format!(", at {}", names.place(pc)));
    let arm = arm(violation.rule).map_or(String::new(), |arm| format!(" ({arm})"));
    output.line(format_args!("event {}{line}{pc}: {}{arm}", violation.event, rule_name(violation.rule)))?;
    output.line(format_args!("  {}", sentence(violation, &at.recorded.event)))?;
    if output.verbosity() == Verbosity::Quiet {
        return Ok(());
    }
    match shown {
        Ok(shown) => witness(shown, names, output)?,
        Err(why) => output.line(format_args!("  not shown by events: {why}"))?,
    }
    trail(found, names, output)
}

/// What the CPU did last, by function. Where no instruction is known the events above say as much.
fn trail(found: &Found, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let Some(pc) = found.at.recorded.pc else { return Ok(()) };
    let function = |pc| names.function(pc);
    let before = runs(&found.trail, &function, at_most(MOST_RUNS, output));
    if before.is_empty() {
        return Ok(());
    }
    let cpu = found.at.recorded.event.cpu().unwrap_or(0);
    output.line(format_args!("  what CPU {cpu} did before, by function:"))?;
    let own = names.function(pc);
    let width = before.iter().map(|run| run.function.len()).max().unwrap_or(0).max(own.len()).min(48);
    let digits = 2 * found.violation.event.to_string().len() + 1;
    for run in &before {
        let (first, last) = run.events;
        let events = if first == last { format!("{last}") } else { format!("{first}-{last}") };
        output.line(format_args!("    {events:>digits$}  {:width$}  {}", run.function, run.did))?;
    }
    let (event, did) = (found.violation.event, form::Form::of(&found.at.recorded.event));
    output.line(format_args!("  {MARK}> {event:>digits$}  {own:width$}  {did}{MARK:#}"))
}

/// The other violations of a group.
fn next(group: &Group<'_>, output: &mut Output) -> Result<(), Failure> {
    let more = group.count.saturating_sub(1 + group.few.len() as u64);
    if more == 0 {
        return Ok(());
    }
    let most = at_most(MOST_NEXT, output);
    let mut events: Vec<String> = group.next.iter().take(most).map(ToString::to_string).collect();
    if (events.len() as u64) < more {
        events.push("…".to_owned());
    }
    let plural = if events.len() == 1 { "event" } else { "events" };
    let place = group.function.as_ref().map_or(String::new(), |function| format!(" in {function}"));
    output.line(format_args!("  and {more} more of {}{place}: {plural} {}", group.rule, events.join(", ")))
}

fn witness(shown: &Shown, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let Shown { witness, numbers, located, cut, .. } = shown;
    if let Some(first) = cut {
        output.line(format_args!(
            "  the history begins at event {first}; events without a number sum up those before"
        ))?;
    }
    output.line("  the fewest events that show it:")?;
    let lines: Vec<String> = witness.trace.events.iter().map(ToString::to_string).collect();
    let width = lines.iter().map(String::len).max().unwrap_or(0).min(64);
    let digits = numbers.iter().flatten().map(|number| number.to_string().len()).max().unwrap_or(1);
    for (nth, line) in lines.iter().enumerate() {
        let number = numbers.get(nth).copied().flatten();
        let pc = number.and_then(|number| located.get(&number)?.recorded.pc);
        let pc = pc.map_or(String::new(), |pc| format!(" {}", names.place(pc)));
        let note = witness.notes.get(nth).cloned().flatten();
        let missed = witness.missed.iter().find(|Missed { event, .. }| *event == nth);
        let missed = missed.map(|missed| format!("{WHY}misses: {}{WHY:#}", missed.why));
        let note: Vec<String> = note.into_iter().chain(missed).collect();
        let note = if note.is_empty() { String::new() } else { format!("  # {}", note.join("; ")) };
        let number = number.map_or(String::new(), |number| number.to_string());
        let text = format!("{number:>digits$}  {line:width$}{pc}{note}");
        let text = text.trim_end();
        if nth == witness.violation.event {
            output.line(format_args!("  {MARK}> {text}{MARK:#}"))?;
        } else {
            output.line(format_args!("    {text}"))?;
        }
    }
    let more = shown.left_out + witness.left_out;
    if more > 0 {
        output.line(format_args!("    and {more} more TLBIs of other addresses"))?;
    }
    Ok(())
}

/// The number of violations of each rule at each place.
fn counts(judged: &Judged, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let counts = judged.counts.by_place(names);
    let most = at_most(MOST_PLACES, output);
    let shown = || counts.iter().take(most);
    let width = shown().map(|(rule, ..)| rule.len()).max().unwrap_or(0);
    if output.verbosity() >= Verbosity::Normal {
        output.line("mistakes by rule and place:")?;
    }
    for (rule, place, count) in shown() {
        output.line(format_args!("  {count:>9}  {rule:width$}  {place}"))?;
    }
    if counts.len() > most {
        let (places, count) =
            (counts.len() - most, counts.iter().skip(most).map(|(.., count)| count).sum::<u64>());
        output.line(format_args!("  {count:>9}  at {places} more places, shown with -v"))?;
    }
    Ok(())
}

fn summary(judged: &Judged, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let Summary { tables, stores, found, tlbis, dsbs, isbs, writes, unneeded } =
        Summary::of(&judged.tally, names);
    output.line("summary:")?;
    let mut line = |what: &str, count: u64, forms: &[(String, u64)]| {
        let forms: Vec<String> = forms.iter().map(|(form, count)| format!("{form} {count}")).collect();
        let text = format!("  {what:<15} {count:>9}  {}", forms.join(", "));
        output.line(text.trim_end())
    };
    let sum = |forms: &[(String, u64)]| forms.iter().map(|(_, count)| count).sum();
    line("events", judged.events as u64, &[])?;
    line("tables", tables as u64, &[])?;
    line("stores", stores, &[])?;
    if found > 0 {
        line("found in tables", found, &[])?;
    }
    line("TLBIs", sum(&tlbis), &tlbis)?;
    line("DSBs", sum(&dsbs), &dsbs)?;
    line("ISBs", isbs, &[])?;
    line("register writes", sum(&writes), &writes)?;
    for Unneeded { kind, count, of, rows, elsewhere } in &unneeded {
        output.line(format_args!("{}: {count} of {of}", kind.text()))?;
        let most = at_most(MOST_ROWS, output);
        let width = rows.iter().take(most).map(|row| row.form.len()).max().unwrap_or(0);
        for row in rows.iter().take(most) {
            output.line(format_args!(
                "  {:>9} of {:<9}  {:width$}  {}",
                row.count, row.of, row.form, row.function
            ))?;
        }
        if rows.len() > most {
            let (functions, count) =
                (rows.len() - most, rows.iter().skip(most).map(|row| row.count).sum::<u64>());
            output.line(format_args!("  {count:>9}  in {functions} more functions, shown with -v"))?;
        }
        if *elsewhere > 0 {
            output.line(format_args!("  {elsewhere:>9}  in functions that edit no table"))?;
        }
    }
    still_cached(judged, names, output)
}

fn still_cached(judged: &Judged, names: &Names, output: &mut Output) -> Result<(), Failure> {
    let Overdue { count, of, rows } = Overdue::of(&judged.taken_back, names);
    if judged.returns == 0 {
        return Ok(());
    }
    output.line(format_args!("{}: {count} of {of}", overdue::TEXT))?;
    let most = at_most(MOST_ROWS, output);
    let width = rows.iter().take(most).map(|row| row.function.len()).max().unwrap_or(0);
    for Row { function, count, of, first: (event, va) } in rows.iter().take(most) {
        output.line(format_args!(
            "  {count:>9} of {of:<9}  {function:width$}  first event {event}, of {va:#x}"
        ))?;
    }
    if rows.len() > most {
        output.line(format_args!("  in {} more functions, shown with -v", rows.len() - most))?;
    }
    Ok(())
}

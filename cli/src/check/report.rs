//! The verdict as text.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use linmap_model::Missed;

use super::explain::{arm, rule_name, sentence};
use super::judge::{Found, Judged, Shown};
use crate::failure::Failure;
use crate::output::{Output, Verbosity};

const LEGAL: Style = AnsiColor::Green.on_default().bold();
const ILLEGAL: Style = AnsiColor::Red.on_default().bold();
const MARK: Style = Style::new().bold();
const WHY: Style = AnsiColor::Yellow.on_default();

/// Prints `judged`. `place` says where the instruction at an address is.
pub fn print(
    judged: &Judged,
    all: bool,
    place: &dyn Fn(u64) -> String,
    output: &mut Output,
) -> Result<(), Failure> {
    let Judged { name, events, legal, found, .. } = judged;
    match legal {
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
    for found in found {
        one(found, place, output)?;
    }
    if all && !found.is_empty() {
        counts(found, place, output)?;
    }
    if output.verbosity() >= Verbosity::Normal {
        let most = if output.verbosity() == Verbosity::Verbose { usize::MAX } else { 8 };
        for note in judged.notes.iter().take(most) {
            output.line(format_args!("note: {note}"))?;
        }
        if judged.notes.len() > most {
            output.line(format_args!("note: {} more notes, shown with -v", judged.notes.len() - most))?;
        }
    }
    Ok(())
}

fn one(found: &Found, place: &dyn Fn(u64) -> String, output: &mut Output) -> Result<(), Failure> {
    let Found { violation, at, shown } = found;
    let line = if at.line > 0 { format!(", line {}", at.line) } else { String::new() };
    let pc = at.recorded.pc.map_or(String::new(), |pc| format!(", at {}", place(pc)));
    let arm = arm(violation.rule).map_or(String::new(), |arm| format!(" ({arm})"));
    output.line(format_args!("event {}{line}{pc}: {}{arm}", violation.event, rule_name(violation.rule)))?;
    output.line(format_args!("  {}", sentence(violation, &at.recorded.event)))?;
    if output.verbosity() == Verbosity::Quiet {
        return Ok(());
    }
    match shown {
        Ok(shown) => witness(shown, place, output),
        Err(why) => output.line(format_args!("  not shown by events: {why}")),
    }
}

fn witness(shown: &Shown, place: &dyn Fn(u64) -> String, output: &mut Output) -> Result<(), Failure> {
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
        let pc = pc.map_or(String::new(), |pc| format!(" {}", place(pc)));
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
pub fn by_place(found: &[Found], place: &dyn Fn(u64) -> String) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for Found { violation, at, .. } in found {
        let place = match (at.recorded.pc, violation.va, violation.pa) {
            (Some(pc), ..) => place(pc),
            (None, Some(va), _) => format!("{va:#x}"),
            (None, None, Some(pa)) => format!("physical {pa:#x}"),
            (None, None, None) => "no address".to_owned(),
        };
        *counts.entry((rule_name(violation.rule), place)).or_insert(0) += 1;
    }
    counts
}

fn counts(found: &[Found], place: &dyn Fn(u64) -> String, output: &mut Output) -> Result<(), Failure> {
    let counts = by_place(found, place);
    let width = counts.keys().map(|(rule, _)| rule.len()).max().unwrap_or(0);
    for ((rule, place), count) in counts {
        output.line(format_args!("{count:>6}  {rule:width$}  {place}"))?;
    }
    Ok(())
}

//! The results for people.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::case::Work;
use crate::contestant::Role;
use crate::machine::Machine;
use crate::measure::{Results, Row};
use crate::model::Outcome;
use crate::wanted::{MODEL_WANTED, Verdict, WANTED, Wanted};

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;
const HEADING: Style = Style::new().bold();
const MET: Style = AnsiColor::Green.on_default();
const MISSED: Style = AnsiColor::Yellow.on_default();

/// Writes everything to standard output, with colours if it is a terminal and `NO_COLOR` is not
/// set.
///
/// # Errors
/// Those of standard output.
pub fn print(machine: &Machine, all: &[Results], model: &[Outcome]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let Machine { cpu, cpus, rustc, arena_bytes, huge_bytes } = machine;
    let gib = *arena_bytes as f64 / GIB;
    let huge = 100.0 * *huge_bytes as f64 / *arena_bytes as f64;
    writeln!(out, "{HEADING}The linear map built and changed in host memory{HEADING:#}")?;
    writeln!(out, "{cpu}, {cpus} CPUs, {rustc}; {gib:.2} GiB for tables, {huge:.0} % of it in huge pages")?;
    for results in all {
        print_case(&mut out, results)?;
    }
    writeln!(out)?;
    writeln!(out, "GiB/s     bytes of tables")?;
    writeln!(out, "× raw     times the median of the raw stores: the same tables in straight loops")?;
    writeln!(
        out,
        "× linmap  times linmap's median: how many times faster linmap is. It builds with frames from"
    )?;
    writeln!(out, "          memblock, as in the kernel, and changes what stands by plan, check and apply")?;
    writeln!(
        out,
        "TLBIs     that a live tree would cost; here they are counted and do nothing. aarch64-paging changes"
    )?;
    writeln!(out, "          a map that is not active")?;
    print_model(&mut out, model)?;
    print_wanted(&mut out, all)?;
    print_model_wanted(&mut out, model)
}

fn print_case(out: &mut impl Write, results: &Results) -> io::Result<()> {
    let case = results.case;
    let title = case.title();
    let (entries, tables) = (grouped(case.entries()), grouped(case.tables()));
    writeln!(out)?;
    writeln!(out, "{HEADING}{title}{HEADING:#}: {entries} entries in {tables} tables")?;
    writeln!(
        out,
        "{:30} {:>9} {:>9} {:>9} {:>7} {:>8} {:>6} {:>7} {:>8}{}",
        "",
        "median",
        "min",
        "max",
        "samples",
        "ns/entry",
        "GiB/s",
        "× raw",
        "× linmap",
        if case.work == Work::Protect { "     TLBIs" } else { "" }
    )?;
    for row in &results.rows {
        let times = row.times;
        let compared =
            |role| results.of(role).map_or(String::new(), |other| format!("{:.2}", row.ratio(other)));
        writeln!(
            out,
            "{:30} {:>9} {:>9} {:>9} {:>7} {:>8.2} {:>6.1} {:>7} {:>8}{}",
            row.contestant.name,
            human(times.median),
            human(times.min),
            human(times.max),
            times.samples,
            row.ns_per_entry(results.case),
            gib_per_second(results, row),
            compared(Role::Floor),
            compared(Role::Subject),
            if case.work == Work::Protect { format!(" {:>9}", grouped(row.tlbis)) } else { String::new() }
        )?;
    }
    Ok(())
}

fn print_wanted(out: &mut impl Write, all: &[Results]) -> io::Result<()> {
    writeln!(out)?;
    for Wanted { case, bound } in WANTED {
        let Some(results) = all.iter().find(|results| results.case == case) else { continue };
        writeln!(out, "{HEADING}want{HEADING:#}  {} {}", case.title(), bound.describe(results))?;
        for row in results.ours() {
            let Some(verdict) = bound.judge(results, row) else { continue };
            print_verdict(out, row.contestant.name, verdict)?;
        }
    }
    Ok(())
}

fn print_model(out: &mut impl Write, model: &[Outcome]) -> io::Result<()> {
    writeln!(out)?;
    writeln!(
        out,
        "{HEADING}The model's checker{HEADING:#}: builds and edits, each in a process of its own, \
         one run on one CPU"
    )?;
    writeln!(
        out,
        "{:42} {:>11} {:>9} {:>9} {:>10} {:>10} {:>8}",
        "", "events", "time", "M/s", "tables", "memory", "× tables"
    )?;
    for outcome in model {
        writeln!(
            out,
            "{:42} {:>11} {:>9} {:>9.2} {:>6.1} MiB {:>6.1} MiB {:>8.2}",
            name(outcome),
            grouped(outcome.events),
            human(outcome.time),
            outcome.events_per_second() / 1e6,
            outcome.table_bytes as f64 / MIB,
            outcome.peak_bytes as f64 / MIB,
            outcome.times_tables()
        )?;
    }
    writeln!(out)?;
    writeln!(out, "M/s       million events a second, their making included")?;
    writeln!(
        out,
        "memory    the most that the process had; on the board the tables themselves are a part of it"
    )
}

fn print_model_wanted(out: &mut impl Write, model: &[Outcome]) -> io::Result<()> {
    for bound in MODEL_WANTED {
        writeln!(out, "{HEADING}want{HEADING:#}  the model's checker: {}", bound.describe())?;
        for outcome in model {
            let Some(verdict) = bound.judge(outcome) else { continue };
            print_verdict(out, &name(outcome), verdict)?;
        }
    }
    Ok(())
}

fn print_verdict(out: &mut impl Write, name: &str, verdict: Verdict) -> io::Result<()> {
    let Verdict { measured, met } = verdict;
    let (style, word) = if met { (MET, "met") } else { (MISSED, "not met") };
    let measured = if measured < 1e6 { format!("{measured:.2}") } else { grouped(measured as u64) };
    writeln!(out, "      {name:42} {measured:>10}  {style}{word}{style:#}")
}

fn name(outcome: &Outcome) -> String {
    format!("{} GiB, {}", outcome.job.gib, outcome.job.source.name())
}

/// GiB of tables written in a second.
pub fn gib_per_second(results: &Results, row: &Row) -> f64 {
    results.case.table_bytes() as f64 / GIB / row.times.median.as_secs_f64()
}

/// A time with three digits or four, in the unit that suits it.
fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    if value < 100.0 { format!("{value:.2} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_the_right() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(8192), "8 192");
        assert_eq!(grouped(134_217_728), "134 217 728");
    }

    #[test]
    fn times_get_the_unit_that_suits_them() {
        assert_eq!(human(Duration::from_nanos(2210)), "2.21 µs");
        assert_eq!(human(Duration::from_micros(115_340)), "115.3 ms");
        assert_eq!(human(Duration::from_millis(1500)), "1.50 s");
    }
}

//! The results for people.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::contestant::Role;
use crate::machine::Machine;
use crate::measure::{Results, Row};
use crate::wanted::{WANTED, Wanted};

const GIB: f64 = (1u64 << 30) as f64;
const HEADING: Style = Style::new().bold();
const MET: Style = AnsiColor::Green.on_default();
const MISSED: Style = AnsiColor::Yellow.on_default();

/// Writes everything to standard output, with colours if it is a terminal and `NO_COLOR` is not set.
///
/// # Errors
/// Those of standard output.
pub fn print(machine: &Machine, all: &[Results]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let Machine { cpu, cpus, rustc, arena_bytes, huge_bytes } = machine;
    let gib = *arena_bytes as f64 / GIB;
    let huge = 100.0 * *huge_bytes as f64 / *arena_bytes as f64;
    writeln!(out, "{HEADING}The linear map built in host memory{HEADING:#}")?;
    writeln!(out, "{cpu}, {cpus} CPUs, {rustc}; {gib:.2} GiB for tables, {huge:.0} % of it in huge pages")?;
    for results in all {
        print_case(&mut out, results)?;
    }
    writeln!(out)?;
    writeln!(out, "GiB/s     bytes of tables")?;
    writeln!(out, "× raw     times the median of the raw stores: the same tables in straight loops")?;
    writeln!(
        out,
        "× linmap  times linmap's median, with frames from memblock as in the kernel: how many times faster"
    )?;
    writeln!(out, "          linmap is")?;
    print_wanted(&mut out, all)
}

fn print_case(out: &mut impl Write, results: &Results) -> io::Result<()> {
    let case = results.case;
    let (gib, leaves) = (case.gib, case.leaf.name());
    let (entries, tables) = (grouped(case.entries()), grouped(case.tables()));
    writeln!(out)?;
    writeln!(out, "{HEADING}{gib} GiB in {leaves}{HEADING:#}: {entries} entries in {tables} tables")?;
    writeln!(
        out,
        "{:30} {:>9} {:>9} {:>9} {:>7} {:>8} {:>6} {:>7} {:>8}",
        "", "median", "min", "max", "samples", "ns/entry", "GiB/s", "× raw", "× linmap"
    )?;
    for row in &results.rows {
        let times = row.times;
        let compared =
            |role| results.of(role).map_or(String::new(), |other| format!("{:.2}", row.ratio(other)));
        writeln!(
            out,
            "{:30} {:>9} {:>9} {:>9} {:>7} {:>8.2} {:>6.1} {:>7} {:>8}",
            row.contestant.name,
            human(times.median),
            human(times.min),
            human(times.max),
            times.samples,
            ns_per_entry(results, row),
            gib_per_second(results, row),
            compared(Role::Floor),
            compared(Role::Subject)
        )?;
    }
    Ok(())
}

fn print_wanted(out: &mut impl Write, all: &[Results]) -> io::Result<()> {
    writeln!(out)?;
    for Wanted { case, bound } in WANTED {
        let Some(results) = all.iter().find(|results| results.case == case) else { continue };
        let (gib, leaves) = (case.gib, case.leaf.name());
        writeln!(out, "{HEADING}want{HEADING:#}  {gib} GiB in {leaves} {}", bound.describe(results))?;
        for row in results.ours() {
            let Some(verdict) = bound.judge(results, row) else { continue };
            let (style, word) = if verdict.met { (MET, "met") } else { (MISSED, "not met") };
            let (name, measured) = (row.contestant.name, verdict.measured);
            writeln!(out, "      {name:24} {measured:>6.2}  {style}{word}{style:#}")?;
        }
    }
    Ok(())
}

/// Nanoseconds for each leaf entry.
pub fn ns_per_entry(results: &Results, row: &Row) -> f64 {
    row.times.median.as_secs_f64() * 1e9 / results.case.entries() as f64
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

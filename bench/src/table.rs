//! The results for people.

use std::fmt::Write;
use std::time::Duration;

use anstream::println;
use anstyle::{AnsiColor, Style};

use crate::contestant::Role;
use crate::machine::Machine;
use crate::measure::{Results, Row};
use crate::wanted::WANTED;

const GIB: f64 = (1u64 << 30) as f64;
const HEADING: Style = Style::new().bold();
const MET: Style = AnsiColor::Green.on_default();
const MISSED: Style = AnsiColor::Yellow.on_default();

/// Prints everything.
pub fn print(machine: &Machine, all: &[Results]) {
    println!(
        "Building the linear map on host memory: {}, {} CPUs, {}",
        machine.cpu, machine.cpus, machine.rustc
    );
    for results in all {
        print_case(results);
    }
    println!();
    println!(
        "GiB/s: bytes of tables. × raw: times the raw stores' median. × linmap: times linmap's median, that is,"
    );
    println!("how many times faster linmap is.");
    print_wanted(all);
}

fn print_case(results: &Results) {
    let case = results.case;
    println!();
    println!(
        "{HEADING}{} GiB in {}{HEADING:#}: {} entries in {} tables",
        case.gib,
        case.leaf.name(),
        grouped(case.entries()),
        grouped(case.tables())
    );
    println!(
        "{:30} {:>9} {:>9} {:>9} {:>7} {:>8} {:>6} {:>7} {:>8}",
        "", "median", "min", "max", "samples", "ns/entry", "GiB/s", "× raw", "× linmap"
    );
    for row in &results.rows {
        let times = row.times;
        let compared =
            |role| results.of(role).map_or(String::new(), |other| format!("{:.2}", row.ratio(other)));
        println!(
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
        );
    }
}

fn print_wanted(all: &[Results]) {
    println!();
    println!("{HEADING}Wanted{HEADING:#}");
    for wanted in WANTED {
        let Some(results) = all.iter().find(|results| results.case == wanted.case) else { continue };
        let case = wanted.case;
        let mut line = format!("{} GiB in {}: ", case.gib, case.leaf.name());
        line.push_str(&wanted.bound.describe(results));
        let mut line = format!("{line:70}");
        for row in &results.rows {
            let ours = matches!(row.contestant.role, Role::Subject | Role::Variant);
            let Some(verdict) = ours.then(|| wanted.bound.judge(results, row)).flatten() else { continue };
            let (style, word) = if verdict.met { (MET, "met") } else { (MISSED, "not met") };
            // Writing to a string cannot fail.
            let _ = write!(line, "  {}: {style}{:.2} {word}{style:#}", row.contestant.name, verdict.measured);
        }
        println!("{line}");
    }
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

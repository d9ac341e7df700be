//! Progress of long work, on standard error when it is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::output::Verbosity;

/// The progress of work of `total` steps, if that is known. A step has a `unit`: "bytes" are shown
/// as sizes, others as counts.
///
/// It is hidden for the first half second of the work, and always when `verbosity` asks for quiet
/// or standard error is not a terminal.
pub fn of(what: &'static str, unit: &str, total: Option<u64>, verbosity: Verbosity) -> ProgressBar {
    if verbosity == Verbosity::Quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = match (unit, total) {
        ("bytes", Some(_)) => "{msg} {wide_bar} {bytes}/{total_bytes} {eta}".to_owned(),
        ("bytes", None) => "{spinner} {msg} {bytes} {elapsed}".to_owned(),
        (unit, Some(_)) => format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {unit} {{eta}}"),
        (unit, None) => format!("{{spinner}} {{msg}} {{pos}} {unit} {{elapsed}}"),
    };
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.with_elapsed(Duration::ZERO)
}

/// The progress of events that come from a running guest: how many, how many a second, and how many
/// violations. It is hidden as that of [`of`] is.
pub fn live(verbosity: Verbosity) -> ProgressBar {
    let bar = of("recorded", "events", None, verbosity);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} events {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Shows the numbers of events and of violations on a bar of [`live`].
pub fn show_events(bar: &ProgressBar, events: u64, violations: u64) {
    bar.set_position(events);
    let rate = HumanCount(bar.per_sec() as u64);
    let plural = if violations == 1 { "" } else { "s" };
    bar.set_message(format!("recorded, {rate} a second, {} violation{plural}", HumanCount(violations)));
}

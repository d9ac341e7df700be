//! What is being measured, on standard error: a line that keeps changing on a terminal, one for
//! each part elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The shortest time between two changes of the line, so that showing it costs nothing.
const PERIOD: Duration = Duration::from_millis(200);

/// Shows how far the benchmarks are. It changes only between two runs; nothing is drawn while one
/// is timed.
#[derive(Debug)]
pub struct Progress {
    /// On a terminal.
    bar: Option<ProgressBar>,
    part: String,
    changed: Instant,
}

impl Progress {
    /// Nothing to show yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, part: String::new(), changed: Instant::now() }
    }

    /// Another part begins.
    pub fn part(&mut self, part: String) {
        self.part = part;
        if self.bar.is_none() {
            eprintln!("{} …", self.part);
        }
    }

    /// Another step of the part begins.
    pub fn step(&mut self, what: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar
            && self.changed.elapsed() >= PERIOD
        {
            self.changed = Instant::now();
            bar.set_message(format!("{}, {}", self.part, what()));
            bar.tick();
        }
    }

    /// Nothing more to show.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

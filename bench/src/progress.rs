//! What is being measured, on standard error: a line that keeps changing on a terminal, one for each case elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::case::Case;

/// The shortest time between two changes of the line, so that showing it costs nothing.
const PERIOD: Duration = Duration::from_millis(200);

/// Shows how far the benchmarks are. It changes only between two runs; nothing is drawn while one is timed.
#[derive(Debug)]
pub struct Progress {
    /// On a terminal.
    bar: Option<ProgressBar>,
    case: String,
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
        Self { bar, case: String::new(), changed: Instant::now() }
    }

    /// Another case begins.
    pub fn case(&mut self, case: Case) {
        self.case = format!("{} GiB in {}", case.gib, case.leaf.name());
        if self.bar.is_none() {
            eprintln!("{} …", self.case);
        }
    }

    /// Another step of the case begins.
    pub fn step(&mut self, what: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar
            && self.changed.elapsed() >= PERIOD
        {
            self.changed = Instant::now();
            bar.set_message(format!("{}, {}", self.case, what()));
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

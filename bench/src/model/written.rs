//! The events of a job as a trace in text, for `linmap check`.

use std::io::{self, Write};

use anyhow::{Result, anyhow, bail};
use linmap_model::trace::text;
use linmap_model::{Event, Rule, Trace, Violation};

use super::edits;
use super::job::{Job, Source};
use super::trace::{Takes, live, straight};

/// Writes each event as a line.
struct Lines<W> {
    out: W,
    failed: Option<io::Error>,
}

impl<W: Write> Takes for Lines<W> {
    fn step(&mut self, event: &Event) -> Result<(), Violation> {
        writeln!(self.out, "{event}").map_err(|error| {
            self.failed = Some(error);
            // Ends the trace; nobody sees it.
            Violation::new(Rule::TooComplex)
        })
    }
}

impl Job {
    /// Writes the job's events to `out`: those of edits after those that build the map.
    ///
    /// # Errors
    /// `out` takes no more, or the job runs on the board.
    pub fn write(self, mut out: impl Write) -> Result<()> {
        let case = self.case();
        write!(out, "{}", text::write(&Trace { config: self.config(), events: Vec::new() }))?;
        let mut lines = Lines { out, failed: None };
        let written = match self.source {
            Source::Straight => straight(case, &mut lines),
            Source::Live => live(case, &mut lines),
            Source::Protect => edits::stand(self, &mut lines).and_then(|()| edits::protect(case, &mut lines)),
            Source::Resize => edits::stand(self, &mut lines).and_then(|()| edits::resize(case, &mut lines)),
            Source::Mixed => edits::stand(self, &mut lines).and_then(|()| edits::mixed(case, &mut lines)),
            Source::Base => bail!("the board's trace is not written"),
        };
        match (written, lines.failed) {
            (Err(_), Some(error)) => Err(error.into()),
            (Err(violation), None) => Err(anyhow!("{violation}")),
            (Ok(()), _) => Ok(lines.out.flush()?),
        }
    }
}

//! The checker of the machine model: how many events a second it takes, and how much memory.
//!
//! Each job runs in a process of its own, this program with `--model-job`, so that the peak of its
//! memory is the checker's. Nothing in such a process is done by more than one thread.

mod checked;
mod edits;
mod fixmap;
mod job;
mod trace;
mod written;

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::machine::field;
use crate::measure::Effort;
use crate::progress::Progress;
use checked::Checked;

pub use job::{Job, Source};

impl Job {
    /// Runs the job here and describes the outcome in a line for [`measure`].
    ///
    /// # Errors
    /// When the build fails or the checker finds it illegal.
    pub fn run(self) -> Result<String> {
        let checked = match self.source {
            Source::Straight => trace::run(self, trace::straight)?,
            Source::Live => trace::run(self, trace::live)?,
            Source::Protect => edits::run(self, edits::protect)?,
            Source::Resize => edits::run(self, edits::resize)?,
            Source::Mixed => edits::run(self, edits::mixed)?,
            Source::Base => fixmap::run(self)?,
        };
        let Checked { events, time, table_bytes } = checked;
        let peak = field("/proc/self/status", "VmHWM").context("reading this process's peak of memory")?;
        let kib: u64 = peak.trim_end_matches(" kB").parse().with_context(|| format!("VmHWM is {peak:?}"))?;
        let peak_bytes = kib * 1024;
        let nanoseconds = time.as_nanos() as u64;
        Ok(json!({
            "events": events, "ns": nanoseconds, "table_bytes": table_bytes, "peak_bytes": peak_bytes,
        })
        .to_string())
    }
}

/// What a job took.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The job.
    pub job: Job,
    /// Events checked.
    pub events: u64,
    /// How long they took, with their making.
    pub time: Duration,
    /// Bytes of all tables built.
    pub table_bytes: u64,
    /// The most memory that the process had at any moment.
    pub peak_bytes: u64,
}

impl Outcome {
    /// Events checked in a second.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }

    /// How many times the tables' bytes the process had.
    pub fn times_tables(&self) -> f64 {
        self.peak_bytes as f64 / self.table_bytes as f64
    }
}

/// Runs every job once, each in its own process.
///
/// # Errors
/// A job that fails.
pub fn measure(effort: Effort, progress: &mut Progress) -> Result<Vec<Outcome>> {
    let program = std::env::current_exe().context("asking for the program's own path")?;
    let mut outcomes = Vec::new();
    for job in Job::all(effort) {
        let Job { source, gib } = job;
        progress.part(format!("the model's checker, {gib} GiB in pages, {}", source.name()));
        let mut command = Command::new(&program);
        command.args(["--model-job", source.key(), "--model-gib", &gib.to_string()]);
        let output = command.stderr(Stdio::inherit()).output().context("starting a process for the model")?;
        ensure!(output.status.success(), "the process for the model ended with {}", output.status);
        let said: Value = serde_json::from_slice(&output.stdout).context("reading what the model took")?;
        let number = |key| said[key].as_u64().with_context(|| format!("no {key} in {said}"));
        outcomes.push(Outcome {
            job,
            events: number("events")?,
            time: Duration::from_nanos(number("ns")?),
            table_bytes: number("table_bytes")?,
            peak_bytes: number("peak_bytes")?,
        });
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: Source) -> (u64, u64) {
        let said: Value = serde_json::from_str(&Job { source, gib: 1 }.run().unwrap()).unwrap();
        (said["events"].as_u64().unwrap(), said["table_bytes"].as_u64().unwrap())
    }

    #[test]
    fn a_straight_trace_has_one_store_for_each_word_of_each_table() {
        let case = Job { source: Source::Straight, gib: 1 }.case();
        let words = case.tables() * 512;
        let (events, table_bytes) = run(Source::Straight);
        assert_eq!(table_bytes, 8 * words);
        assert!((words..words + 16).contains(&events), "{events}");
    }

    #[test]
    fn a_live_trace_has_one_store_for_each_entry_and_three_events_more_for_each_table() {
        let case = Job { source: Source::Live, gib: 1 }.case();
        let least = case.entries() + 3 * (case.tables() - 1);
        let (events, table_bytes) = run(Source::Live);
        assert_eq!(table_bytes, case.table_bytes());
        assert!((least..least + 16).contains(&events), "{events}");
    }

    #[test]
    fn each_edit_has_its_stores_its_barriers_and_what_relies_on_it() {
        let entries = Job { source: Source::Protect, gib: 1 }.case().entries();
        assert_eq!(run(Source::Protect).0, 6 * entries);
        // Seven events for a fold, six for a split.
        assert_eq!(run(Source::Resize).0, 13 * entries / 512);
        assert_eq!(run(Source::Mixed).0, (13 + 32 * 6) * entries / 512);
    }

    #[test]
    fn the_builder_base_has_a_store_a_dsb_and_an_isb_for_each_page() {
        let (events, table_bytes) = run(Source::Base);
        let entries = Job { source: Source::Base, gib: 1 }.case().entries();
        assert!(events > 3 * entries, "{events}");
        assert!(table_bytes > 8 * entries);
    }
}

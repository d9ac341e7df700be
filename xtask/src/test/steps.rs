//! The steps of a run, how each ended, and the summary of them all.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::process;

/// The steps that have ended so far.
#[derive(Debug, Default)]
pub struct Steps(Vec<Step>);

#[derive(Debug)]
struct Step {
    name: &'static str,
    outcome: Outcome,
    seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

impl Steps {
    /// Runs a command as a step, with its output shown as it comes.
    pub fn command(&mut self, name: &'static str, command: &mut Command) -> bool {
        self.run(name, || Ok(process::status(command)?.success()))
    }

    /// Runs `work` as a step. It says whether it passed; an error is shown and is a failure.
    pub fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<bool>) -> bool {
        eprintln!("== {name}");
        let started = Instant::now();
        let outcome = match work() {
            Ok(true) => Outcome::Passed,
            Ok(false) => Outcome::Failed,
            Err(error) => {
                eprintln!("error: {error:#}");
                Outcome::Failed
            }
        };
        let passed = outcome == Outcome::Passed;
        self.0.push(Step { name, outcome, seconds: started.elapsed().as_secs_f64() });
        passed
    }

    /// Runs one of our own commands as a step.
    pub fn own(&mut self, name: &'static str, command: impl FnOnce() -> Result<ExitCode>) -> bool {
        self.run(name, || Ok(command()? == ExitCode::SUCCESS))
    }

    /// Leaves a step out, for a reason.
    pub fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.0.push(Step { name, outcome: Outcome::Skipped(why.into()), seconds: 0.0 });
    }

    /// Prints how each step ended and how long it took, and returns what the run ends with.
    pub fn summary(&self) -> ExitCode {
        println!("\nsummary:");
        for Step { name, outcome, seconds } in &self.0 {
            let outcome = match outcome {
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed => "FAILED".to_owned(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
            };
            println!("  {name:<18} {seconds:>7.1} s  {outcome}");
        }
        let names = |wanted: fn(&Outcome) -> bool| -> Vec<_> {
            self.0.iter().filter(|step| wanted(&step.outcome)).map(|step| step.name).collect()
        };
        let failed = names(|outcome| *outcome == Outcome::Failed);
        let passed = names(|outcome| *outcome == Outcome::Passed).len();
        let skipped = self.0.len() - passed - failed.len();
        let all: f64 = self.0.iter().map(|step| step.seconds).sum();
        if !failed.is_empty() {
            eprintln!("error: failed: {}", failed.join(", "));
        }
        println!("steps: {passed} passed, {} failed, {skipped} skipped, in {all:.0} s", failed.len());
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

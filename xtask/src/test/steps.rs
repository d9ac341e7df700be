//! The steps of a run, how each ended, and the summary of them all.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

use crate::process;

/// The steps that have ended so far.
#[derive(Debug)]
pub struct Steps {
    ended: Vec<Step>,
    started: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { ended: Vec::new(), started: Instant::now() }
    }
}

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

impl Step {
    fn run(name: &'static str, work: impl FnOnce() -> Result<bool>) -> Self {
        eprintln!("== {name}");
        let started = Instant::now();
        let outcome = match work() {
            Ok(true) => Outcome::Passed,
            Ok(false) => Outcome::Failed,
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                Outcome::Failed
            }
        };
        Self { name, outcome, seconds: started.elapsed().as_secs_f64() }
    }
}

impl Steps {
    /// Runs a command as a step, with its output shown as it comes.
    pub fn command(&mut self, name: &'static str, command: &mut Command) -> bool {
        self.run(name, || Ok(process::status(command)?.success()))
    }

    /// Runs `work` as a step. It says whether it passed; an error is shown and is a failure.
    pub fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<bool>) -> bool {
        self.add(Step::run(name, work))
    }

    /// Runs two steps at once, and returns whether each passed. They must not wait for each other:
    /// runs of cargo have target folders of their own. The end of a build, which one CPU links,
    /// leaves the others to the second step.
    pub fn both(
        &mut self,
        (first, first_work): (&'static str, impl FnOnce() -> Result<bool> + Send),
        (second, second_work): (&'static str, impl FnOnce() -> Result<bool>),
    ) -> (bool, bool) {
        let (first, second) = std::thread::scope(|scope| {
            let first_step = scope.spawn(|| Step::run(first, first_work));
            let second_step = Step::run(second, second_work);
            let panicked = |_| Step { name: first, outcome: Outcome::Failed, seconds: 0.0 };
            (first_step.join().unwrap_or_else(panicked), second_step)
        });
        (self.add(first), self.add(second))
    }

    fn add(&mut self, step: Step) -> bool {
        let passed = step.outcome == Outcome::Passed;
        self.ended.push(step);
        passed
    }

    /// Runs one of our own commands as a step.
    pub fn own(&mut self, name: &'static str, command: impl FnOnce() -> Result<ExitCode>) -> bool {
        self.run(name, || Ok(command()? == ExitCode::SUCCESS))
    }

    /// Leaves a step out, for a reason.
    pub fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.ended.push(Step { name, outcome: Outcome::Skipped(why.into()), seconds: 0.0 });
    }

    /// Prints how each step ended and how long it took, and returns what the run ends with.
    pub fn summary(&self) -> ExitCode {
        println!("\nsummary:");
        for Step { name, outcome, seconds } in &self.ended {
            let outcome = match outcome {
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed => "FAILED".to_owned(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
            };
            println!("  {name:<18} {seconds:>7.1} s  {outcome}");
        }
        let names = |wanted: fn(&Outcome) -> bool| -> Vec<_> {
            self.ended.iter().filter(|step| wanted(&step.outcome)).map(|step| step.name).collect()
        };
        let failed = names(|outcome| *outcome == Outcome::Failed);
        let passed = names(|outcome| *outcome == Outcome::Passed).len();
        let skipped = self.ended.len() - passed - failed.len();
        let all = self.started.elapsed().as_secs_f64();
        if !failed.is_empty() {
            eprintln!("error: failed: {}", failed.join(", "));
        }
        println!("steps: {passed} passed, {} failed, {skipped} skipped, in {all:.0} s", failed.len());
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn two_steps_run_at_once_and_each_ends_as_it_does() {
        let mut steps = Steps::default();
        let both = Barrier::new(2);
        let meet = |passed| {
            both.wait();
            Ok(passed)
        };
        assert_eq!(steps.both(("first", || meet(true)), ("second", || meet(false))), (true, false));
        let panics: fn() -> Result<bool> = || panic!("the step's own panic");
        assert_eq!(steps.both(("third", panics), ("fourth", || Ok(true))), (false, true));
        let names: Vec<_> = steps.ended.iter().map(|step| step.name).collect();
        assert_eq!(names, ["first", "second", "third", "fourth"]);
    }
}

//! `cargo xtask test`: everything that has to pass before a change lands.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::toolchain::Toolchain;
use crate::workspace::{Workspace, cargo};
use crate::{build, house, setup, width};

/// Run every test.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Only the end-to-end tests whose names contain this
    filter: Option<String>,
}

struct Step {
    name: &'static str,
    outcome: Outcome,
    seconds: f64,
}

enum Outcome {
    Passed,
    Failed,
    Skipped(&'static str),
}

/// `cargo xtask test`.
pub fn run(workspace: &Workspace, arguments: &TestArgs) -> Result<ExitCode> {
    // Now: a later step may build us anew, and then our own path is no more.
    let xtask = std::env::current_exe().context("finding our own program")?;
    let started = Instant::now();
    let setup = setup::run(workspace);
    let mut steps = vec![finished("setup", started, setup.is_ok())];
    setup?;
    let toolchain = setup::toolchain::ensure(workspace)?;
    match &arguments.filter {
        Some(filter) => end_to_end(workspace, &toolchain, &xtask, Some(filter), &mut steps)?,
        None => {
            own_step("house", workspace, house::run, &mut steps);
            own_step("width of lines", workspace, width::run, &mut steps);
            lints(workspace, &toolchain, &mut steps)?;
            host_tests(workspace, &mut steps)?;
            end_to_end(workspace, &toolchain, &xtask, None, &mut steps)?;
        }
    }
    Ok(summary(&steps))
}

/// Runs one of our own commands as a step.
fn own_step(
    name: &'static str,
    workspace: &Workspace,
    command: fn(&Workspace) -> Result<ExitCode>,
    steps: &mut Vec<Step>,
) {
    eprintln!("== {name}");
    let started = Instant::now();
    let outcome = command(workspace);
    if let Err(error) = &outcome {
        eprintln!("error: {error:#}");
    }
    steps.push(finished(name, started, outcome.is_ok_and(|code| code == ExitCode::SUCCESS)));
}

fn lints(workspace: &Workspace, toolchain: &Toolchain, steps: &mut Vec<Step>) -> Result<()> {
    if setup::lints::ensure(&cargo())? {
        run_step("format", cargo_in(workspace, &["fmt", "--all", "--check"]), steps)?;
        let words =
            ["clippy", "--workspace", "--exclude", "linmap-kernel", "--all-targets", "--", "-D", "warnings"];
        run_step("clippy, host", cargo_in(workspace, &words), steps)?;
        match toolchain {
            Toolchain::Rustup { .. } => {
                let mut clippy = build::cargo(workspace, toolchain, "clippy");
                clippy.args(["--package", "linmap-kernel", "--", "-D", "warnings"]);
                run_step("clippy, kernel", clippy, steps)?;
            }
            Toolchain::Debian { .. } => {
                skip("clippy, kernel", "Debian's compiler comes without clippy", steps);
            }
        }
    } else {
        skip("format and clippy", "cargo fmt or cargo clippy is not installed", steps);
    }
    let mut doc = cargo_in(workspace, &["doc", "--no-deps", "--workspace", "--exclude", "linmap-kernel"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run_step("documentation", doc, steps)
}

fn host_tests(workspace: &Workspace, steps: &mut Vec<Step>) -> Result<()> {
    // All that fails is to be seen, not only the first.
    let words =
        ["test", "--no-fail-fast", "--workspace", "--exclude", "linmap-kernel", "--exclude", "linmap-tests"];
    run_step("host tests", cargo_in(workspace, &words), steps)
}

/// The tests in `tests/` start machines with our own `boot`.
fn end_to_end(
    workspace: &Workspace,
    toolchain: &Toolchain,
    xtask: &Path,
    filter: Option<&str>,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let started = Instant::now();
    let kernel = build::kernel(workspace, toolchain);
    if let Err(error) = &kernel {
        eprintln!("error: {error:#}");
    }
    steps.push(finished("kernel", started, kernel.is_ok()));
    if kernel.is_err() {
        skip("end-to-end tests", "there is no kernel", steps);
        return Ok(());
    }
    let mut tests = cargo_in(workspace, &["test", "--no-fail-fast", "--package", "linmap-tests"]);
    tests.args(filter);
    tests.env("LINMAP_XTASK", xtask);
    run_step("end-to-end tests", tests, steps)
}

fn cargo_in(workspace: &Workspace, words: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.args(words).current_dir(Path::new(&workspace.root));
    command
}

/// Runs a step with its output shown as it comes.
fn run_step(name: &'static str, mut command: Command, steps: &mut Vec<Step>) -> Result<()> {
    eprintln!("== {name}");
    let started = Instant::now();
    match command.status() {
        Ok(status) => steps.push(finished(name, started, status.success())),
        Err(error) => bail!("starting the step '{name}': {error}"),
    }
    Ok(())
}

fn finished(name: &'static str, started: Instant, passed: bool) -> Step {
    let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
    Step { name, outcome, seconds: started.elapsed().as_secs_f64() }
}

fn skip(name: &'static str, why: &'static str, steps: &mut Vec<Step>) {
    steps.push(Step { name, outcome: Outcome::Skipped(why), seconds: 0.0 });
}

fn summary(steps: &[Step]) -> ExitCode {
    println!("\nsummary:");
    for step in steps {
        let outcome = match step.outcome {
            Outcome::Passed => "ok".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        println!("  {:<18} {:>7.1} s  {outcome}", step.name, step.seconds);
    }
    let failed: Vec<_> =
        steps.iter().filter(|step| matches!(step.outcome, Outcome::Failed)).map(|step| step.name).collect();
    let passed = steps.iter().filter(|step| matches!(step.outcome, Outcome::Passed)).count();
    let skipped = steps.len() - passed - failed.len();
    if !failed.is_empty() {
        eprintln!("error: failed: {}", failed.join(", "));
    }
    println!("steps: {passed} passed, {} failed, {skipped} skipped", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

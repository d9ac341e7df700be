//! `cargo xtask bench`: runs the benchmarks of the bench crate.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace::{Workspace, cargo};

/// Run every benchmark: of builds, of changes, of the model's checker. Results are printed as a table and written below target/bench/.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Fewer and smaller runs, in under two minutes
    #[arg(long)]
    quick: bool,
    /// More arguments for the benchmarks
    #[arg(last = true)]
    more: Vec<String>,
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, arguments: &BenchArgs) -> Result<ExitCode> {
    let mut bench = Command::new(cargo());
    bench.args(["run", "--quiet", "--release", "--package", "linmap-bench", "--"]);
    bench.args(arguments.quick.then_some("--quick")).args(&arguments.more).current_dir(&workspace.root);
    let status = bench.status().context("starting the benchmarks")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

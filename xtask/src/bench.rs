//! `cargo xtask bench`: runs the benchmarks of the bench crate on the host, and measures kexec in
//! QEMU.

mod kexec;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::process;
use crate::workspace::{Workspace, cargo};

/// Run every benchmark: of builds, of changes, of the model's checker, of kexec. Results are
/// printed as tables and written below target/bench/.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Only these
    #[arg(value_enum)]
    only: Option<Part>,
    /// Fewer and smaller runs, in about two minutes
    #[arg(long)]
    quick: bool,
    /// More arguments for the benchmarks on the host
    #[arg(last = true)]
    more: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Builds, changes and the model's checker, in host memory
    Host,
    /// Instructions of kexec, in QEMU
    Kexec,
}

/// `cargo xtask bench`.
pub fn run(workspace: &Workspace, arguments: &BenchArgs) -> Result<ExitCode> {
    if arguments.only != Some(Part::Kexec) {
        host(workspace, arguments)?;
    }
    if arguments.only != Some(Part::Host) {
        kexec::run(workspace, arguments.quick)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn host(workspace: &Workspace, arguments: &BenchArgs) -> Result<()> {
    let mut bench = Command::new(cargo());
    bench.args(["run", "--release", "--package", "linmap-bench", "--"]);
    bench.args(arguments.quick.then_some("--quick")).args(&arguments.more).current_dir(&workspace.root);
    let status = process::status(&mut bench)?;
    if !status.success() {
        bail!("the benchmarks on the host ended with {status}");
    }
    Ok(())
}

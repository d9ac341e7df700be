//! `cargo xtask test`: everything that has to pass before a change lands.

mod executables;
mod licences;
mod package;
mod runner;
mod steps;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::granule::Granule;
use crate::setup::toolchain::Toolchain;
use crate::workspace::{Workspace, cargo};
use crate::{build, house, process, quotes, setup, shown, tool, width};
use package::{Published, Yard};
use steps::Steps;

/// Run every test.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Only the end-to-end tests whose names contain this
    filter: Option<String>,
    /// The long forms: 10 000 calls of stress at each level, whole matrices, more random sequences
    #[arg(long)]
    soak: bool,
}

/// What the tests read to know that they have time.
const SOAK: &str = "LINMAP_SOAK";

/// `cargo xtask test`.
pub fn run(workspace: &Workspace, arguments: &TestArgs) -> Result<ExitCode> {
    // A later step may build us anew, and our own path is gone then.
    let xtask = std::env::current_exe().context("finding our own program")?;
    let mut steps = Steps::default();
    if !steps.own("setup", || setup::run(workspace)) {
        return Ok(steps.summary());
    }
    let toolchain = setup::toolchain::ensure(workspace)?;
    if arguments.filter.is_none() {
        steps.own("house", || house::run(workspace));
        steps.own("quotes", || quotes::run(workspace));
        steps.own("shown", || shown::run(workspace));
        steps.own("width of lines", || width::run(workspace));
        lints(workspace, &toolchain, &mut steps)?;
    }
    tests(workspace, &toolchain, &xtask, arguments, &mut steps);
    if arguments.filter.is_none() {
        packages(workspace, &toolchain, &mut steps)?;
        match licences::command(workspace) {
            Ok(mut deny) => _ = steps.command("licences", &mut deny),
            Err(why) => steps.skip("licences", why),
        }
    }
    Ok(steps.summary())
}

/// `cargo xtask package`: the steps that package what is published, alone.
pub fn package(workspace: &Workspace) -> Result<ExitCode> {
    let mut steps = Steps::default();
    packages(workspace, &setup::toolchain::ensure(workspace)?, &mut steps)?;
    Ok(steps.summary())
}

/// The packages that build for the bare-metal target alone.
const CLIPPED: [&str; 8] = [
    "linmap-kernel",
    "first-map",
    "first-map-peer",
    "hypervisor",
    "mistakes",
    "second-kernel",
    "user-space",
    "workload",
];

fn lints(workspace: &Workspace, toolchain: &Toolchain, steps: &mut Steps) -> Result<()> {
    if setup::lints::ensure(&cargo())? {
        steps.command("format", &mut cargo_in(workspace, &["fmt", "--all", "--check"]));
        // Of the packages that build for the host.
        let words = ["clippy", "--all-targets", "--", "-D", "warnings"];
        let mut host = cargo_in(workspace, &words);
        match toolchain {
            Toolchain::Rustup { .. } => {
                let mut kernel = build::cargo(workspace, toolchain, "clippy");
                for package in CLIPPED {
                    kernel.args(["--package", package]);
                }
                kernel.args(["--", "-D", "warnings"]);
                let passes = |clippy: &mut Command| Ok(process::status(clippy)?.success());
                let kernel = ("clippy, kernel", || passes(&mut kernel));
                steps.both(kernel, ("clippy, host", || passes(&mut host)));
            }
            Toolchain::Debian { .. } => {
                steps.command("clippy, host", &mut host);
                steps.skip("clippy, kernel", "Debian's compiler comes without clippy");
            }
        }
    } else {
        steps.skip("format and clippy", "cargo fmt or cargo clippy is not installed");
    }
    // A kernel with an allocator of its own.
    let words = ["check", "--package", "linmap", "--no-default-features", "--test", "another_kernel"];
    steps.command("without memblock", &mut cargo_in(workspace, &words));
    // The tool's pages lie where those of the crate `linmap` go, which therefore come last.
    let (tool, crates) = (&["rustdoc", "--package", "linmap-cli", "--bin", "linmap"], &["doc", "--no-deps"]);
    steps.run("documentation", || {
        let passes = |words: &[&str]| -> Result<bool> {
            let mut doc = cargo_in(workspace, words);
            Ok(process::status(doc.env("RUSTDOCFLAGS", "-D warnings"))?.success())
        };
        Ok(passes(tool)? && passes(crates)?)
    });
    Ok(())
}

/// Packages and verifies what is published.
fn packages(workspace: &Workspace, toolchain: &Toolchain, steps: &mut Steps) -> Result<()> {
    let metadata = workspace.metadata()?;
    let published = Published::read(&metadata)?;
    let yard = Yard::new(workspace)?;
    let host = cargo_in(workspace, &["package"]);
    steps.run("packages, host", || package::run(&yard, host, &published.host));
    match toolchain {
        Toolchain::Rustup { .. } => {
            let mut package = toolchain.cargo("package");
            package.current_dir(&workspace.root);
            steps.run("packages, kernel", || package::run(&yard, package, &published.bare_metal));
        }
        Toolchain::Debian { .. } => {
            steps.skip("packages, kernel", "Debian's compiler has no precompiled library for the target");
        }
    }
    Ok(())
}

/// The programs with the longest tests. They start first: a long test that starts last runs alone.
const LONGEST: [&str; 4] =
    ["linmap-tests examples", "linmap-tests granules", "linmap-tests kexec_low_memory", "linmap-tests live"];

/// Builds the kernel, and builds and runs the tests of all packages; those in `tests/` start
/// machines with our own `boot`.
fn tests(
    workspace: &Workspace,
    toolchain: &Toolchain,
    xtask: &Path,
    arguments: &TestArgs,
    steps: &mut Steps,
) {
    const END_TO_END: &str = "linmap-tests";
    let filter = arguments.filter.as_deref();
    let words: &[&str] = match filter {
        Some(_) => &["test", "--package", END_TO_END],
        None => &["test"],
    };
    // A few tests build what else they need.
    let granules = if filter.is_none() { &Granule::ALL[..] } else { &[Granule::K4] };
    let kernels = || {
        granules.iter().try_for_each(|&granule| build::kernel(workspace, toolchain, granule).map(drop))?;
        Ok(true)
    };
    let mut programs = Vec::new();
    let building = || {
        programs = executables::build(&mut cargo_in(workspace, words))?;
        Ok(true)
    };
    // The two have target folders of their own.
    let (has_kernel, _) = steps.both(("kernel", kernels), ("building tests", building));
    let has_tool = steps.command("linmap", &mut tool::build(workspace));
    if programs.is_empty() || !has_tool {
        return;
    }
    let mut variables = vec![
        ("LINMAP_XTASK", xtask.as_os_str().to_owned()),
        ("LINMAP_TOOL", tool::of_tests(workspace).into_os_string()),
    ];
    variables.extend(arguments.soak.then(|| (SOAK, OsString::from("1"))));
    let (mut end_to_end, host): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.name.starts_with(END_TO_END));
    end_to_end.sort_by_key(|program| !LONGEST.contains(&program.name.as_str()));
    let mut ran = Vec::new();
    let mut run = |name, programs: &[_], steps: &mut Steps| {
        steps.run(name, || {
            let these = runner::run(programs, filter, &variables)?;
            let passed = these.iter().all(|test| test.passed);
            ran.extend(these);
            Ok(passed)
        })
    };
    if filter.is_none() {
        run("host tests", &host, steps);
        let words = ["test", "--doc"];
        steps.command("doc tests", &mut cargo_in(workspace, &words));
    }
    match has_kernel {
        true => _ = run("end-to-end tests", &end_to_end, steps),
        false => steps.skip("end-to-end tests", "the kernel was not built"),
    }
    steps.run("all tests", || runner::report(&mut ran, arguments.soak));
}

fn cargo_in(workspace: &Workspace, words: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.args(words).current_dir(&workspace.root);
    command
}

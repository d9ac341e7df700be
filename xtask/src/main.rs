//! `cargo xtask …`: everything a developer types. Builds the kernel, boots it in QEMU, tests and
//! measures it, and installs what is missing on the machine first.
//!
//! Exit codes: 0 success, 1 a boot, step, test or installation failed, 2 the command line was
//! wrong, 130 interrupted. Where files are put is described in [`workspace`].

#![forbid(unsafe_code)]
#![allow(clippy::single_range_in_vec_init, reason = "a list of memory ranges may have one entry")]

mod append;
mod archive;
mod bench;
mod boot;
mod build;
mod checksum;
mod children;
mod console;
mod devicetree;
mod example;
mod fuzz;
mod granule;
mod guest;
mod handover;
mod house;
mod image;
mod initramfs;
mod input_file;
mod interruption;
mod judge;
mod machine;
mod packing;
mod placement;
mod process;
mod progress;
mod qemu;
mod quotes;
mod record;
mod run;
mod script;
mod setup;
mod shown;
mod shutdown;
mod size;
mod test;
mod tool;
mod usage;
mod verdict;
mod width;
mod workload;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::usage::UsageError;
use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, boot, test and measure linmap")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot the kernel in QEMU, build the linear map, and kexec into Linux with the MMU on
    #[command(after_help = boot::EXIT_CODES)]
    Boot(boot::BootArgs),
    /// Boot one of the examples in QEMU
    Example(example::ExampleArgs),
    /// Boot a guest and check that its edits of its translation tables are legal
    #[command(after_help = judge::HELP)]
    Judge(judge::JudgeArgs),
    /// Run every test: host, kernel build, end-to-end in QEMU
    Test(test::TestArgs),
    /// Run every benchmark
    Bench(bench::BenchArgs),
    /// Run the property tests of the machine model for long
    #[command(after_help = fuzz::HELP)]
    Fuzz(fuzz::FuzzArgs),
    /// Install what is missing: QEMU, the bare-metal target, the Linux payloads
    #[command(after_help = setup::toolchain::HELP)]
    Setup,
    /// Build the kernel's Image and print where it is
    Build(build::BuildArgs),
    /// Check that imports run downward and that no two files import each other
    House,
    /// Package what is published and verify each package by a build
    Package,
    /// Check that code quoted in Markdown equals the files that it names
    Quotes,
    /// Check that every public type of the crates for tables is in an example
    Shown,
    /// Run linmap, the host tool, from the workspace
    Linmap(tool::ToolArgs),
    /// Install linmap, its completions and its manual pages
    #[command(after_help = tool::INSTALL_HELP)]
    Install(tool::InstallArgs),
    /// Check the length of lines: comments and Markdown 100 columns, code 110
    Width,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match interruption::handle().and_then(|()| run(cli.command)) {
        // What failed was ended by us.
        _ if interruption::has_come() => ExitCode::from(interruption::EXIT_CODE),
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Boot(arguments) => boot::run(&workspace, &arguments),
        Command::Example(arguments) => example::run(&workspace, &arguments),
        Command::Judge(arguments) => judge::run(&workspace, &arguments),
        Command::Test(arguments) => test::run(&workspace, &arguments),
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Command::Setup => setup::run(&workspace),
        Command::Build(arguments) => build::run(&workspace, &arguments),
        Command::House => house::run(&workspace),
        Command::Package => test::package(&workspace),
        Command::Quotes => quotes::run(&workspace),
        Command::Shown => shown::run(&workspace),
        Command::Linmap(arguments) => tool::run(&workspace, &arguments),
        Command::Install(arguments) => tool::install(&workspace, &arguments),
        Command::Width => width::run(&workspace),
    }
}

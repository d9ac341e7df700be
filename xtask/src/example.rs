//! `cargo xtask example`: boots one of the programs in `examples/` in QEMU.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::setup::toolchain::TARGET;
use crate::setup::{self, Wanted, payload};
use crate::workspace::Workspace;
use crate::{build, process};

/// The exit code of an example whose QEMU had to be stopped.
const TIMED_OUT: i32 = 124;
/// How many seconds an example may take, and each further round of it.
const SECONDS: u32 = 60;

/// A program in `examples/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Example {
    /// The MMU on at EL1, EL2 or EL3; a store to text faults
    FirstMap,
    /// The same by the crate aarch64-paging, for a comparison
    FirstMapPeer,
    /// A kernel of the field's crates changes its linear map under load
    SecondKernel,
    /// Processes at EL0 on four CPUs: ASIDs and their rollover, copy-on-write, frames used again
    UserSpace,
}

impl Example {
    /// The name of its package and its binary.
    fn package(self) -> &'static str {
        match self {
            Self::FirstMap => "first-map",
            Self::FirstMapPeer => "first-map-peer",
            Self::SecondKernel => "second-kernel",
            Self::UserSpace => "user-space",
        }
    }

    /// What QEMU's machine has besides a CPU.
    fn machine(self) -> &'static [&'static str] {
        match self {
            Self::FirstMap | Self::FirstMapPeer => &[],
            Self::SecondKernel => &["-machine", "gic-version=3", "-smp", "4"],
            Self::UserSpace => &["-smp", "4"],
        }
    }
}

/// Boot one of the examples in QEMU.
#[derive(Debug, clap::Args)]
pub struct ExampleArgs {
    /// Which one
    #[arg(value_enum)]
    name: Example,
    /// The exception level to be entered at
    #[arg(long, value_name = "1|2|3", default_value_t = 1, value_parser = exception_level())]
    el: u8,
    /// QEMU's CPU type
    #[arg(long, value_name = "TYPE", default_value = "max")]
    cpu: String,
    /// How many times to do it all, where an example is about races
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
}

fn exception_level() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..=3)
}

/// `cargo xtask example`.
pub fn run(workspace: &Workspace, arguments: &ExampleArgs) -> Result<ExitCode> {
    let wanted = Wanted { qemu: setup::FOR_BOOT, lines: &[], tools: payload::Tools::None };
    if arguments.name == Example::UserSpace && arguments.el != 1 {
        bail!("user-space is a kernel at EL1: --el 1");
    }
    setup::announce(workspace, &wanted)?;
    setup::ensure_qemu(workspace, setup::FOR_BOOT)?;
    let elf = built(workspace, arguments.name.package())?;
    // QEMU enters a program at the highest level that the CPU has.
    let levels = match arguments.el {
        1 => "",
        2 => ",virtualization=on",
        _ => ",virtualization=on,secure=on",
    };
    let mut qemu = Command::new("timeout");
    let seconds = SECONDS.saturating_mul(arguments.rounds.max(1));
    qemu.arg(seconds.to_string());
    qemu.args(["qemu-system-aarch64", "-machine", &format!("virt{levels}"), "-cpu", &arguments.cpu]);
    qemu.args(arguments.name.machine());
    qemu.args(["-m", "128M", "-nographic", "-nic", "none", "-no-reboot", "-semihosting"]);
    // What semihosting gives a program for its command line.
    qemu.args(["-append", &arguments.rounds.to_string()]);
    qemu.arg("-kernel").arg(elf);
    let status = process::status(&mut qemu)?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(TIMED_OUT) => bail!("{} did not end within {seconds} s", arguments.name.package()),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// Builds an example. Returns its ELF.
fn built(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    let toolchain = setup::toolchain::ensure(workspace)?;
    let mut cargo = build::cargo(workspace, &toolchain, "build");
    cargo.args(["--package", package, "--bin", package, "--profile", "kernel"]);
    let status = process::status(&mut cargo)?;
    if !status.success() {
        bail!("building {package} failed: {}", process::line(&cargo));
    }
    Ok(workspace
        .target
        .join(format!("kernel-{}", toolchain.name()))
        .join(TARGET)
        .join("kernel")
        .join(package))
}

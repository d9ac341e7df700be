//! `cargo xtask example`: boots one of the programs in `examples/` in QEMU.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::handover::Files;
use crate::setup::toolchain::TARGET;
use crate::setup::{self, Wanted, payload};
use crate::workspace::Workspace;
use crate::{build, guest, process, tool};

/// The exit code of an example whose QEMU had to be stopped.
const TIMED_OUT: i32 = 124;

/// A program in `examples/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Example {
    /// The MMU on at EL1, EL2 or EL3; a store to text faults
    FirstMap,
    /// The same by the crate aarch64-paging, for a comparison
    FirstMapPeer,
    /// Linux at EL1 under a stage 2 whose dirty pages are logged while it runs
    Hypervisor,
    /// Edits that were found wrong in kernels, and the same done right; --append names one
    Mistakes,
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
            Self::Hypervisor => "hypervisor",
            Self::Mistakes => "mistakes",
            Self::SecondKernel => "second-kernel",
            Self::UserSpace => "user-space",
        }
    }

    /// How many seconds it may take, each of its rounds.
    fn seconds(self) -> u64 {
        match self {
            Self::Hypervisor => 240,
            _ => 60,
        }
    }

    /// What has to be there.
    fn wanted(self) -> Wanted<'static> {
        let (lines, tools): (&[_], _) = match self {
            Self::Hypervisor => (&[guest::LINE], payload::Tools::BusyBox),
            _ => (&[], payload::Tools::None),
        };
        Wanted { qemu: setup::FOR_BOOT, lines, tools }
    }
}

/// Boot one of the examples in QEMU.
#[derive(Debug, clap::Args)]
pub struct ExampleArgs {
    /// Which one
    #[arg(value_enum)]
    name: Example,
    /// first-map: the exception level to be entered at
    #[arg(long, value_name = "1|2|3", default_value_t = 1, value_parser = exception_level())]
    el: u8,
    /// QEMU's CPU type
    #[arg(long, value_name = "TYPE", default_value = "max")]
    cpu: String,
    /// hypervisor: more words for its guest's command line; linmap_reach=ADDRESS reads there.
    /// mistakes: the function to run, and 64k for pages of 64 KiB
    #[arg(
        long,
        value_name = "STR",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append: String,
    /// hypervisor: boot the guest without it, to compare
    #[arg(long)]
    guest_alone: bool,
    /// Count instructions as time: a tick of the virtual counter is one instruction on CPUs of type
    /// max
    #[arg(long)]
    icount: bool,
    /// Record what it does to its tables, and judge it: `linmap record --check --all`
    #[arg(long)]
    record: bool,
    /// How many times to do it all, where an example is about races
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
}

fn exception_level() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..=3)
}

/// `cargo xtask example`.
pub fn run(workspace: &Workspace, arguments: &ExampleArgs) -> Result<ExitCode> {
    let example = arguments.name;
    if matches!(example, Example::UserSpace | Example::Mistakes) && arguments.el != 1 {
        bail!("{} is a kernel at EL1: --el 1", example.package());
    }
    setup::announce(workspace, &example.wanted())?;
    setup::ensure_qemu(workspace, setup::FOR_BOOT)?;
    let elf = built(workspace, example.package())?;
    let files = Files::new(workspace)?;
    let machine = match example {
        Example::FirstMap | Example::FirstMapPeer => alone(arguments, &[], &elf),
        Example::SecondKernel => alone(arguments, &["-machine", "gic-version=3", "-smp", "4"], &elf),
        Example::UserSpace | Example::Mistakes => alone(arguments, &["-smp", "4"], &elf),
        Example::Hypervisor => {
            let hypervisor = (!arguments.guest_alone).then_some(elf.as_path());
            guest::arguments(workspace, &files, hypervisor, arguments.rounds, &arguments.append)?
        }
    };
    let seconds = example.seconds().saturating_mul(arguments.rounds.max(1).into());
    let mut qemu = Command::new("timeout");
    qemu.arg(seconds.to_string());
    if arguments.record {
        qemu.arg(tool::for_others(workspace)?).args(["record", "--check", "--all", "--symbols"]);
        qemu.arg(&elf).arg("--");
    }
    qemu.args(["qemu-system-aarch64", "-cpu", &arguments.cpu]);
    if arguments.icount {
        qemu.args(["-icount", "shift=0"]);
    }
    qemu.args(["-nographic", "-nic", "none", "-no-reboot", "-semihosting"]).args(machine);
    let status = process::status(&mut qemu)?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(TIMED_OUT) => bail!("{} did not end within {seconds} s", example.package()),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// QEMU's arguments for a program that has the machine to itself, with `more` than one CPU in it.
fn alone(options: &ExampleArgs, more: &[&str], elf: &Path) -> Vec<OsString> {
    // QEMU enters a program at the highest level that the CPU has.
    let machine = match options.el {
        1 => "virt",
        2 => "virt,virtualization=on",
        _ => "virt,virtualization=on,secure=on",
    };
    let mut arguments: Vec<OsString> = ["-machine", machine, "-m", "128M"].map(OsString::from).into();
    arguments.extend(more.iter().map(OsString::from));
    // What semihosting gives a program for its command line.
    let words = match options.name {
        Example::Mistakes => options.append.clone(),
        _ => options.rounds.to_string(),
    };
    arguments.extend(["-append".into(), words.into()]);
    arguments.extend(["-kernel".into(), elf.into()]);
    arguments
}

/// Builds an example. Returns its ELF.
pub fn built(workspace: &Workspace, package: &str) -> Result<PathBuf> {
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

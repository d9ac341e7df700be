//! `cargo xtask boot`: builds the kernel, starts it in QEMU and reports whether it reached its
//! goal.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::append::Append;
use crate::granule::Granule;
use crate::handover::{Files, Handover, PayloadKind};
use crate::input_file::{self, FileError, InputFile};
use crate::machine::{ExceptionLevel, GicVersion, Machine};
use crate::packing::Packing;
use crate::qemu::{self, Hardware, Keyboard, Qemu};
use crate::run::{self, Afterwards, Ending};
use crate::script::Script;
use crate::setup::{self, Wanted, payload};
use crate::size::MemorySize;
use crate::usage::UsageError;
use crate::verdict::{Goal, Watch};
use crate::workspace::Workspace;
use crate::{build, initramfs};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// For `boot --help`.
pub const EXIT_CODES: &str = "\
Exit code:
  0  the run reached its goal: Linux's user space; a power-off by the payload, with --initrd; all
     commands of the script; the last of linmap's own generations
  1  it did not, or took too long; the last lines of the console are shown
  2  an option is wrong";

/// The options of `boot`.
#[derive(Debug, clap::Args)]
pub struct BootArgs {
    /// RAM: a number and M, G or T; may exceed the host's [default: 4G; 2G on raspi4b and
    /// xlnx-zcu102]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// How many CPUs [default: the machine's own number; 1 on virt]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    cpus: Option<u32>,
    /// QEMU's CPU type [default: max on virt]
    #[arg(long, value_name = "TYPE")]
    cpu: Option<String>,
    /// The granule that linmap is built for
    #[arg(long, value_enum, default_value = "4k", value_name = "SIZE")]
    granule: Granule,
    /// Bits of virtual address: 39, 48 or 52 with 4k; 36, 47, 48 or 52 with 16k; 42, 48 or 52 with
    /// 64k. 48 where the CPU lacks 52 [default: 48; 47 with 16k]
    #[arg(long, value_name = "N")]
    va_bits: Option<u8>,
    /// The exception level to be entered at [default: 1 on virt and xlnx-zcu102]
    #[arg(long, value_name = "1|2", value_parser = exception_level)]
    el: Option<ExceptionLevel>,
    /// The interrupt controller's version, on virt [default: 2; 3 for more than 8 CPUs]
    #[arg(long, value_name = "2|3", value_parser = gic_version)]
    gic: Option<GicVersion>,
    /// Memory has allocation tags (MTE), on virt with a CPU that has FEAT_MTE2; linmap.mte=on uses
    /// them
    #[arg(long)]
    mte: bool,
    /// QEMU's machine
    #[arg(long, value_enum, default_value = "virt", value_name = "NAME")]
    machine: Machine,
    /// Boot this device tree, with only /chosen changed, instead of QEMU's own
    #[arg(long, value_name = "FILE")]
    dtb: Option<PathBuf>,
    /// More words for the command line: linmap.* are for linmap, the rest for the payload
    #[arg(
        long,
        value_name = "STR",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append: Append,
    /// Stop in linmap's own shell. Without a terminal it reads commands from standard input, then
    /// powers off
    #[arg(long, conflicts_with = "script")]
    shell: bool,
    /// Run these commands in linmap's shell, then power off
    #[arg(long, value_name = "CMD; CMD")]
    script: Option<Script>,
    /// What to hand over to [default: linux; none for a script without kexec]
    #[arg(long, value_enum)]
    payload: Option<PayloadKind>,
    /// An arm64 Image to hand over to instead of Debian's
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// How the payload's kernel is packed
    #[arg(long, value_enum, default_value = "raw", value_name = "HOW")]
    packing: Packing,
    /// An initramfs for the payload instead of BusyBox. The run then succeeds when the payload
    /// powers the machine off. With --payload self it is only passed on
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// How far Linux must get [default: user-space]
    #[arg(long, value_enum, value_name = "WHERE")]
    until: Option<Milestone>,
    /// Let the virtual counter count instructions: every run takes the same number of ticks
    #[arg(long)]
    icount: bool,
    /// Write every `linmap: ` line to this file, as a JSON array of objects
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Give up after this many seconds [default: 120; never on a terminal]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
}

/// How far Linux gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Milestone {
    /// It prints its first line, and the machine is stopped
    FirstLine,
    /// Its user space runs
    UserSpace,
}

fn exception_level(text: &str) -> Result<ExceptionLevel, String> {
    match text {
        "1" => Ok(ExceptionLevel::El1),
        "2" => Ok(ExceptionLevel::El2),
        _ => Err("kernels are entered at 1 or 2".into()),
    }
}

fn gic_version(text: &str) -> Result<GicVersion, String> {
    match text {
        "2" => Ok(GicVersion::V2),
        "3" => Ok(GicVersion::V3),
        _ => Err("linmap knows GICv2 and GICv3".into()),
    }
}

/// `cargo xtask boot`.
pub fn run(workspace: &Workspace, arguments: &BootArgs) -> Result<ExitCode> {
    let payload = payload_kind(arguments)?;
    check_machine(arguments)?;
    check_va_bits(arguments)?;
    let memory = arguments.memory.unwrap_or(arguments.machine.default_memory());
    let users = UsersFiles::open(arguments, memory).map_err(|error| UsageError(error.to_string()))?;
    write_records(arguments, &[]).map_err(|error| UsageError(format!("--json: {error:#}")))?;

    let own_kernel = arguments.kernel.is_some();
    let line = payload.line().filter(|_| !own_kernel);
    let busybox = payload.is_linux() && arguments.initrd.is_none();
    let tools = if busybox { payload::Tools::BusyBox } else { payload::Tools::None };
    setup::announce(workspace, &Wanted { qemu: setup::FOR_BOOT, lines: line.as_slice(), tools })?;
    setup::ensure_qemu(workspace, setup::FOR_BOOT)?;
    let toolchain = setup::toolchain::ensure(workspace)?;
    let interactive = std::io::stdin().is_terminal() && arguments.script.is_none();
    let handover = Handover {
        payload,
        payload_kernel: payload_kernel(workspace, users.kernel.as_ref(), payload)?,
        packing: arguments.packing,
        payload_initrd: payload_initrd(workspace, users.initrd.as_ref(), payload)?,
        script: arguments.script.as_ref().map(|script| script.text().to_owned()),
        shell: arguments.shell,
        icount: arguments.icount,
        power_off: !interactive,
        va_bits: arguments.va_bits,
        append: arguments.append.text().to_owned(),
    };
    let kernel = build::kernel(workspace, &toolchain, arguments.granule)?;

    let hardware = Hardware {
        machine: arguments.machine,
        memory,
        cpus: arguments.cpus,
        cpu: arguments.cpu.clone(),
        exception_level: arguments.el,
        gic: arguments.gic,
        mte: arguments.mte,
        icount: arguments.icount,
    };
    let image = kernel.image.with_command_line(arguments.machine.early_console())?;
    let tree = users.tree.as_ref().map(InputFile::read).transpose()?;
    let files = Files::new(workspace)?;
    let load = handover.load(&files, &hardware, &image, tree.as_deref())?;

    let goal = goal(arguments, payload);
    let keyboard = match (interactive, goal) {
        (true, _) => Keyboard::Terminal,
        (false, Goal::Shell) => Keyboard::Pipe,
        (false, _) => Keyboard::Nobody,
    };
    let timeout = match arguments.timeout {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None if interactive => None,
        None => Some(DEFAULT_TIMEOUT),
    };
    let mut qemu = Qemu::start(&qemu::arguments(&hardware, &load, keyboard), keyboard)?;
    let mut watch = Watch::new(goal);
    let afterwards = match goal {
        Goal::FirstLine | Goal::Xen => Afterwards::Stops,
        _ if !arguments.machine.powers_off() => Afterwards::Prints,
        Goal::Done | Goal::Script => Afterwards::Halts,
        _ => Afterwards::PowersOff,
    };
    let ending = run::follow(&mut qemu, &mut watch, keyboard, timeout, afterwards);
    drop(qemu);
    write_records(arguments, watch.records())?;
    match ending? {
        Ending::Reached => Ok(ExitCode::SUCCESS),
        Ending::Interrupted => Ok(ExitCode::from(130)),
        Ending::Failed { why, last_lines } => {
            eprintln!("error: boot failed: {why}");
            if !last_lines.is_empty() {
                eprintln!("the last lines of the console:");
            }
            last_lines.iter().for_each(|line| eprintln!("  {line}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The files that the user's options name, open.
struct UsersFiles {
    tree: Option<InputFile>,
    kernel: Option<InputFile>,
    initrd: Option<InputFile>,
}

impl UsersFiles {
    /// What a device tree may have at most (booting.rst).
    const TREE_MAX: u64 = 2 << 20;

    fn open(arguments: &BootArgs, memory: MemorySize) -> Result<Self, FileError> {
        // Kernel and initrd lie in memory, in an archive whose members' sizes have 32 bits.
        let payload_max = memory.bytes().min(u32::MAX.into());
        let open = |option, path: &Option<PathBuf>, limit| {
            path.as_deref().map(|path| InputFile::open(option, path, limit)).transpose()
        };
        if let Some(file) = &arguments.json {
            input_file::check_output("--json", file)?;
        }
        Ok(Self {
            tree: open("--dtb", &arguments.dtb, Self::TREE_MAX)?,
            kernel: open("--kernel", &arguments.kernel, payload_max)?,
            initrd: open("--initrd", &arguments.initrd, payload_max)?,
        })
    }
}

fn payload_kind(arguments: &BootArgs) -> Result<PayloadKind, UsageError> {
    let runs_kexec = arguments.script.as_ref().is_none_or(Script::needs_payload);
    let own_files = arguments.kernel.is_some() || arguments.initrd.is_some();
    let takes_none = match arguments.payload {
        Some(PayloadKind::ItSelf) => arguments.kernel.is_some(),
        Some(kind) => own_files && kind.line().is_none(),
        None => false,
    };
    let kind = match arguments.payload {
        Some(kind) if takes_none => {
            return Err(UsageError(format!(
                "--kernel and --initrd are files of a Linux payload; this is --payload {kind}"
            )));
        }
        Some(kind) => kind,
        None if runs_kexec || own_files => PayloadKind::Linux,
        None => PayloadKind::None,
    };
    if !kind.is_linux() && arguments.until.is_some() {
        return Err(UsageError(format!("--until is for a Linux payload; this is --payload {kind}")));
    }
    if kind == PayloadKind::None && arguments.packing != Packing::Raw {
        return Err(UsageError("--packing is for a payload's kernel; there is no payload".into()));
    }
    Ok(kind)
}

fn goal(arguments: &BootArgs, payload: PayloadKind) -> Goal {
    let own_user_space = arguments.initrd.is_some();
    match (&arguments.script, payload) {
        _ if arguments.shell => Goal::Shell,
        (Some(script), _) if !script.enters_payload() => Goal::Script,
        (_, PayloadKind::ItSelf | PayloadKind::None) => Goal::Done,
        (_, PayloadKind::Xen) => Goal::Xen,
        _ if arguments.until == Some(Milestone::FirstLine) => Goal::FirstLine,
        _ if own_user_space => Goal::PowerOff,
        _ => Goal::Userspace,
    }
}

/// Refuses options that QEMU would ignore silently, and a machine for which it makes no device
/// tree.
fn check_machine(arguments: &BootArgs) -> Result<(), UsageError> {
    let machine = arguments.machine;
    let name = machine.name();
    if !machine.generates_device_tree() && arguments.dtb.is_none() {
        return Err(UsageError(format!("QEMU makes no device tree for {name}: give one with --dtb FILE")));
    }
    if let (Some(level), Some(only)) = (arguments.el, machine.only_exception_level())
        && level != only
    {
        return Err(UsageError(format!("{name} enters kernels at EL2 only")));
    }
    if let (Some(cpu), Some(only)) = (&arguments.cpu, machine.only_cpu())
        && cpu != only
    {
        return Err(UsageError(format!("{name} has CPUs of type {only} only")));
    }
    if let (Some(cpus), Some(only)) = (arguments.cpus, machine.only_cpus())
        && cpus != only
    {
        return Err(UsageError(format!("{name} always has {only} CPUs")));
    }
    if arguments.gic.is_some() && machine != Machine::Virt {
        return Err(UsageError(format!("{name} has an interrupt controller of its own: no --gic")));
    }
    if arguments.mte && machine != Machine::Virt {
        return Err(UsageError(format!("{name} has no memory with allocation tags: no --mte")));
    }
    if let (Some(GicVersion::V2), Some(cpus)) = (arguments.gic, arguments.cpus)
        && cpus > GicVersion::V2_CPUS
    {
        return Err(UsageError(format!("a GICv2 is for at most {} CPUs", GicVersion::V2_CPUS)));
    }
    Ok(())
}

/// Refuses a VA size that linmap does not use with the granule.
fn check_va_bits(arguments: &BootArgs) -> Result<(), UsageError> {
    let sizes = arguments.granule.va_sizes();
    match arguments.va_bits {
        Some(bits) if !sizes.contains(&bits) => {
            let sizes: Vec<String> = sizes.iter().map(u8::to_string).collect();
            Err(UsageError(format!("--va-bits is one of {} with this granule", sizes.join(", "))))
        }
        _ => Ok(()),
    }
}

fn payload_kernel(
    workspace: &Workspace,
    own: Option<&InputFile>,
    kind: PayloadKind,
) -> Result<Option<Vec<u8>>> {
    let Some(line) = kind.line() else { return Ok(None) };
    if let Some(own) = own {
        return Ok(Some(own.read()?));
    }
    let path = payload::linux(workspace, line)?.path;
    Ok(Some(std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?))
}

fn payload_initrd(
    workspace: &Workspace,
    own: Option<&InputFile>,
    kind: PayloadKind,
) -> Result<Option<Vec<u8>>> {
    if let Some(own) = own {
        return Ok(Some(own.read()?));
    }
    if !kind.is_linux() {
        return Ok(None);
    }
    let busybox = payload::busybox(workspace)?.path;
    let busybox = std::fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?;
    Ok(Some(initramfs::build(&busybox)?))
}

fn write_records(arguments: &BootArgs, records: &[crate::record::Record]) -> Result<()> {
    let Some(file) = &arguments.json else { return Ok(()) };
    let lines: Vec<_> =
        records.iter().map(|record| format!("\n  {}", Value::Object(record.clone()))).collect();
    std::fs::write(file, format!("[{}\n]\n", lines.join(",")))
        .with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        boot: BootArgs,
    }

    fn arguments(words: &[&str]) -> BootArgs {
        Line::try_parse_from(std::iter::once("boot").chain(words.iter().copied())).unwrap().boot
    }

    fn aims_at(words: &[&str]) -> (PayloadKind, Goal) {
        let arguments = arguments(words);
        let payload = payload_kind(&arguments).unwrap();
        (payload, goal(&arguments, payload))
    }

    #[test]
    fn what_a_run_shall_reach_follows_from_the_options() {
        assert_eq!(aims_at(&[]), (PayloadKind::Linux, Goal::Userspace));
        assert_eq!(aims_at(&["--payload", "linux-6.1"]), (PayloadKind::Linux6_1, Goal::Userspace));
        for newer in [PayloadKind::Linux6_18, PayloadKind::LinuxNewest, PayloadKind::Linux16K] {
            let name = clap::ValueEnum::to_possible_value(&newer).unwrap();
            assert_eq!(aims_at(&["--payload", name.get_name()]), (newer, Goal::Userspace));
        }
        assert_eq!(aims_at(&["--payload", "self"]), (PayloadKind::ItSelf, Goal::Done));
        assert_eq!(aims_at(&["--payload", "self", "--initrd", "x"]), (PayloadKind::ItSelf, Goal::Done));
        assert_eq!(aims_at(&["--payload", "none"]), (PayloadKind::None, Goal::Done));
        assert_eq!(aims_at(&["--initrd", "x"]), (PayloadKind::Linux, Goal::PowerOff));
        assert_eq!(aims_at(&["--kernel", "x"]), (PayloadKind::Linux, Goal::Userspace));
        assert_eq!(aims_at(&["--shell"]), (PayloadKind::Linux, Goal::Shell));
        assert_eq!(aims_at(&["--until", "first-line"]), (PayloadKind::Linux, Goal::FirstLine));
        assert_eq!(aims_at(&["--until", "user-space"]), (PayloadKind::Linux, Goal::Userspace));
        assert_eq!(aims_at(&["--payload", "xen"]), (PayloadKind::Xen, Goal::Xen));
    }

    #[test]
    fn a_script_needs_a_payload_only_if_it_runs_kexec() {
        assert_eq!(aims_at(&["--script", "mem; verify"]), (PayloadKind::None, Goal::Script));
        assert_eq!(aims_at(&["--script", "mem;kexec"]), (PayloadKind::Linux, Goal::Userspace));
        assert_eq!(aims_at(&["--script", "kexec\n", "--payload", "self"]), (PayloadKind::ItSelf, Goal::Done));
        assert_eq!(aims_at(&["--script", "mem", "--payload", "linux"]), (PayloadKind::Linux, Goal::Script));
        assert_eq!(aims_at(&["--script", "kexec load; kexec plan"]), (PayloadKind::Linux, Goal::Script));
        assert_eq!(
            aims_at(&["--script", "kexec load --verify; kexec exec --verify"]),
            (PayloadKind::Linux, Goal::Userspace)
        );
        assert_eq!(aims_at(&["--script", "help kexec"]), (PayloadKind::None, Goal::Script));
    }

    #[test]
    fn wrong_options_are_refused() {
        let refused: [&[&str]; 13] = [
            &["--el", "3"],
            &["--gic", "4"],
            &["--memory", "4"],
            &["--cpus", "0"],
            &["--timeout", "0"],
            &["--script", " ; "],
            &["--script", "mem", "--shell"],
            &["--machine", "virtual"],
            &["--payload", "windows"],
            &["--packing", "xz"],
            &["extra"],
            &["--append", "quiet linmap.generation=5"],
            &["--script", "poweroff; mem"],
        ];
        for words in refused {
            assert!(Line::try_parse_from(std::iter::once(&"boot").chain(words)).is_err(), "{words:?}");
        }
        assert!(payload_kind(&arguments(&["--payload", "self", "--kernel", "x"])).is_err());
        assert!(payload_kind(&arguments(&["--payload", "none", "--initrd", "x"])).is_err());
        assert!(payload_kind(&arguments(&["--payload", "none", "--packing", "gzip"])).is_err());
        assert!(payload_kind(&arguments(&["--script", "mem", "--packing", "raw"])).is_ok());
        for payload in ["self", "xen"] {
            assert!(payload_kind(&arguments(&["--payload", payload, "--until", "first-line"])).is_err());
        }
    }

    #[test]
    fn what_a_machine_can_not_do_is_refused_before_qemu_ignores_it() {
        let refused = |words: &[&str]| check_machine(&arguments(words)).is_err();
        assert!(refused(&["--machine", "raspi4b"]));
        assert!(refused(&["--machine", "xlnx-zcu102"]));
        assert!(refused(&["--machine", "xlnx-versal-virt", "--el", "1"]));
        assert!(refused(&["--machine", "xlnx-versal-virt", "--cpu", "max"]));
        assert!(refused(&["--machine", "xlnx-versal-virt", "--cpus", "1"]));
        assert!(refused(&["--machine", "xlnx-versal-virt", "--gic", "3"]));
        assert!(refused(&["--machine", "xlnx-versal-virt", "--mte"]));
        assert!(refused(&["--gic", "2", "--cpus", "9"]));
        assert!(!refused(&["--gic", "3", "--cpus", "9"]));
        assert!(!refused(&[
            "--machine",
            "xlnx-versal-virt",
            "--el",
            "2",
            "--cpus",
            "2",
            "--cpu",
            "cortex-a72"
        ]));
        assert!(!refused(&["--machine", "raspi4b", "--dtb", "x"]));
        assert!(!refused(&["--cpu", "neoverse-n1", "--el", "1", "--cpus", "12"]));
    }

    #[test]
    fn a_va_size_belongs_to_its_granule() {
        let check = |words: &[&str]| check_va_bits(&arguments(words));
        for (granule, sizes) in
            [("4k", [39, 48, 52].as_slice()), ("16k", &[36, 47, 48, 52]), ("64k", &[42, 48, 52])]
        {
            for bits in 30..=56 {
                let size = bits.to_string();
                let checked = check(&["--granule", granule, "--va-bits", &size]);
                assert_eq!(checked.is_ok(), sizes.contains(&bits), "{granule} {bits}");
            }
        }
        assert!(check(&[]).is_ok());
    }

    #[test]
    fn words_of_the_command_line_may_begin_with_a_hyphen() {
        assert_eq!(
            arguments(&["--append", "-- -x linmap.leaf=page"]).append.text(),
            "-- -x linmap.leaf=page"
        );
    }
}

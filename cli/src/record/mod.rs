//! `linmap record`: records what an unmodified guest of QEMU does to its tables, and judges it.
//!
//! The user's QEMU is started with the plugin `linmap-record` and with memory in a file that the
//! plugin maps. QEMU waits until it has told by QMP where RAM lies. The plugin sends the trace
//! through a socket while the guest runs.

mod command_line;
mod kernel;
mod layout;
mod monitor;
mod process;
mod tee;
mod used_ram;
mod version;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::error::ErrorKind;

use crate::check::{self, Judging};
use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;
use command_line::CommandLine;
use process::Qemu;
use tee::Tee;

/// Examples of `linmap record`.
pub const HELP: &str = "\
QEMU is started as given, with what the recorder needs added: the plugin, memory in a shared file, \
and one thread for all CPUs. QEMU 10 or 11 is needed.

Examples:
  linmap record --check -- qemu-system-aarch64 -machine virt -cpu cortex-a72 -m 1G -nic none \\
      -nographic -no-reboot -kernel Image -append 'panic=-1 console=ttyAMA0'
  linmap record --out boot.trace -- qemu-system-aarch64 -machine virt -cpu cortex-a72 -m 1G \\
      -nic none -nographic -no-reboot -kernel Image -append 'panic=-1 console=ttyAMA0'
  linmap check --all boot.trace

Exit codes: 0 recorded, and legal if it was judged; 1 illegal; 2 it could not be recorded.";

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("wanted").args(["check", "out"]).required(true).multiple(true)))]
pub struct RecordArgs {
    /// Write the trace to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Judge the trace while the guest runs
    #[arg(long)]
    check: bool,
    /// Continue after a violation, and count all by rule and place
    #[arg(long, requires = "check")]
    all: bool,
    /// Refuse what kernels rely on beyond the architecture's text: ARCHITECTURE.md lists it
    #[arg(long, requires = "check")]
    strict: bool,
    /// Print JSON
    #[arg(long, requires = "check")]
    json: bool,
    /// Name the instructions by this ELF file, System.map or Image [default: what -kernel names]
    #[arg(long, value_name = "FILE", requires = "check")]
    symbols: Option<PathBuf>,
    /// Where the kernel's first byte lies when it runs: needed where it is not found by its
    /// instructions, as with a System.map
    #[arg(long, value_name = "ADDR", requires = "symbols", value_parser = check::parse_address)]
    symbols_base: Vec<u64>,
    /// Fill RAM before the guest starts with what walks take for descriptors, as if another system
    /// had used it: a table that is linked before it is cleared shows. Takes as much memory as the
    /// guest has
    #[arg(long)]
    used_ram: bool,
    /// The recorder's plugin [default: beside this program, or in ../lib]
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// QEMU's command line, behind `--`
    #[arg(last = true, required = true, value_name = "QEMU")]
    qemu: Vec<OsString>,
}

/// Whether `error` says that a command line of `linmap record` has QEMU's without `--` before it.
pub fn lacks_dashes(error: &clap::Error, mut words: impl Iterator<Item = OsString>) -> bool {
    let is_record = words.by_ref().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    error.kind() == ErrorKind::UnknownArgument
        && is_record.is_some_and(|word| word == "record")
        && words.all(|word| word != "--")
        && error.to_string().contains("qemu")
}

/// What to do about that.
pub fn without_dashes() -> Failure {
    Failure::new("QEMU's command line has no `--` before it")
        .hint("write linmap record --check -- qemu-system-aarch64 …")
}

/// The plugin's file.
const PLUGIN: &str = "liblinmap_record.so";

/// `linmap record`.
pub fn run(arguments: &RecordArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let plugin = plugin(arguments.plugin.as_deref())?;
    let line = CommandLine::of(&arguments.qemu)?;
    let symbols =
        if arguments.check { kernel::symbols(arguments.symbols.as_deref(), &arguments.qemu)? } else { None };
    let interface = version::interface(&line.program)?;
    let out = arguments.out.as_ref().map(|path| {
        File::create(path)
            .map(|file| (path.clone(), file))
            .map_err(|error| Failure::from(error).of(path.display()))
    });
    let out = out.transpose()?;
    let folder = Folder::new()?;
    let place = |name: &str| folder.0.join(name);
    let (trace, control) = (place("trace"), place("control"));
    let listener = UnixListener::bind(&trace)?;
    listener.set_nonblocking(true)?;
    let mut command = Command::new(&line.program);
    command.args(line.with(&plugin, &folder.0)).env(version::INTERFACE, interface.to_string());
    let mut qemu = Qemu::start(&mut command)?;
    let stream = qemu.accept(&listener)?;
    qemu.connect(&control)?;
    let layout = qemu.asked(|monitor| monitor.human("info mtree -f"))?;
    fs::write(place("layout"), layout::of(&layout)?)?;
    if arguments.used_ram {
        used_ram::fill(&place("memory"))
            .map_err(|error| Failure::from(error).of("filling the guest's RAM"))?;
    }
    // A guest may end before QEMU has answered: the trace says what it did.
    if !line.is_stopped
        && let Err(error) = qemu.asked(|monitor| monitor.run("cont"))
        && !qemu.ends()?
    {
        return Err(error);
    }
    let mut bytes = Tee::new(stream, out);
    let outcome = if arguments.check {
        let judging = Judging {
            name: "the guest",
            all: arguments.all,
            leniency: check::leniency(arguments.strict),
            json: arguments.json,
            has_progress: !kernel::has_terminal(&arguments.qemu),
            symbols,
            symbols_base: &arguments.symbols_base,
        };
        check::live(judging, Box::new(bytes.reader()?), output)
    } else {
        Ok(Outcome::Good)
    };
    let is_wanted = bytes.has_file() || outcome.is_err();
    if !is_wanted && matches!(outcome, Ok(Outcome::Bad)) && !arguments.all {
        // The first violation is all that is wanted.
        let _ = qemu.asked(|monitor| monitor.run("quit"));
    }
    bytes.drain()?;
    let status = qemu.wait()?;
    if bytes.is_empty() {
        return Err(process::recorded_nothing(status));
    }
    if process::was_interrupted() {
        output.line(format_args!("note: interrupted: the guest was ended"))?;
    } else if status.signal().is_some() && !matches!(outcome, Ok(Outcome::Bad)) {
        return Err(Failure::new(format_args!("QEMU ended with {status}"))
            .hint("what the guest did last is not in the trace"));
    } else if !status.success() {
        output.line(format_args!("note: QEMU ended with {status}"))?;
    }
    outcome
}

/// The plugin's file: the one that is given, or the one that was installed with this program.
fn plugin(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let found = match given {
        Some(path) => Some(path.to_owned()),
        None => {
            let program = std::env::current_exe()?;
            let folder = program.parent().unwrap_or(Path::new("."));
            let places = [folder.join(PLUGIN), folder.join("../lib").join(PLUGIN)];
            places.into_iter().find(|path| path.is_file())
        }
    };
    let missing = || {
        Failure::new(format_args!("the plugin {PLUGIN} is not beside this program"))
            .hint("`cargo xtask install` installs it; or give --plugin FILE")
    };
    let path = found.ok_or_else(missing)?;
    // QEMU would take a name without a folder for one of the system's libraries.
    fs::canonicalize(&path).map_err(|error| Failure::from(error).of(path.display()))
}

/// A folder for sockets and memory, which is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        // Memory as large as the guest's: not in a /tmp on disk, if it can be helped.
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        for nth in 0..1000 {
            let path = parent.join(format!("linmap-record-{}-{nth}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::from(error).of(path.display())),
            }
        }
        Err(Failure::new(format_args!("{}: no name is free for a folder", parent.display())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! QEMU's command line, and the running QEMU.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::machine::{Entry, ExceptionLevel, GicVersion, Machine};
use crate::process;
use crate::shutdown::{Monitor, Stop};
use crate::size::MemorySize;

/// QEMU's program for arm64.
pub const PROGRAM: &str = "qemu-system-aarch64";

/// The machine that QEMU emulates.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Which of QEMU's machines.
    pub machine: Machine,
    /// How much RAM.
    pub memory: MemorySize,
    /// How many CPUs; `None` for the machine's own number.
    pub cpus: Option<u32>,
    /// The CPU type; `None` for the machine's own.
    pub cpu: Option<String>,
    /// The exception level to enter at, where the machine has a choice.
    pub exception_level: Option<ExceptionLevel>,
    /// The interrupt controller, where the machine has a choice.
    pub gic: Option<GicVersion>,
    /// Whether memory has allocation tags (FEAT_MTE2), where the machine has a choice.
    pub mte: bool,
    /// Whether the virtual counter counts instructions.
    pub icount: bool,
}

/// How the kernel comes into the machine's memory.
#[derive(Debug, Clone)]
pub enum Load {
    /// By QEMU's own arm64 boot loader, with QEMU's device tree.
    BootLoader {
        /// The Image.
        kernel: PathBuf,
        /// The archive for the initrd.
        initrd: Option<PathBuf>,
        /// /chosen/bootargs.
        command_line: String,
    },
    /// Piece by piece, then a jump to the stub.
    Pieces {
        /// What goes where.
        pieces: Vec<(PathBuf, u64)>,
        /// The few instructions that enter the Image.
        stub: PathBuf,
        /// Where they lie, if QEMU doesn't decide that.
        stub_address: u64,
    },
}

/// Who types on the machine's serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyboard {
    /// The user at the terminal, with QEMU's monitor on Ctrl-A C.
    Terminal,
    /// We do, through a pipe.
    Pipe,
    /// No one: the port's input is empty.
    Nobody,
}

/// QEMU's arguments, without the program's name.
pub fn arguments(hardware: &Hardware, load: &Load, keyboard: Keyboard) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    let memory = hardware.memory.to_string();
    // Without reserve=off the host refuses more than its own size, though nothing is touched.
    add(&["-object", &format!("memory-backend-ram,id=ram,size={memory},reserve=off")]);
    add(&["-machine", &machine_option(hardware), "-m", &memory]);
    if let Some(cpu) = hardware.cpu.as_deref().or(hardware.machine.default_cpu()) {
        add(&["-cpu", cpu]);
    }
    if let (Some(cpus), None) = (hardware.cpus, hardware.machine.only_cpus()) {
        add(&["-smp", &cpus.to_string()]);
    }
    if hardware.icount {
        add(&["-icount", "shift=0"]);
    }
    // No NIC: its option ROM is in a package that is only recommended. No reboot: a reset ends the
    // run.
    add(&["-nic", "none", "-display", "none", "-no-reboot"]);
    match keyboard {
        Keyboard::Terminal => add(&["-serial", "mon:stdio"]),
        Keyboard::Pipe | Keyboard::Nobody => {
            add(&[
                "-monitor",
                "none",
                "-chardev",
                "stdio,id=console,signal=on",
                "-serial",
                "chardev:console",
            ]);
        }
    }
    match load {
        Load::BootLoader { kernel, initrd, command_line } => {
            arguments.extend(["-kernel".into(), kernel.into()]);
            if let Some(initrd) = initrd {
                arguments.extend(["-initrd".into(), initrd.into()]);
            }
            arguments.extend(["-append".into(), command_line.into()]);
        }
        Load::Pieces { pieces, stub, stub_address } => {
            for (file, address) in pieces {
                arguments.extend(["-device".into(), loader(file, *address)]);
            }
            match hardware.machine.entry() {
                Entry::LoaderDevice => {
                    let start = format!("loader,addr={stub_address:#x},cpu-num=0");
                    arguments.extend(["-device".into(), loader(stub, *stub_address)]);
                    arguments.extend(["-device".into(), start.into()]);
                }
                Entry::StubAsKernel => arguments.extend(["-kernel".into(), stub.into()]),
            }
        }
    }
    arguments
}

fn machine_option(hardware: &Hardware) -> String {
    let mut option = format!("{},memory-backend=ram", hardware.machine.name());
    if hardware.machine == Machine::Virt {
        // Seeds in the device tree differ from run to run otherwise.
        option.push_str(",dtb-randomness=off");
        if hardware.mte {
            option.push_str(",mte=on");
        }
        let needs_v3 = hardware.cpus.is_some_and(|cpus| cpus > GicVersion::V2_CPUS);
        match hardware.gic {
            None if needs_v3 => option.push_str(",gic-version=3"),
            None => {}
            Some(GicVersion::V2) => option.push_str(",gic-version=2"),
            Some(GicVersion::V3) => option.push_str(",gic-version=3"),
        }
    }
    if hardware.machine.only_exception_level().is_none() {
        match hardware.exception_level {
            Some(ExceptionLevel::El2) => option.push_str(",virtualization=on"),
            Some(ExceptionLevel::El1) => option.push_str(",virtualization=off"),
            None => {}
        }
    }
    option
}

/// The device that loads a file to an address. A comma within a value is written twice.
pub fn loader(file: &Path, address: u64) -> OsString {
    let file = file.to_string_lossy().replace(',', ",,");
    format!("loader,file={file},addr={address:#x},force-raw=on").into()
}

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The QEMU that is run: the first on the path.
#[derive(Debug)]
pub struct FirstOnPath {
    /// Its file.
    pub path: PathBuf,
    /// Its version, or why it has none.
    pub version: Result<Version, String>,
}

/// The first QEMU on the path; `None` where there is none.
pub fn first_on_path() -> Option<FirstOnPath> {
    let folders = std::env::var_os("PATH")?;
    let path =
        std::env::split_paths(&folders).map(|folder| folder.join(PROGRAM)).find(|file| is_program(file))?;
    let version = process::capture(Command::new(&path).arg("--version"))
        .map_err(|error| format!("{error:#}"))
        .and_then(|said| parse_version(&said).ok_or_else(|| "--version names no version of QEMU".to_owned()));
    Some(FirstOnPath { path, version })
}

/// Whether exec(3) would take this file.
fn is_program(file: &Path) -> bool {
    std::fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn parse_version(said: &str) -> Option<Version> {
    let number = said.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some(Version { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? })
}

/// A running QEMU. Dropping it kills QEMU and restores the terminal.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    console: Receiver<Vec<u8>>,
    stderr: Option<JoinHandle<String>>,
    stop: Option<JoinHandle<Option<Stop>>>,
    terminal: Option<Termios>,
}

impl Qemu {
    /// Starts QEMU. Its serial port's output is what [`Qemu::console`] gives.
    pub fn start(arguments: &[OsString], keyboard: Keyboard) -> Result<Self> {
        let terminal = match keyboard {
            Keyboard::Terminal => tcgetattr(std::io::stdin()).ok(),
            Keyboard::Pipe | Keyboard::Nobody => None,
        };
        let monitor = Monitor::new()?;
        let mut command = dying_with_us();
        command.args(arguments).args(monitor.arguments()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(match keyboard {
            Keyboard::Terminal => Stdio::inherit(),
            Keyboard::Pipe => Stdio::piped(),
            Keyboard::Nobody => Stdio::null(),
        });
        let mut child = command.spawn().with_context(|| format!("starting {PROGRAM}"))?;
        let stop = Some(monitor.listen());
        let (sender, console) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || forward(stdout, &sender));
        }
        let stderr = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                // What could be read before an error is still worth showing.
                let _ = stderr.read_to_end(&mut said);
                String::from_utf8_lossy(&said).into_owned()
            })
        });
        Ok(Self { child, console, stderr, stop, terminal })
    }

    /// Pieces of the serial port's output, in order. Closed when QEMU ends.
    pub fn console(&self) -> &Receiver<Vec<u8>> {
        &self.console
    }

    /// The serial port's input, once, where we are the keyboard.
    pub fn keyboard(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until QEMU has ended.
    pub fn ended(&mut self) -> Result<Ended> {
        let status = self.child.wait().context("waiting for QEMU")?;
        let said = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let stop = self.stop.take().and_then(|reader| reader.join().ok()).flatten();
        Ok(Ended { status, said, stop: stop.unwrap_or_else(|| Stop::Ended("no reason given".into())) })
    }
}

/// How QEMU ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it said on standard error.
    pub said: String,
    /// Why the machine stopped.
    pub stop: Stop,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when QEMU has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(before) = &self.terminal {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// QEMU under setpriv (util-linux), so that it ends even when we are killed by a signal that can't
/// be caught.
fn dying_with_us() -> Command {
    if process::succeeds(Command::new("setpriv").args(["--pdeathsig", "KILL", "true"])) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM]);
        return command;
    }
    Command::new(PROGRAM)
}

fn forward(mut from: impl Read, to: &Sender<Vec<u8>>) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.send(buffer[..length].to_vec()).is_err() {
            return;
        }
    }
}

/// Writes `text` to the machine's serial port.
pub fn type_text(keyboard: &mut ChildStdin, text: &[u8]) -> std::io::Result<()> {
    keyboard.write_all(text)?;
    keyboard.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware(machine: Machine) -> Hardware {
        Hardware {
            machine,
            memory: machine.default_memory(),
            cpus: None,
            cpu: None,
            exception_level: None,
            gic: None,
            mte: false,
            icount: false,
        }
    }

    fn boot_loader() -> Load {
        Load::BootLoader { kernel: "Image".into(), initrd: Some("a,b".into()), command_line: "x y".into() }
    }

    fn joined(hardware: &Hardware, load: &Load, keyboard: Keyboard) -> String {
        let words = arguments(hardware, load, keyboard);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn virt_boots_a_cpu_of_type_max_with_unreserved_memory() {
        assert_eq!(
            joined(&hardware(Machine::Virt), &boot_loader(), Keyboard::Nobody),
            "-object memory-backend-ram,id=ram,size=4096M,reserve=off \
             -machine virt,memory-backend=ram,dtb-randomness=off -m 4096M -cpu max \
             -nic none -display none -no-reboot -monitor none -chardev stdio,id=console,signal=on \
             -serial chardev:console -kernel Image -initrd a,b -append x y"
        );
    }

    #[test]
    fn options_become_qemus() {
        let hardware = Hardware {
            memory: "64T".parse().unwrap(),
            cpus: Some(9),
            cpu: Some("neoverse-n1".into()),
            exception_level: Some(ExceptionLevel::El2),
            icount: true,
            ..hardware(Machine::Virt)
        };
        let line = joined(&hardware, &boot_loader(), Keyboard::Terminal);
        assert!(line.contains(
            "-machine virt,memory-backend=ram,dtb-randomness=off,gic-version=3,virtualization=on "
        ));
        assert!(line.contains("-m 67108864M -cpu neoverse-n1 -smp 9 -icount shift=0 "), "{line}");
        assert!(line.contains("-serial mon:stdio -kernel"), "{line}");
    }

    #[test]
    fn eight_cpus_keep_the_machines_own_interrupt_controller() {
        let hardware = Hardware { cpus: Some(8), ..hardware(Machine::Virt) };
        assert!(!joined(&hardware, &boot_loader(), Keyboard::Nobody).contains("gic-version"));
    }

    #[test]
    fn the_interrupt_controller_that_is_asked_for_is_made() {
        for (gic, option) in [(GicVersion::V2, "gic-version=2"), (GicVersion::V3, "gic-version=3")] {
            let hardware = Hardware { cpus: Some(4), gic: Some(gic), ..hardware(Machine::Virt) };
            assert!(joined(&hardware, &boot_loader(), Keyboard::Nobody).contains(option));
        }
    }

    #[test]
    fn machines_without_a_choice_get_no_option_for_it() {
        let hardware = Hardware {
            cpus: Some(2),
            exception_level: Some(ExceptionLevel::El2),
            ..hardware(Machine::XlnxVersalVirt)
        };
        let line = joined(&hardware, &boot_loader(), Keyboard::Nobody);
        assert!(line.contains("-machine xlnx-versal-virt,memory-backend=ram -m 4096M -nic"), "{line}");
    }

    #[test]
    fn pieces_are_loaded_raw_and_entered_through_the_stub() {
        let pieces = vec![("t/Image".into(), 0x4060_0000), ("t,u/dtb".into(), 0x4080_0000)];
        let load = Load::Pieces { pieces, stub: "t/stub".into(), stub_address: 0x4040_0000 };
        let virt = joined(&hardware(Machine::Virt), &load, Keyboard::Nobody);
        assert!(virt.ends_with(
            "-device loader,file=t/Image,addr=0x40600000,force-raw=on \
             -device loader,file=t,,u/dtb,addr=0x40800000,force-raw=on \
             -device loader,file=t/stub,addr=0x40400000,force-raw=on \
             -device loader,addr=0x40400000,cpu-num=0"
        ));
        let versal = joined(&hardware(Machine::XlnxVersalVirt), &load, Keyboard::Nobody);
        assert!(versal.ends_with("addr=0x40800000,force-raw=on -kernel t/stub"), "{versal}");
    }

    #[test]
    fn versions_are_read_from_what_qemu_says() {
        let version = |said| parse_version(said).map(|version| version.to_string());
        assert_eq!(
            version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"),
            Some("10.0.2".into())
        );
        assert_eq!(version("QEMU emulator version 7.2.22\n"), Some("7.2.22".into()));
        assert_eq!(version("qemu 3"), None);
        assert!(Version { major: 10, minor: 0, patch: 0 } > Version { major: 7, minor: 2, patch: 22 });
    }
}

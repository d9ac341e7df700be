//! Boots without `cargo xtask`: QEMU started by hand, with an archive as it comes, as any boot
//! loader might.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use crate::boot::own_image_path;
use crate::loader::{loaded, stub};
use crate::tree::{RAM, Tree, file};

/// Longest that a machine may take before it has to have switched itself off.
const PATIENCE: Duration = Duration::from_secs(180);

/// A machine to be started with this initrd and command line.
#[derive(Debug)]
pub struct RawBoot<'a> {
    /// The initrd, which should be an archive.
    pub initrd: &'a [u8],
    /// The command line.
    pub command_line: &'a str,
}

impl RawBoot<'_> {
    /// The console of the machine until it switches itself off.
    ///
    /// # Panics
    /// When it does not.
    pub fn run(&self) -> String {
        self.run_on("virt,dtb-randomness=off", &["-m", "1G"], "max")
    }

    /// The console of this machine, with CPUs of this type and 256 MiB of RAM, until it switches
    /// itself off, and what its RAM holds then.
    ///
    /// # Panics
    /// When it does not.
    pub fn run_and_read_memory(&self, machine: &str, cpu: &str) -> (String, tempfile::NamedTempFile) {
        let memory = file(&[]);
        let backend =
            format!("memory-backend-file,id=ram,size=256M,share=on,mem-path={}", memory.path().display());
        let options = ["-object", &backend, "-m", "256M"];
        let console = self.run_on(&format!("{machine},memory-backend=ram"), &options, cpu);
        (console, memory)
    }

    fn run_on(&self, machine: &str, options: &[&str], cpu: &str) -> String {
        let archive = file(self.initrd);
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-M", machine]).args(options);
        qemu.arg("-kernel").arg(own_image_path()).arg("-initrd").arg(archive.path());
        qemu.args(["-append", self.command_line]);
        console(qemu, cpu)
    }
}

/// A machine of 64 GiB to be started with everything where a custom loader would load it: the
/// kernel 2 MiB above the start of RAM, the device tree 16 MiB above.
#[derive(Debug)]
pub struct PlacedBoot<'a> {
    /// The device tree, which says where the initrd is.
    pub tree: &'a Tree,
    /// The initrd.
    pub initrd: &'a [u8],
}

impl PlacedBoot<'_> {
    /// Where the device tree is.
    pub const DTB_AT: u64 = RAM + 0x100_0000;
    /// Where the kernel is, unless a test says otherwise.
    pub const IMAGE_AT: u64 = RAM + 0x20_0000;

    /// The console of the machine until it switches itself off.
    ///
    /// # Panics
    /// When it does not, or the tree names no initrd.
    pub fn run(&self) -> String {
        self.run_at(Self::IMAGE_AT, "64G", "max")
    }

    /// The console of a machine with this much memory and a CPU of this type, with the kernel at
    /// `image_at`, until it switches itself off.
    ///
    /// # Panics
    /// When it does not, or the tree names no initrd.
    pub fn run_at(&self, image_at: u64, memory: &str, cpu: &str) -> String {
        const STUB_AT: u64 = RAM + 0x180_0000;
        let (initrd_at, _) = self.tree.initrd.expect("a tree with an initrd");
        let (tree, initrd) = (self.tree.file(), file(self.initrd));
        let stub = file(&stub(Self::DTB_AT, image_at));
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-object", &format!("memory-backend-ram,id=ram,size={memory},reserve=off")]);
        qemu.args(["-M", "virt,memory-backend=ram", "-m", memory]);
        for (path, at) in [
            (own_image_path().as_path(), image_at),
            (tree.path(), Self::DTB_AT),
            (initrd.path(), initrd_at),
            (stub.path(), STUB_AT),
        ] {
            qemu.arg("-device").arg(loaded(path, at));
        }
        qemu.arg("-device").arg(format!("loader,addr={STUB_AT:#x},cpu-num=0"));
        console(qemu, cpu)
    }
}

/// A `virt` of 1 GiB with four CPUs and a GICv2. The firmware is a page of ours: it has PSCI start
/// three of the CPUs, leaves them in a spin table, and then enters the kernel.
#[derive(Debug)]
pub struct SpinTableBoot<'a> {
    /// QEMU's CPU type.
    pub cpu: &'a str,
    /// How PSCI is called, and with that the level at which the kernel is entered.
    pub conduit: Conduit,
    /// The device tree.
    pub tree: &'a [u8],
    /// The initrd, at [`INITRD_AT`](Self::INITRD_AT).
    pub initrd: &'a [u8],
    /// The word that each CPU watches, in the firmware's page after [`CODE_LEN`](Self::CODE_LEN)
    /// bytes.
    pub mailboxes: [u64; 4],
}

/// How PSCI is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// From EL1.
    Hvc,
    /// From EL2.
    Smc,
}

impl SpinTableBoot<'_> {
    /// The firmware's page, which the tree has to reserve.
    pub const FIRMWARE: u64 = RAM + 0x3ff0_0000;
    /// Bytes at the start of the page that are reserved for code; the mailboxes follow.
    pub const CODE_LEN: u64 = 0x800;
    /// Where the initrd is.
    pub const INITRD_AT: u64 = RAM + 0x1000_0000;

    /// The console of the machine until it switches itself off or resets.
    ///
    /// # Panics
    /// When it does not.
    pub fn run(&self) -> String {
        const IMAGE_AT: u64 = RAM + 0x20_0000;
        const DTB_AT: u64 = RAM + 0x100_0000;
        let (call, virtualization) = match self.conduit {
            Conduit::Hvc => (0xd400_0002, "off"),
            Conduit::Smc => (0xd400_0003, "on"),
        };
        let mut firmware = Vec::new();
        for word in [
            // x19 from 1 to 3: CPU_ON of CPU x19 at `wait` with its mailbox in x0
            0xd280_0033u32, // mov x19, #1
            0x1000_02b4,    // adr x20, table
            0xd2b8_8000,    // 0: movz x0, #0xc400, lsl #16
            0xf280_0060,    // movk x0, #3
            0xaa13_03e1,    // mov x1, x19
            0x1000_0182,    // adr x2, wait
            0xf873_7a83,    // ldr x3, [x20, x19, lsl #3]
            call,
            0x9100_0673, // add x19, x19, #1
            0xf100_127f, // cmp x19, #4
            0x54ff_ff03, // b.lo 0b
            // the kernel
            0x5800_0260, // ldr x0, table + 32
            0xaa1f_03e1, // mov x1, xzr
            0xaa1f_03e2, // mov x2, xzr
            0xaa1f_03e3, // mov x3, xzr
            0x5800_0224, // ldr x4, table + 40
            0xd61f_0080, // br x4
            // wait:
            0xf940_0004, // 0: ldr x4, [x0]
            0xb500_0064, // cbnz x4, 1f
            0xd503_205f, // wfe
            0x17ff_fffd, // b 0b
            0xd61f_0080, // 1: br x4
        ] {
            firmware.extend_from_slice(&word.to_le_bytes());
        }
        // table:
        for word in self.mailboxes.into_iter().chain([DTB_AT, IMAGE_AT]) {
            firmware.extend_from_slice(&word.to_le_bytes());
        }
        let (firmware, tree, initrd) = (file(&firmware), file(self.tree), file(self.initrd));
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.arg("-M").arg(format!("virt,gic-version=2,virtualization={virtualization}"));
        qemu.args(["-m", "1G", "-smp", "4", "-no-reboot"]);
        for (path, at) in [
            (own_image_path().as_path(), IMAGE_AT),
            (tree.path(), DTB_AT),
            (initrd.path(), Self::INITRD_AT),
            (firmware.path(), Self::FIRMWARE),
        ] {
            qemu.arg("-device").arg(loaded(path, at));
        }
        qemu.arg("-device").arg(format!("loader,addr={:#x},cpu-num=0", Self::FIRMWARE));
        console(qemu, self.cpu)
    }
}

/// Starts `qemu` with CPUs of this type and reads its console until it ends.
fn console(mut qemu: Command, cpu: &str) -> String {
    qemu.args(["-cpu", cpu, "-nographic"]);
    read_console(qemu, None)
}

/// Starts `qemu` and reads its console, the standard output, until it holds `last`.
///
/// # Panics
/// When it never does.
pub(crate) fn console_until(mut qemu: Command, last: &str) -> String {
    qemu.args(["-display", "none", "-monitor", "none"]);
    read_console(qemu, Some(last))
}

/// Starts `qemu` and reads its standard output until it holds `last`, or to its end.
fn read_console(mut qemu: Command, last: Option<&str>) -> String {
    let mut qemu = qemu
        .args(["-nic", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("QEMU starts");
    let mut stdout = qemu.stdout.take().expect("a pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        // An error ends the console as the end of the machine does.
        while let Ok(len @ 1..) = stdout.read(&mut piece)
            && sender.send(piece[..len].to_vec()).is_ok()
        {}
    });
    let started = Instant::now();
    let mut console = Vec::new();
    let text = |console: &[u8]| String::from_utf8_lossy(console).into_owned();
    let reached = loop {
        match receiver.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
            Ok(piece) => console.extend_from_slice(&piece),
            Err(RecvTimeoutError::Disconnected) => break last.is_none(),
            Err(RecvTimeoutError::Timeout) => break false,
        }
        if last.is_some_and(|last| text(&console).contains(last)) {
            break true;
        }
    };
    // It has ended, or has to.
    let _ = qemu.kill();
    let _ = qemu.wait();
    let wanted = last.unwrap_or("the machine's end");
    assert!(reached, "the console has not come to {wanted:?}: {}", text(&console));
    text(&console)
}

/// A newc cpio archive of files that anyone may execute.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in members.iter().copied().chain([("TRAILER!!!", &[][..])]) {
        let mut header = String::from("070701");
        let fields = [1, 0o100_755, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

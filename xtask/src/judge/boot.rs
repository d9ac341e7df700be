//! How QEMU boots each guest.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::options::JudgeArgs;
use super::session::Script;
use crate::archive::Archive;
use crate::granule::Granule;
use crate::handover::Files;
use crate::setup::guests::{Firmware, firmware};
use crate::setup::payload::{self, Line};
use crate::setup::toolchain;
use crate::workspace::Workspace;
use crate::{build, example, guest, initramfs, workload};

/// How a guest is booted.
pub struct Boot {
    /// QEMU's arguments.
    pub arguments: Vec<OsString>,
    /// What names its functions.
    pub symbols: Option<PathBuf>,
    /// Where its first byte lies while it runs 1:1.
    pub symbols_base: Option<u64>,
    /// What is said to it, and what it says.
    pub script: Script,
}

/// Where QEMU puts an Image on a machine whose RAM begins at 1 GiB.
const IMAGE_AT: u64 = 0x4020_0000;

/// What a boot needs to know.
struct Making<'a> {
    workspace: &'a Workspace,
    files: &'a Files,
    options: &'a JudgeArgs,
}

impl Boot {
    /// Builds and fetches what the guest needs.
    pub fn of(workspace: &Workspace, files: &Files, options: &JudgeArgs) -> Result<Self> {
        let making = Making { workspace, files, options };
        match (options.guest, options.guest.line()) {
            (Guest::Xen, _) => making.xen(),
            (Guest::Hypervisor, _) => making.hypervisor(),
            (Guest::Handover, Some(line)) => making.handover(line),
            (_, Some(line)) => making.linux(line),
            (Guest::Edk2, _) => making.edk2(),
            (Guest::UBoot, _) => making.u_boot(),
            (Guest::SecondKernel, _) => {
                making.example("second-kernel", "virt,gic-version=3", "second-kernel: bbm=")
            }
            (Guest::UserSpace, _) => making.example("user-space", "virt", "more than 10 rollovers"),
            _ => making.linmap(),
        }
    }
}

/// The words of a command line.
fn words<const N: usize>(words: [&str; N]) -> impl Iterator<Item = OsString> {
    words.map(OsString::from).into_iter()
}

impl Making<'_> {
    /// QEMU's arguments for a machine of this type with `default` memory.
    fn machine(&self, machine: &str, default: &str) -> Vec<OsString> {
        let memory = self.options.memory.map_or_else(|| default.to_owned(), |size| size.to_string());
        let mut arguments: Vec<OsString> =
            words(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]).collect();
        let el2 = if self.options.el2 { ",virtualization=on" } else { "" };
        let machine = format!("{machine}{el2}");
        arguments.extend(words(["-machine", &machine, "-cpu", &self.options.cpu, "-m", &memory]));
        arguments.extend(words(["-smp", &self.options.cpus.to_string()]));
        arguments
    }

    /// The Image of a Linux.
    fn image(&self, line: Line) -> Result<PathBuf> {
        match &self.options.kernel {
            Some(image) => Ok(image.clone()),
            None => Ok(payload::linux(self.workspace, line)?.path),
        }
    }

    /// A Linux's command line.
    fn command_line(&self) -> String {
        let options = self.options;
        let mut line = format!("console=ttyAMA0 panic=-1 linmap_times={}", options.times);
        if !options.work.is_empty() {
            line += &format!(" linmap_work={}", options.work.join(","));
        }
        format!("{line} {}", options.append)
    }

    fn linux(&self, line: Line) -> Result<Boot> {
        let image = self.image(line)?;
        let initrd = self.files.write("initrd", &workload::initrd(self.workspace, line)?)?;
        let mut arguments = self.machine("virt", "1G");
        arguments.extend(["-kernel".into(), image.clone().into(), "-initrd".into(), initrd.into()]);
        arguments.extend(["-append".into(), self.command_line().into()]);
        if let Some(of) = self.options.firmware {
            arguments.extend(["-bios".into(), firmware(self.workspace, of)?.path.into()]);
        }
        // Firmware puts it where it likes.
        let symbols_base = self.options.firmware.is_none().then_some(IMAGE_AT);
        let script = Script::ends_with(initramfs::USERSPACE_LINE);
        Ok(Boot { arguments, symbols: Some(image), symbols_base, script })
    }

    /// Linux is entered where our kernel has put it, so that its functions are found by the trace.
    fn handover(&self, line: Line) -> Result<Boot> {
        let Self { workspace, files, .. } = self;
        let kernel = build::kernel(workspace, &toolchain::ensure(workspace)?, Granule::K4)?;
        let image = self.image(line)?;
        let payload = std::fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
        let mut archive = Archive::default();
        archive.file("cmdline", self.command_line().as_bytes())?;
        archive.file("script", b"kexec load --scattered; kexec exec")?;
        archive.file_on_a_page("Image", &payload)?;
        archive.file_on_a_page("initrd", &workload::initrd(workspace, line)?)?;
        let initrd = files.write("initrd", &archive.finish()?)?;
        let mut arguments = self.machine("virt", "1G");
        arguments.extend(["-kernel".into(), kernel.image_path.into(), "-initrd".into(), initrd.into()]);
        arguments.extend(words(["-append", "linmap.payload=linux"]));
        let script = Script::ends_with(initramfs::USERSPACE_LINE);
        Ok(Boot { arguments, symbols: Some(image), symbols_base: None, script })
    }

    fn linmap(&self) -> Result<Boot> {
        let Self { workspace, files, options } = self;
        let kernel = build::kernel(workspace, &toolchain::ensure(workspace)?, Granule::K4)?;
        let mut archive = Archive::default();
        archive.file("script", format!("stress {} 1; verify", 200 * options.times).as_bytes())?;
        let initrd = files.write("initrd", &archive.finish()?)?;
        let mut arguments = self.machine("virt", "1G");
        let line = format!("linmap.payload=none {}", options.append);
        arguments.extend(["-kernel".into(), kernel.image_path.into(), "-initrd".into(), initrd.into()]);
        arguments.extend(["-append".into(), line.into()]);
        let script = Script::ends_with("script=ok");
        Ok(Boot { arguments, symbols: Some(kernel.elf_path), symbols_base: Some(IMAGE_AT), script })
    }

    fn xen(&self) -> Result<Boot> {
        let image = payload::linux(self.workspace, Line::Xen)?.path;
        let mut arguments = self.machine("virt,virtualization=on,gic-version=3", "1G");
        arguments.extend([
            "-kernel".into(),
            image.into(),
            "-append".into(),
            self.options.append.clone().into(),
        ]);
        // It has no kernel to start, and reboots when all of its own tables are made.
        let script = Script::ends_with("Panic on CPU 0");
        Ok(Boot { arguments, symbols: None, symbols_base: None, script })
    }

    /// A file for its shell ends it, from a disk that is a folder.
    fn edk2(&self) -> Result<Boot> {
        let firmware = firmware(self.workspace, Firmware::Edk2)?.path;
        let disk = self.files.folder("disk")?;
        std::fs::write(disk.join("startup.nsh"), "memmap\r\nreset -s\r\n")?;
        let mut arguments = self.machine("virt", "1G");
        arguments.extend(["-bios".into(), firmware.into(), "-drive".into()]);
        arguments.push(format!("if=virtio,format=raw,readonly=on,file=fat:{}", disk.display()).into());
        let script = Script::ends_with("Total Memory:");
        Ok(Boot { arguments, symbols: None, symbols_base: None, script })
    }

    fn u_boot(&self) -> Result<Boot> {
        let firmware = firmware(self.workspace, Firmware::UBoot)?.path;
        let mut arguments = self.machine("virt", "1G");
        arguments.extend(["-bios".into(), firmware.into()]);
        let script = Script { goal: "=> ", typed: Some(("=> ", "poweroff\r")) };
        Ok(Boot { arguments, symbols: None, symbols_base: None, script })
    }

    fn example(&self, name: &str, machine: &str, goal: &'static str) -> Result<Boot> {
        let elf = example::built(self.workspace, name)?;
        let mut arguments = self.machine(machine, "128M");
        arguments.extend(words(["-semihosting", "-append", &self.options.times.to_string(), "-kernel"]));
        arguments.push(elf.clone().into());
        let script = Script::ends_with(goal);
        Ok(Boot { arguments, symbols: Some(elf), symbols_base: None, script })
    }

    fn hypervisor(&self) -> Result<Boot> {
        let elf = example::built(self.workspace, "hypervisor")?;
        let options = self.options;
        let mut arguments: Vec<OsString> =
            words(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot", "-semihosting"])
                .chain(words(["-cpu", &options.cpu]))
                .collect();
        let line = &options.append;
        arguments.extend(guest::arguments(self.workspace, self.files, Some(&elf), options.times, line)?);
        let script = Script::ends_with(initramfs::USERSPACE_LINE);
        Ok(Boot { arguments, symbols: Some(elf), symbols_base: None, script })
    }
}

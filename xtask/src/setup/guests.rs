//! What `judge` boots beside the payloads: firmware, and the modules of Debian's kernels.

use anyhow::{Context, Result};

use super::payload::{self, CachedFile, Content, Line, Payload};
use super::{modules, payload::fetch};
use crate::workspace::Workspace;

/// Firmware for QEMU's `virt` machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Firmware {
    /// EDK2, which is UEFI.
    Edk2,
    /// U-Boot.
    UBoot,
}

impl Firmware {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Edk2, Self::UBoot];

    const fn file(self) -> CachedFile<'static> {
        let (name, file, member) = match self {
            Self::Edk2 => ("edk2", "QEMU_EFI.fd", "*/qemu-efi-aarch64/QEMU_EFI.fd"),
            Self::UBoot => ("u-boot", "u-boot.bin", "*/qemu_arm64/u-boot.bin"),
        };
        CachedFile { name, of: name, file, content: Content::Member(member) }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Edk2 => "qemu-efi-aarch64",
            Self::UBoot => "u-boot-qemu",
        }
    }
}

/// The firmware's file, which is flash to QEMU.
pub fn firmware(workspace: &Workspace, firmware: Firmware) -> Result<Payload> {
    fetch(workspace, firmware.file(), None, None, |_| Ok(firmware.package().to_owned()))
        .with_context(|| format!("{} can't be downloaded", firmware.package()))
}

/// The modules of a line's kernel that the workload loads: an initramfs. They are of the package of
/// the Image, or of the one that belongs to it.
pub fn modules(workspace: &Workspace, line: Line) -> Result<Payload> {
    let image = payload::linux(workspace, line)?;
    let package = image.package.replace("linux-binary-", "linux-modules-");
    let name = format!("{}/{}", line.name(), modules::FILE);
    let file = CachedFile { name: &name, of: line.name(), file: modules::FILE, content: Content::Modules };
    fetch(workspace, file, None, Some(&package), |_| Ok(package.clone())).with_context(|| {
        format!("the modules of {image} can't be downloaded; without the Image both come anew")
    })
}

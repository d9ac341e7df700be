//! The guest of `examples/hypervisor`: Debian's Linux and BusyBox, under the hypervisor or alone.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};

use crate::handover::Files;
use crate::initramfs;
use crate::setup::payload::{self, Line};
use crate::workspace::Workspace;

/// The kernel that is the guest.
pub const LINE: Line = Line::Linux6_12;
/// Where `examples/hypervisor` expects the guest's Image.
const IMAGE_AT: u64 = 0x4020_0000;
/// Where the initrd is, which the command line says.
const INITRD_AT: u64 = 0x4800_0000;
/// As much memory as `examples/hypervisor` is linked for.
const MEMORY: &str = "768M";

/// QEMU's arguments for the guest with these words on its command line, whose jobs fill memory
/// `rounds` times: under `hypervisor`, an ELF file, on a machine with three CPUs, or alone on one
/// with two.
///
/// The GIC has no ITS, which writes to memory by itself as any other device with DMA.
pub fn arguments(
    workspace: &Workspace,
    files: &Files,
    hypervisor: Option<&Path>,
    rounds: u32,
    words: &str,
) -> Result<Vec<OsString>> {
    let image = payload::linux(workspace, LINE)?.path;
    let busybox = payload::busybox(workspace)?.path;
    let busybox = std::fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?;
    let initrd = initramfs::build_for_guest(&busybox)?;
    let initrd_len = initrd.len();
    let initrd = files.write("initrd", &initrd)?;
    let line = format!("{} linmap_passes={rounds} {words}", initramfs::POWER_OFF_WORD);
    let mut arguments: Vec<OsString> = ["-m", MEMORY].map(OsString::from).into();
    let mut add = |words: &[OsString]| arguments.extend_from_slice(words);
    let machine = "virt,gic-version=3,its=off,dtb-randomness=off";
    match hypervisor {
        Some(hypervisor) => {
            add(&["-smp".into(), "3".into(), "-machine".into()]);
            add(&[format!("{machine},virtualization=on").into(), "-kernel".into(), hypervisor.into()]);
            for (file, address) in [(&image, IMAGE_AT), (&initrd, INITRD_AT)] {
                add(&["-device".into(), crate::qemu::loader(file, address)]);
            }
            add(&["-append".into(), format!("initrd={INITRD_AT:#x},{initrd_len} {line}").into()]);
        }
        None => {
            add(&["-smp".into(), "2".into(), "-machine".into(), machine.into(), "-kernel".into()]);
            add(&[image.into(), "-initrd".into(), initrd.into(), "-append".into(), line.into()]);
        }
    }
    Ok(arguments)
}

//! Boots on boards of QEMU's that `cargo xtask boot` does not know, with device trees of ours.

use std::process::Command;

use vm_fdt::FdtWriter;

use crate::boot::own_image;
use crate::loader::{loaded, stub};
use crate::raw::console_until;
use crate::tree::file;

/// A UART as its node describes it.
#[derive(Clone, Copy, Debug)]
pub struct UartNode<'a> {
    /// `compatible`.
    pub compatible: &'a [&'a str],
    /// Where its registers are.
    pub registers: u64,
    /// Properties of one cell.
    pub cells: &'a [(&'a str, u32)],
}

/// A board with the UART that its tree and its image name.
#[derive(Clone, Copy, Debug)]
pub struct BoardBoot<'a> {
    /// QEMU's options for the machine.
    pub options: &'a str,
    /// Where RAM begins.
    pub ram: u64,
    /// The UART that `stdout-path` names.
    pub uart: Option<UartNode<'a>>,
    /// The command line in the image.
    pub built_in: &'a str,
    /// The command line in the tree.
    pub bootargs: &'a str,
}

/// How much of a board's RAM the tree describes.
const RAM_LEN: u64 = 256 << 20;

impl BoardBoot<'_> {
    /// The console of the board, entered by a stub at the level at which QEMU enters kernels, until
    /// it holds `last`.
    ///
    /// # Panics
    /// When it never does.
    pub fn run_until(&self, last: &str) -> String {
        let image = file(&with_command_line(own_image(), self.built_in));
        let tree = file(&self.tree().expect("a tree that the writer accepts"));
        let (image_at, dtb_at) = (self.ram + 0x0200_0000, self.ram + 0x0400_0000);
        let stub = file(&stub(dtb_at, image_at));
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(self.options.split_whitespace()).arg("-kernel").arg(stub.path());
        for (path, at) in [(image.path(), image_at), (tree.path(), dtb_at)] {
            qemu.arg("-device").arg(loaded(path, at));
        }
        console_until(qemu, last)
    }

    fn tree(&self) -> vm_fdt::FdtWriterResult<Vec<u8>> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        let memory = fdt.begin_node("memory")?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[self.ram, RAM_LEN])?;
        fdt.end_node(memory)?;
        let chosen = fdt.begin_node("chosen")?;
        if self.uart.is_some() {
            fdt.property_string("stdout-path", "/serial:115200n8")?;
        }
        fdt.property_string("bootargs", self.bootargs)?;
        fdt.end_node(chosen)?;
        if let Some(uart) = self.uart {
            let node = fdt.begin_node("serial")?;
            let compatible = uart.compatible.iter().map(|name| (*name).to_owned()).collect();
            fdt.property_string_list("compatible", compatible)?;
            fdt.property_array_u64("reg", &[uart.registers, 0x1000])?;
            for (name, cell) in uart.cells {
                fdt.property_u32(name, *cell)?;
            }
            fdt.end_node(node)?;
        }
        fdt.end_node(root)?;
        fdt.finish()
    }
}

/// The console of a machine with these options whose CPU starts at the first instruction of
/// linmap's image at `at`, until it holds `last`. The image has the command line `built_in`.
///
/// # Panics
/// When it never does.
pub fn console_of_image_at(options: &str, built_in: &str, at: u64, last: &str) -> String {
    let image = file(&with_command_line(own_image(), built_in));
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args(options.split_whitespace()).arg("-device").arg(loaded(image.path(), at));
    qemu.arg("-device").arg(format!("loader,addr={at:#x},cpu-num=0"));
    console_until(qemu, last)
}

/// The console of a `virt` whose boot loader says that the device tree is at `dtb_at`, until it
/// holds `last`. The image has the command line `built_in`.
///
/// # Panics
/// When it never does.
pub fn console_with_tree_at(dtb_at: u64, built_in: &str, last: &str) -> String {
    let image_at = 0x4020_0000;
    let image = file(&with_command_line(own_image(), built_in));
    let stub = file(&stub(dtb_at, image_at));
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args(["-M", "virt", "-cpu", "cortex-a72", "-m", "256M", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(stub.path()).arg("-device").arg(loaded(image.path(), image_at));
    console_until(qemu, last)
}

/// `image` with the built-in command line `line`.
fn with_command_line(mut image: Vec<u8>, line: &str) -> Vec<u8> {
    const NAME: &[u8; 16] = b"LINMAP-CMDLINE\0\0";
    let at = image.windows(16).position(|bytes| bytes == NAME).expect("its name") + 16;
    image[at..at + line.len()].copy_from_slice(line.as_bytes());
    image
}

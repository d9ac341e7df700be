//! Boots of QEMU's `virt` with everything where the caller wants it, into any memory.

use std::path::Path;
use std::process::Command;

use crate::boot::{own_image_path, workspace};
use crate::loader::{loaded, stub};
use crate::raw::console_until;
use crate::tree::{Tree, file};

/// A machine with RAM from 1 GiB on, of which the tree describes some.
#[derive(Debug)]
pub struct LayoutBoot<'a> {
    /// How much RAM the machine has, in QEMU's words.
    pub ram: &'a str,
    /// QEMU's options for CPUs.
    pub cpu: &'a str,
    /// What the tree says, except where the initrd is.
    pub tree: Tree,
    /// Where the kernel is loaded.
    pub image: u64,
    /// Where the tree is loaded.
    pub dtb: u64,
    /// Where the initrd is loaded, and what it is.
    pub initrd: (u64, &'a Path),
    /// Where the code is that enters the kernel.
    pub stub: u64,
}

impl LayoutBoot<'_> {
    /// The console of the machine until it holds `last`.
    ///
    /// # Panics
    /// When it never does.
    pub fn run_until(&self, last: &str) -> String {
        let (initrd_at, initrd) = self.initrd;
        let len = std::fs::metadata(initrd).expect("the initrd").len();
        let tree = Tree { initrd: Some((initrd_at, len)), ..self.tree.clone() }.file();
        let stub = file(&stub(self.dtb, self.image));
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-object", &format!("memory-backend-ram,id=ram,size={},reserve=off", self.ram)]);
        qemu.args(["-M", "virt,memory-backend=ram", "-m", self.ram, "-serial", "stdio"]);
        qemu.args(self.cpu.split_whitespace());
        for (path, at) in [
            (own_image_path().as_path(), self.image),
            (tree.path(), self.dtb),
            (initrd, initrd_at),
            (stub.path(), self.stub),
        ] {
            qemu.arg("-device").arg(loaded(path, at));
        }
        qemu.arg("-device").arg(format!("loader,addr={:#x},cpu-num=0", self.stub));
        console_until(qemu, last)
    }
}

/// Debian's Linux 6.12 with pages of 4 KiB.
///
/// # Panics
/// When `cargo xtask setup` has not cached it.
pub fn linux_image() -> Vec<u8> {
    std::fs::read(workspace().join("target/payload/linux-6.12/Image")).expect("the payloads are cached")
}

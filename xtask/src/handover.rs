//! What QEMU is given for the kernel: the command line, the archive with the payload, and, with a
//! device tree of the user's, where everything lies.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::Archive;
use crate::devicetree;
use crate::image::Image;
use crate::initramfs::POWER_OFF_WORD;
use crate::packing::{self, Packing};
use crate::placement::{FRAME, FreeMemory, IMAGE_ALIGN, NoRoom, TREE_ALIGN};
use crate::progress;
use crate::qemu::{Hardware, Load};
use crate::setup::payload::Line;
use crate::workspace::Workspace;

/// What linmap hands over to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PayloadKind {
    /// Debian's arm64 Linux, the newest of the 6.12 line
    #[value(alias = "linux-6.12")]
    Linux,
    /// The newest of Debian's 6.1 line
    #[value(name = "linux-6.1")]
    Linux6_1,
    /// The newest of Debian's 6.18 line
    #[value(name = "linux-6.18")]
    Linux6_18,
    /// The newest that Debian has, as a backport for trixie
    #[value(name = "linux-newest")]
    LinuxNewest,
    /// The newest of the 6.12 line with pages of 16K, which not every CPU has
    #[value(name = "linux-16k")]
    Linux16K,
    /// Debian's newest Xen, up to its first line
    Xen,
    /// linmap again
    #[value(name = "self")]
    ItSelf,
    /// Nothing: power off when the linear map is built
    None,
}

impl PayloadKind {
    /// Whether it is Linux.
    pub fn is_linux(self) -> bool {
        !matches!(self, Self::Xen | Self::ItSelf | Self::None)
    }

    /// The kernel's line, if it is Debian's.
    pub fn line(self) -> Option<Line> {
        match self {
            Self::Linux => Some(Line::Linux6_12),
            Self::Linux6_1 => Some(Line::Linux6_1),
            Self::Linux6_18 => Some(Line::Linux6_18),
            Self::LinuxNewest => Some(Line::Newest),
            Self::Linux16K => Some(Line::Linux16K),
            Self::Xen => Some(Line::Xen),
            Self::ItSelf | Self::None => None,
        }
    }
}

impl fmt::Display for PayloadKind {
    /// As `linmap.payload=` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ItSelf => "self",
            Self::None => "none",
            _ => "linux",
        })
    }
}

/// Everything that the kernel receives.
#[derive(Debug)]
pub struct Handover {
    /// What to hand over to.
    pub payload: PayloadKind,
    /// Linux's Image.
    pub payload_kernel: Option<Vec<u8>>,
    /// How the payload's kernel is packed.
    pub packing: Packing,
    /// Linux's initramfs.
    pub payload_initrd: Option<Vec<u8>>,
    /// Commands for linmap's shell.
    pub script: Option<String>,
    /// Whether to stop in linmap's shell.
    pub shell: bool,
    /// Whether the virtual counter counts instructions.
    pub icount: bool,
    /// Whether the payload powers off as soon as its user space runs.
    pub power_off: bool,
    /// The VA size to ask for.
    pub va_bits: Option<u8>,
    /// The user's words.
    pub append: String,
}

/// A run's own folder below target/linmap, removed at its end.
#[derive(Debug)]
pub struct Files(tempfile::TempDir);

impl Files {
    /// Makes an empty folder, and removes the folders of runs that were killed.
    pub fn new(workspace: &Workspace) -> Result<Self> {
        let parent = workspace.folder("linmap")?;
        for old in std::fs::read_dir(&parent)?.flatten() {
            let name = old.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix("run-")?.split('-').next());
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                // Another run may be removing it as well.
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        let prefix = format!("run-{}-", std::process::id());
        Ok(Self(tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?))
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a folder and returns its path.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Handover {
    /// Writes the files and says how QEMU loads them: by its own boot loader or, with a `tree`,
    /// each to its address.
    pub fn load(
        &self,
        files: &Files,
        hardware: &Hardware,
        image: &Image,
        tree: Option<&[u8]>,
    ) -> Result<Load> {
        let kernel = files.write("Image", image.bytes())?;
        let archive = self.archive(image)?;
        let archive_file = archive.as_ref().map(|bytes| files.write("archive", bytes)).transpose()?;
        let Some(tree) = tree else {
            return Ok(Load::BootLoader { kernel, initrd: archive_file, command_line: self.command_line() });
        };
        let placed = self.place(hardware, image, archive.as_deref(), tree)?;
        let mut pieces =
            vec![(kernel, placed.entry), (files.write("dtb", &placed.tree)?, placed.tree_address)];
        pieces.extend(archive_file.zip(placed.archive_address));
        let stub = files.write("stub", &stub(placed.tree_address, placed.entry))?;
        Ok(Load::Pieces { pieces, stub, stub_address: placed.stub_address })
    }

    /// /chosen/bootargs.
    fn command_line(&self) -> String {
        let mut words = vec![format!("linmap.payload={}", self.payload)];
        words.extend(self.icount.then(|| "linmap.icount".to_owned()));
        words.extend(self.shell.then(|| "linmap.shell".to_owned()));
        words.extend(self.va_bits.map(|bits| format!("linmap.va_bits={bits}")));
        words.extend((!self.append.is_empty()).then(|| self.append.clone()));
        words.join(" ")
    }

    /// The payload's own command line, to which the kernel adds the user's words. A panic must end
    /// the run, not hang it.
    fn payload_command_line(&self) -> String {
        let power_off = if self.power_off { format!(" {POWER_OFF_WORD}") } else { String::new() };
        format!("earlycon panic=-1{power_off}")
    }

    /// `cmdline`, `script`, `Image`, `initrd`, in this order, as far as there is one. The last two
    /// lie on pages, so that the kernel can leave them there.
    fn archive(&self, image: &Image) -> Result<Option<Vec<u8>>> {
        let payload_kernel = match self.payload {
            PayloadKind::ItSelf => Some(image.bytes()),
            _ => self.payload_kernel.as_deref(),
        };
        if payload_kernel.is_none() && self.script.is_none() {
            return Ok(None);
        }
        let mut archive = Archive::default();
        if self.payload.line().is_some() {
            archive.file("cmdline", self.payload_command_line().as_bytes())?;
        } else if self.payload == PayloadKind::ItSelf {
            archive.file("cmdline", b"")?;
        }
        if let Some(script) = &self.script {
            archive.file("script", script.as_bytes())?;
        }
        if let Some(kernel) = payload_kernel {
            let packed = progress::during("packing the payload", || packing::pack(kernel, self.packing))?;
            archive.file_on_a_page("Image", &packed)?;
        }
        if let Some(initrd) = &self.payload_initrd {
            archive.file_on_a_page("initrd", initrd)?;
        }
        Ok(Some(archive.finish()?))
    }

    /// Places everything in memory that both the tree and the machine have. If the tree has no
    /// memory for it, or can't be read, the machine's memory alone decides, and the kernel has to
    /// report the bad tree.
    fn place(
        &self,
        hardware: &Hardware,
        image: &Image,
        archive: Option<&[u8]>,
        tree: &[u8],
    ) -> Result<Placed> {
        let ram = hardware.machine.ram(hardware.memory);
        let by_qemu = hardware.machine.taken_by_qemu(hardware.memory);
        let taken: Vec<_> = by_qemu.iter().cloned().chain(devicetree::reserved(tree)).collect();
        let of_both = FreeMemory::new(&ram, &devicetree::memory(tree), &taken);
        let of_machine = FreeMemory::new(&ram, &ram, &by_qemu);
        let placed = self.place_in(of_both, image, archive, tree);
        Ok(placed.or_else(|_| self.place_in(of_machine, image, archive, tree))?)
    }

    fn place_in(
        &self,
        mut free: FreeMemory,
        image: &Image,
        archive: Option<&[u8]>,
        tree: &[u8],
    ) -> Result<Placed, NoRoom> {
        let image_span = image.text_offset().saturating_add(image.image_size());
        let image_place = free.take("linmap's Image", image_span, IMAGE_ALIGN)?;
        let archive_place =
            archive.map(|bytes| free.take("the archive", bytes.len() as u64, FRAME)).transpose()?;
        let archive_address = archive_place.as_ref().map(|place| place.start);
        let edited = devicetree::with_chosen(tree, &self.command_line(), archive_place.as_ref());
        let tree = edited.unwrap_or_else(|| tree.to_vec());
        // A tree cut off anywhere, even to nothing, is followed by a frame of zeros and not by
        // another piece.
        let tree_place = free.take("the device tree", tree.len() as u64 + FRAME, TREE_ALIGN)?;
        let stub_place = free.take("the entry stub", FRAME, FRAME)?;
        Ok(Placed {
            entry: image_place.start + image.text_offset(),
            archive_address,
            tree,
            tree_address: tree_place.start,
            stub_address: stub_place.start,
        })
    }
}

#[derive(Debug)]
struct Placed {
    /// The Image's first byte, which is also its first instruction.
    entry: u64,
    archive_address: Option<u64>,
    tree: Vec<u8>,
    tree_address: u64,
    stub_address: u64,
}

/// Enters a kernel as booting.rst says: x0 = device tree, x1 to x3 = 0.
fn stub(tree: u64, entry: u64) -> Vec<u8> {
    const CODE: [u32; 6] = [
        0x5800_00c0, // ldr x0, tree
        0x5800_00e4, // ldr x4, entry
        0xaa1f_03e1, // mov x1, xzr
        0xaa1f_03e2, // mov x2, xzr
        0xaa1f_03e3, // mov x3, xzr
        0xd61f_0080, // br  x4
    ];
    let code = CODE.iter().flat_map(|instruction| instruction.to_le_bytes());
    code.chain(tree.to_le_bytes()).chain(entry.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(payload: PayloadKind) -> Handover {
        let linux = payload.line().is_some();
        Handover {
            payload,
            payload_kernel: linux.then(|| b"kernel".to_vec()),
            packing: Packing::Raw,
            payload_initrd: linux.then(|| b"initrd".to_vec()),
            script: None,
            shell: false,
            icount: false,
            power_off: true,
            va_bits: None,
            append: String::new(),
        }
    }

    #[test]
    fn the_command_line_is_ours_and_then_the_users() {
        let all = Handover {
            shell: true,
            icount: true,
            va_bits: Some(52),
            append: "linmap.leaf=page quiet".into(),
            ..handover(PayloadKind::Linux6_1)
        };
        assert_eq!(
            all.command_line(),
            "linmap.payload=linux linmap.icount linmap.shell linmap.va_bits=52 linmap.leaf=page quiet"
        );
        assert_eq!(handover(PayloadKind::ItSelf).command_line(), "linmap.payload=self");
        assert_eq!(handover(PayloadKind::None).command_line(), "linmap.payload=none");
    }

    #[test]
    fn the_payload_powers_off_only_when_told() {
        assert_eq!(handover(PayloadKind::Linux).payload_command_line(), "earlycon panic=-1 linmap_poweroff");
        let stays = Handover { power_off: false, ..handover(PayloadKind::Linux) };
        assert_eq!(stays.payload_command_line(), "earlycon panic=-1");
    }

    #[test]
    fn the_stub_holds_both_addresses_where_its_loads_look_for_them() {
        let stub = stub(0x1122_3344_5566_7788, 0x4060_0000);
        let literal = |index: usize| {
            let instruction = u32::from_le_bytes(stub[index * 4..index * 4 + 4].try_into().unwrap());
            let at = index * 4 + ((instruction >> 5 & 0x7_ffff) * 4) as usize;
            u64::from_le_bytes(stub[at..at + 8].try_into().unwrap())
        };
        assert_eq!((literal(0), literal(1)), (0x1122_3344_5566_7788, 0x4060_0000));
    }
}

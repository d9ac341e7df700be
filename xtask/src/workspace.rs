//! Where everything is.
//!
//! ```text
//! target/                      cargo's target directory (CARGO_TARGET_DIR and build.target-dir are honoured)
//!   kernel-rustup/             the kernel built with rustup's target, and
//!   kernel-debian/             with Debian's compiler and sources
//!   linmap/Image               the flat arm64 Image of the last build
//!   linmap/linmap-kernel.elf   the ELF it was made from, for symbols; Image-16k, linmap-kernel-16k.elf, …
//!                              for other granules
//!   linmap/run-*/              what one run of `boot` hands to QEMU; removed when it ends
//!   payload/manifest.json      which packages the payload came from, and the SHA-256 of each file
//!   payload/linux-6.12/Image   Debian's kernels, one folder for each line: linux-6.1, linux-6.12, linux-16k,
//!                              linux-6.18, linux-newest
//!   payload/linux-6.18/device-trees.cpio.zst
//!                              the device trees of that line's package
//!   payload/linux-6.12/modules.cpio
//!                              modules of each line's package, as an initramfs
//!   payload/edk2/QEMU_EFI.fd   Debian's EDK2, and
//!   payload/u-boot/u-boot.bin  its U-Boot, for QEMU's virt machine
//!   payload/busybox/busybox    Debian's static BusyBox for arm64
//!   payload/kexec-tools/       Debian's kexec for arm64, and its libraries
//!   payload/apt/               the private apt root they were downloaded with
//!   setup/apt/                 source list and package lists used to install host packages
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The workspace's root and target folders.
#[derive(Debug)]
pub struct Workspace {
    /// The folder of the root Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target folder for this workspace.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo for both folders.
    pub fn find() -> Result<Self> {
        let metadata = metadata()?;
        match (metadata["workspace_root"].as_str(), metadata["target_directory"].as_str()) {
            (Some(root), Some(target)) => Ok(Self { root: root.into(), target: target.into() }),
            _ => bail!("cargo metadata names no workspace_root or no target_directory"),
        }
    }

    /// What `cargo metadata` says about the workspace's own packages.
    pub fn metadata(&self) -> Result<serde_json::Value> {
        metadata()
    }

    /// A folder below the target folder; created when missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }
}

fn metadata() -> Result<serde_json::Value> {
    let mut metadata = Command::new(cargo());
    metadata.args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"]);
    // What cargo reports now takes precedence over what it reported when this was compiled: the
    // folder may have moved since.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    metadata.arg(package.join("Cargo.toml"));
    serde_json::from_str(&process::capture(&mut metadata)?).context("reading cargo metadata")
}

/// The cargo that runs us, or the one on the path.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Replaces `path` in one step, so that a reader sees the old content or the new, never a part.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        // Others may build in this folder after root has set it up.
        let readable = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, content)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

//! Builds the kernel and makes its flat Image: target/linmap/Image, beside it the ELF file for its
//! symbols. For other granules than 4K the names end in -16k and -64k.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::granule::Granule;
use crate::image::Image;
use crate::setup::lock;
use crate::setup::toolchain::{TARGET, Toolchain};
use crate::workspace::{Workspace, write_atomically};
use crate::{process, setup};

/// A built kernel.
#[derive(Debug)]
pub struct Kernel {
    /// The flat Image, as written to [`Kernel::image_path`].
    pub image: Image,
    /// target/linmap/Image.
    pub image_path: PathBuf,
    /// target/linmap/linmap-kernel.elf.
    pub elf_path: PathBuf,
}

/// The options of `build`.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// The granule to build for
    #[arg(long, value_enum, default_value = "4k", value_name = "SIZE")]
    granule: Granule,
}

/// `cargo xtask build`: builds the kernel and prints where it is.
pub fn run(workspace: &Workspace, arguments: &BuildArgs) -> Result<ExitCode> {
    let toolchain = setup::toolchain::ensure(workspace)?;
    let kernel = kernel(workspace, &toolchain, arguments.granule)?;
    println!(
        "{} ({} bytes, {} in memory)",
        kernel.image_path.display(),
        kernel.image.bytes().len(),
        kernel.image.image_size()
    );
    println!("{} (symbols)", kernel.elf_path.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the kernel for `granule` with `toolchain`. What cargo says goes to standard error.
pub fn kernel(workspace: &Workspace, toolchain: &Toolchain, granule: Granule) -> Result<Kernel> {
    // cargo gives the kernels of all granules one name, and the last build has it.
    let _lock = lock::of_our_runs(&workspace.folder("linmap")?.join("build.lock"), "building the kernel")?;
    let folder = workspace.target.join(format!("kernel-{}", toolchain.name()));
    let mut build = cargo(workspace, toolchain, "build");
    build.args(["--package", "linmap-kernel", "--bin", "linmap-kernel", "--profile", "kernel"]);
    if let Some(feature) = granule.feature() {
        build.args(["--features", feature]);
    }
    // cargo shows its own progress.
    let status = process::status(&mut build)?;
    if !status.success() {
        bail!("building the kernel failed: {}", process::line(&build));
    }
    let built = folder.join(TARGET).join("kernel/linmap-kernel");
    let elf = std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let image = Image::from_elf(&elf).with_context(|| format!("making an Image of {}", built.display()))?;
    let image_path = workspace.target.join(format!("linmap/Image{}", granule.ending()));
    let elf_path = workspace.target.join(format!("linmap/linmap-kernel{}.elf", granule.ending()));
    if std::fs::read(&image_path).is_ok_and(|old| old == image.bytes()) && elf_path.exists() {
        return Ok(Kernel { image, image_path, elf_path });
    }
    write_atomically(&elf_path, &elf)?;
    write_atomically(&image_path, image.bytes())?;
    Ok(Kernel { image, image_path, elf_path })
}

/// `cargo <subcommand>` for the bare-metal target, in the toolchain's own target folder.
pub fn cargo(workspace: &Workspace, toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut cargo = toolchain.cargo(subcommand);
    cargo.current_dir(&workspace.root);
    cargo.arg("--target-dir").arg(workspace.target.join(format!("kernel-{}", toolchain.name())));
    cargo
}

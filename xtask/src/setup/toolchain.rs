//! The compiler for the bare-metal target: rustup's precompiled target, or Debian's compiler and
//! its library sources.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::apt::{HostApt, Suite};
use super::host;
use crate::usage::UsageError;
use crate::workspace::Workspace;
use crate::{process, progress};

/// The kernel's target.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";

/// For `setup --help`.
pub const HELP: &str = "\
Environment:
  LINMAP_TOOLCHAIN=rustup  build the kernel with rustup's aarch64-unknown-none-softfloat, or fail
  LINMAP_TOOLCHAIN=debian  build it with Debian's rustc-web, cargo-web and rust-web-src, or fail
Without it: rustup's target if it is installed; else Debian's packages if they are; else whichever
can be installed.";

const FORCED_BY: &str = "LINMAP_TOOLCHAIN";
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LLD: &str = "/usr/bin/ld.lld";
/// The oldest compiler of the workspace (rust-version in Cargo.toml).
const OLDEST_RUSTC_MINOR: u32 = 88;

/// A toolchain that can build the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's active toolchain, with the target installed.
    Rustup {
        /// The folder of its cargo and rustc.
        bin: PathBuf,
    },
    /// Debian's compiler; core and alloc are built from source.
    Debian {
        /// An LLD that can be run as ld.lld.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// The name in `LINMAP_TOOLCHAIN` and of the target folder.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rustup { .. } => "rustup",
            Self::Debian { .. } => "debian",
        }
    }

    /// `cargo <subcommand>` for [`TARGET`]. Flags for the host's builds do not apply to it.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self {
            Self::Rustup { bin } => {
                let mut command = Command::new(bin.join("cargo"));
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
                if let Ok(path) = std::env::join_paths(folders) {
                    command.env("PATH", path);
                }
                command.env_remove("RUSTC").arg(subcommand);
                command
            }
            Self::Debian { linker } => {
                let mut command = Command::new(DEBIAN_CARGO);
                command.args([subcommand, "-Zbuild-std=core,alloc"]);
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTUP_TOOLCHAIN");
                command.env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", linker);
                command
                    .env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_RUSTFLAGS", "-Clinker-flavor=ld.lld");
                command
            }
        };
        for name in
            ["CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
        {
            command.env_remove(name);
        }
        command.args(["--target", TARGET]);
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup { bin } => write!(f, "{TARGET} of rustup, {}", bin.display()),
            Self::Debian { linker } => write!(f, "built from Debian's sources, linker {}", linker.display()),
        }
    }
}

/// The message about the compiler that runs, if it is not the pinned one.
pub fn unlike_the_pin(workspace: &Workspace) -> Result<Option<String>> {
    let file = workspace.root.join("rust-toolchain.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let pinned = channel(&text).with_context(|| format!("{} names no channel", file.display()))?;
    let version = process::capture(Command::new("rustc").arg("--version"))?;
    let is_pinned = version.split_whitespace().nth(1) == Some(pinned);
    Ok((!is_pinned).then(|| format!("{}, not the {pinned} of rust-toolchain.toml", version.trim())))
}

/// The channel in the text of rust-toolchain.toml.
fn channel(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("channel"))?;
    line.split_once('=').map(|(_, value)| value.trim().trim_matches('"'))
}

/// What has to be installed before the kernel can be built.
#[derive(Debug)]
pub enum Missing {
    /// rustup's precompiled target.
    RustupTarget,
    /// Packages of Debian's.
    DebianPackages(Vec<&'static str>),
}

/// What [`ensure`] would install first.
pub fn what_is_missing() -> Option<Missing> {
    let forced = std::env::var(FORCED_BY).unwrap_or_default();
    let has_rustup = || process::succeeds(Command::new("rustup").arg("--version"));
    match forced.as_str() {
        "rustup" => rustup().is_none().then_some(Missing::RustupTarget),
        "debian" => debian().is_none().then(|| Missing::DebianPackages(debian_packages())),
        _ if rustup().or_else(debian).is_some() => None,
        _ if has_rustup() => Some(Missing::RustupTarget),
        _ => Some(Missing::DebianPackages(debian_packages())),
    }
}

/// The packages that Debian's toolchain lacks.
fn debian_packages() -> Vec<&'static str> {
    let mut packages = Vec::new();
    if !has_debian_compiler() {
        packages.extend(PACKAGES);
    }
    if linker().is_none() {
        packages.push("lld");
    }
    packages
}

/// A toolchain that can build the kernel, after installing what is missing.
pub fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    let forced = std::env::var(FORCED_BY).ok();
    match forced.as_deref() {
        None | Some("") => {}
        Some("rustup") => return rustup_or_add(),
        Some("debian") => return debian_or_install(workspace),
        Some(other) => {
            return Err(UsageError(format!("{FORCED_BY}={other}: it is rustup or debian")).into());
        }
    }
    if let Some(toolchain) = rustup().or_else(debian) {
        return Ok(toolchain);
    }
    rustup_or_add().or_else(|no_rustup| {
        eprintln!("{no_rustup:#}");
        debian_or_install(workspace)
    })
}

fn rustup_or_add() -> Result<Toolchain> {
    if let Some(toolchain) = rustup() {
        return Ok(toolchain);
    }
    if !process::succeeds(Command::new("rustup").arg("--version")) {
        bail!("no rustup is installed that could add {TARGET}");
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", TARGET]);
    host::permission(&format!("the Rust target {TARGET}"), &add)?;
    progress::during(&format!("adding {TARGET}"), || process::capture(&mut add))?;
    match rustup() {
        Some(toolchain) => Ok(toolchain),
        None => bail!("rustup added {TARGET}, but does not list it as installed"),
    }
}

/// Asks rustup once: each question takes it a while.
fn rustup() -> Option<Toolchain> {
    static FOUND: OnceLock<Toolchain> = OnceLock::new();
    if FOUND.get().is_none()
        && let Some(found) = ask_rustup()
    {
        FOUND.get_or_init(|| found);
    }
    FOUND.get().cloned()
}

fn ask_rustup() -> Option<Toolchain> {
    let installed = process::capture(Command::new("rustup").args(["target", "list", "--installed"])).ok()?;
    if !installed.lines().any(|line| line == TARGET) {
        return None;
    }
    let cargo = process::capture(Command::new("rustup").args(["which", "cargo"])).ok()?;
    Some(Toolchain::Rustup { bin: Path::new(cargo.trim()).parent()?.to_owned() })
}

fn debian_or_install(workspace: &Workspace) -> Result<Toolchain> {
    if let Some(toolchain) = debian() {
        return Ok(toolchain);
    }
    let packages = debian_packages();
    let apt = HostApt::update(workspace)?;
    for package in &packages {
        if apt.offers(package)?.is_empty() {
            bail!(
                "Debian's configured mirrors offer no {package}; it is in the security archive's main \
                 component"
            );
        }
    }
    apt.install("a compiler for the bare-metal target", &packages, &Suite::Release)?;
    match debian() {
        Some(toolchain) => Ok(toolchain),
        None => bail!(
            "{} are installed, but {DEBIAN_RUSTC} is older than 1.{OLDEST_RUSTC_MINOR} or has no library \
             sources",
            packages.join(", ")
        ),
    }
}

fn debian() -> Option<Toolchain> {
    linker().filter(|_| has_debian_compiler()).map(|linker| Toolchain::Debian { linker })
}

fn has_debian_compiler() -> bool {
    let version = process::capture(Command::new(DEBIAN_RUSTC).arg("--version")).unwrap_or_default();
    rustc_minor(&version).is_some_and(|minor| minor >= OLDEST_RUSTC_MINOR)
        && Path::new(DEBIAN_CARGO).exists()
        && sysroot(Path::new(DEBIAN_RUSTC))
            .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").exists())
}

/// Debian's LLD or, where there is none, the one inside rustup's toolchain.
fn linker() -> Option<PathBuf> {
    if Path::new(DEBIAN_LLD).exists() {
        return Some(DEBIAN_LLD.into());
    }
    let rustc = process::capture(Command::new("rustup").args(["which", "rustc"])).ok()?;
    let libraries = sysroot(Path::new(rustc.trim()))?.join("lib/rustlib");
    let hosts = std::fs::read_dir(libraries).ok()?.flatten();
    hosts.map(|host| host.path().join("bin/rust-lld")).find(|linker| linker.exists())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let printed = process::capture(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    Some(printed.trim().into())
}

/// The second number of "rustc 1.96.0 (…)".
fn rustc_minor(version: &str) -> Option<u32> {
    version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_version_is_read_from_what_it_says() {
        assert_eq!(
            rustc_minor("rustc 1.96.0 (ac68faa20 2026-07-04) (built from a source tarball)\n"),
            Some(96)
        );
        assert_eq!(rustc_minor("rustc 1.63.0\n"), Some(63));
        assert_eq!(rustc_minor(""), None);
    }

    #[test]
    fn the_pinned_version_is_read_from_its_file() {
        assert_eq!(
            channel(include_str!("../../../rust-toolchain.toml")).map(|pin| pin.starts_with("1.")),
            Some(true)
        );
        assert_eq!(channel("[toolchain]\n# channel\nchannel = \"1.2.3\"\n"), Some("1.2.3"));
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn both_toolchains_build_for_the_same_target_and_differ_in_the_rest() {
        let line = |toolchain: &Toolchain| process::line(&toolchain.cargo("build"));
        let rustup = Toolchain::Rustup { bin: "/r/bin".into() };
        let debian = Toolchain::Debian { linker: "/r/rust-lld".into() };
        assert_eq!(line(&rustup), format!("/r/bin/cargo build --target {TARGET}"));
        assert_eq!(line(&debian), format!("/usr/bin/cargo build -Zbuild-std=core,alloc --target {TARGET}"));
    }
}

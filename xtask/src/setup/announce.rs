//! Announces what will be installed and downloaded: once, and before it is.

use anyhow::Result;

use super::apt::{HostApt, PrivateApt, Size};
use super::payload::{self, Line, Tools};
use super::{qemu, toolchain};
use crate::qemu::Version;
use crate::workspace::Workspace;

/// What a command needs.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// The oldest QEMU that will do.
    pub qemu: Version,
    /// The kernels to hand over to.
    pub lines: &'w [Line],
    /// The programs for their user space.
    pub tools: Tools,
}

/// Something that is missing.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    what: String,
    /// What is downloaded for it, where that is known.
    bytes: Option<u64>,
}

/// Lists what is missing of `wanted`, with sizes. Prints nothing where all is there.
pub fn announce(workspace: &Workspace, wanted: &Wanted<'_>) -> Result<()> {
    let mut missing = Vec::new();
    if qemu::is_to_be_installed(wanted.qemu)? {
        let apt = HostApt::update(workspace);
        let size = apt.and_then(|apt| {
            let suite = qemu::suite(&apt, wanted.qemu)?;
            apt.size(&[qemu::PACKAGE], &suite)
        });
        missing.push(installed(&format!("QEMU, on this machine: {}", qemu::PACKAGE), size));
    }
    missing.extend(match toolchain::what_is_missing() {
        None => None,
        Some(toolchain::Missing::RustupTarget) => {
            let what = format!("the Rust target {}, by rustup: about 20 MB", toolchain::TARGET);
            Some(Missing { what, bytes: None })
        }
        Some(toolchain::Missing::DebianPackages(packages)) => {
            let size =
                HostApt::update(workspace).and_then(|apt| apt.size(&packages, &super::apt::Suite::Release));
            Some(installed("Debian's Rust compiler, on this machine", size))
        }
    });
    let payload = payload::what_is_missing(workspace, wanted.lines, wanted.tools)?;
    if !payload.is_empty() {
        let apt = PrivateApt::update(workspace).ok();
        for (name, find) in payload {
            let package = apt.as_ref().and_then(|apt| find(apt).ok());
            let bytes = apt.as_ref().zip(package.as_ref()).and_then(|(apt, package)| apt.size(package).ok());
            let what = format!("{name}, into target/payload: {}", package.as_deref().unwrap_or("?"));
            missing.push(Missing { what, bytes });
        }
    }
    if !missing.is_empty() {
        eprint!("{}", text(&missing));
    }
    Ok(())
}

/// Packages and their dependencies. An unknown size is not an error here: the installation reports
/// the cause.
fn installed(what: &str, size: Result<Size>) -> Missing {
    match size {
        Ok(Size { packages, download, .. }) => {
            Missing { what: format!("{what}, {packages} packages"), bytes: Some(download) }
        }
        Err(_) => Missing { what: what.to_owned(), bytes: None },
    }
}

fn text(missing: &[Missing]) -> String {
    let mut text = String::from("missing, and installed or downloaded now:\n");
    for Missing { what, bytes } in missing {
        let size = bytes.map_or(String::new(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
        text.push_str(&format!("  {size:>9}  {what}\n"));
    }
    let all: u64 = missing.iter().filter_map(|it| it.bytes).sum();
    text.push_str(&format!("  {:>6.1} MB  in all\n", all as f64 / 1e6));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_missing_is_listed_with_its_size_and_the_sum() {
        let missing = [
            installed("QEMU", Ok(Size { packages: 3, download: 12_340_000, installed: 40_000_000 })),
            installed("a compiler", Err(anyhow::anyhow!("no mirror"))),
            Missing { what: "linux-6.1".into(), bytes: Some(60_000_000) },
        ];
        let lines = [
            "missing, and installed or downloaded now:",
            "    12.3 MB  QEMU, 3 packages",
            "             a compiler",
            "    60.0 MB  linux-6.1",
            "    72.3 MB  in all",
        ];
        assert_eq!(text(&missing).lines().collect::<Vec<_>>(), lines);
    }
}

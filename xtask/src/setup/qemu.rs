//! QEMU: found, or installed from Debian's release or its backports.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::apt::{HostApt, Offer, Suite};
use super::sources::Mirrors;
use crate::qemu::{FirstOnPath, PROGRAM, Version, first_on_path};
use crate::workspace::Workspace;

/// The oldest QEMU that boots linmap. It is laxer than 10 about what a CPU without MMU may do.
pub const FOR_BOOT: Version = Version { major: 7, minor: 2, patch: 0 };
/// The oldest QEMU that the tests are meant for: it has all CPU types they name.
pub const FOR_TEST: Version = Version { major: 10, minor: 0, patch: 0 };

/// Debian's package.
pub const PACKAGE: &str = "qemu-system-arm";

/// Where the package puts it.
const OF_PACKAGE: &str = "/usr/bin/qemu-system-aarch64";

/// The version of the QEMU that runs, after installing one where that helps.
pub fn ensure(workspace: &Workspace, minimum: Version) -> Result<Version> {
    match assess(first_on_path(), minimum, &path_folders())? {
        Assessment::Fits(version) => {
            if version < FOR_TEST {
                eprintln!("running QEMU {version}; the tests need {FOR_TEST} or newer");
            }
            return Ok(version);
        }
        Assessment::Install { why } => eprintln!("{why}"),
    }
    if let Err(reason) = Mirrors::of_this_machine() {
        bail!(
            "{PROGRAM} {minimum} or newer is missing, and it can be installed for you on Debian only: \
             {reason}"
        );
    }
    let apt = HostApt::update(workspace)?;
    let suite = suite(&apt, minimum)?;
    apt.install(&format!("QEMU {} or newer", minimum.major), &[PACKAGE], &suite)?;
    match assess(first_on_path(), minimum, &path_folders())? {
        Assessment::Fits(version) => Ok(version),
        Assessment::Install { why } => bail!("{PACKAGE} is installed, and still: {why}"),
    }
}

/// What the QEMU on the path is good for.
#[derive(Debug, PartialEq, Eq)]
enum Assessment {
    Fits(Version),
    /// Installing the package would help.
    Install {
        /// What is there now.
        why: String,
    },
}

/// A QEMU that the package would not replace.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Hopeless {
    #[error(
        "{} won't do: {why}. It comes first in PATH, so that Debian's {PACKAGE} would not be run: put a \
         folder with QEMU {minimum} or newer before it", .path.display()
    )]
    Before { path: PathBuf, why: String, minimum: Version },
    #[error("there is no {PROGRAM} in PATH, and /usr/bin, where Debian's {PACKAGE} would be, is not in it")]
    NotOnPath,
}

/// Judges the first QEMU on the path, whose folders are `path`.
fn assess(first: Option<FirstOnPath>, minimum: Version, path: &[PathBuf]) -> Result<Assessment, Hopeless> {
    // /bin may be /usr/bin by another name.
    let is_of_package = |file: &Path| {
        let real = |file: &Path| file.parent().and_then(|folder| folder.canonicalize().ok());
        file == Path::new(OF_PACKAGE)
            || real(file).is_some_and(|folder| Some(folder) == real(Path::new(OF_PACKAGE)))
    };
    let Some(FirstOnPath { path: file, version }) = first else {
        if !path.iter().any(|folder| is_of_package(&folder.join(PROGRAM))) {
            return Err(Hopeless::NotOnPath);
        }
        return Ok(Assessment::Install { why: format!("there is no {PROGRAM} in PATH") });
    };
    let why = match version {
        Ok(version) if version >= minimum => return Ok(Assessment::Fits(version)),
        Ok(version) => format!("it is QEMU {version}, and linmap needs {minimum} or newer"),
        Err(why) => why,
    };
    if is_of_package(&file) {
        Ok(Assessment::Install { why: format!("{} won't do: {why}", file.display()) })
    } else {
        Err(Hopeless::Before { path: file, why, minimum })
    }
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Whether one of at least `minimum` is to be installed. An error where that would not help.
pub fn is_to_be_installed(minimum: Version) -> Result<bool> {
    let assessment = assess(first_on_path(), minimum, &path_folders())?;
    Ok(matches!(assessment, Assessment::Install { .. }))
}

/// The suite that has one of at least `minimum`.
pub fn suite(apt: &HostApt, minimum: Version) -> Result<Suite> {
    match choose(&apt.offers(PACKAGE)?, minimum) {
        Some(suite) => Ok(suite),
        None => bail!("Debian's configured mirrors offer no {PACKAGE} of version {} or newer", minimum.major),
    }
}

/// The suite to install from: the release if it is good enough for the tests, else backports, else
/// whatever boots.
fn choose(offers: &[Offer], minimum: Version) -> Option<Suite> {
    let at_least = |major: u32| {
        let suite = |offer: &Offer| {
            if offer.suite.ends_with("-backports") { Suite::Backports } else { Suite::Release }
        };
        let fitting: Vec<_> = offers.iter().filter(|offer| offer.major() >= major).map(suite).collect();
        fitting.iter().find(|suite| **suite == Suite::Release).or(fitting.first()).copied()
    };
    at_least(FOR_TEST.major).or_else(|| at_least(minimum.major))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: &str, suite: &str) -> Offer {
        Offer { version: version.into(), suite: suite.into() }
    }

    fn first(path: &str, version: Result<Version, &str>) -> Option<FirstOnPath> {
        Some(FirstOnPath { path: path.into(), version: version.map_err(str::to_owned) })
    }

    #[test]
    fn only_a_qemu_that_the_package_replaces_or_that_is_missing_is_installed() {
        let path: Vec<PathBuf> = vec!["/opt/old".into(), "/usr/bin".into()];
        let old = Version { major: 6, minor: 2, patch: 0 };
        let own = "/opt/old/qemu-system-aarch64";
        assert_eq!(assess(first(own, Ok(FOR_TEST)), FOR_BOOT, &path), Ok(Assessment::Fits(FOR_TEST)));
        for (found, says) in
            [(Ok(old), "QEMU 6.2.0, and linmap needs 7.2.0"), (Err("exit status: 127"), "exit status: 127")]
        {
            let hopeless = assess(first(own, found), FOR_BOOT, &path).unwrap_err().to_string();
            assert!(hopeless.starts_with(own) && hopeless.contains(says), "{hopeless}");
        }
        let Ok(Assessment::Install { why }) = assess(first(OF_PACKAGE, Ok(old)), FOR_BOOT, &path) else {
            panic!("the package replaces it")
        };
        assert!(why.contains("6.2.0"), "{why}");
        assert!(matches!(assess(None, FOR_BOOT, &path), Ok(Assessment::Install { .. })));
        assert_eq!(assess(None, FOR_BOOT, &path[..1]), Err(Hopeless::NotOnPath));
    }

    #[test]
    fn the_release_is_preferred_when_it_is_new_enough() {
        let bookworm =
            [offer("1:10.0.2+ds-2~bpo12+1", "bookworm-backports"), offer("1:7.2+dfsg-7", "bookworm")];
        assert_eq!(choose(&bookworm, FOR_TEST), Some(Suite::Backports));
        assert_eq!(choose(&bookworm, FOR_BOOT), Some(Suite::Backports));
        let trixie = [offer("1:11.1.3", "trixie-backports"), offer("1:10.0.13", "trixie")];
        assert_eq!(choose(&trixie, FOR_TEST), Some(Suite::Release));
    }

    #[test]
    fn without_backports_an_older_one_boots_but_does_not_test() {
        let bookworm = [offer("1:7.2+dfsg-7", "bookworm")];
        assert_eq!(choose(&bookworm, FOR_BOOT), Some(Suite::Release));
        assert_eq!(choose(&bookworm, FOR_TEST), None);
    }
}

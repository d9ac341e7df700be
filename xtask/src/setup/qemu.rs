//! QEMU: found, or installed from Debian's release or its backports.

use anyhow::{Result, bail};

use super::apt::{HostApt, Offer, Suite};
use super::sources::Mirrors;
use crate::qemu::{PROGRAM, Version, version};
use crate::workspace::Workspace;

/// The oldest QEMU that boots linmap. It is laxer than 10 about what a CPU without MMU may do.
pub const FOR_BOOT: Version = Version { major: 7, minor: 2, patch: 0 };
/// The oldest QEMU that the tests are meant for: it has all CPU types they name.
pub const FOR_TEST: Version = Version { major: 10, minor: 0, patch: 0 };

/// Debian's package.
pub const PACKAGE: &str = "qemu-system-arm";

/// The version of the QEMU that runs, after installing one where there is none of at least
/// `minimum`.
pub fn ensure(workspace: &Workspace, minimum: Version) -> Result<Version> {
    if let Some(found) = version().filter(|found| *found >= minimum) {
        if found < FOR_TEST {
            eprintln!("running QEMU {found}; the tests need {FOR_TEST} or newer");
        }
        return Ok(found);
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
    match version().filter(|found| *found >= minimum) {
        Some(found) => Ok(found),
        None => bail!("{PACKAGE} is installed, but there is no {PROGRAM} {minimum} or newer on the path"),
    }
}

/// Whether there is no QEMU of at least `minimum`.
pub fn is_missing(minimum: Version) -> bool {
    version().is_none_or(|found| found < minimum)
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

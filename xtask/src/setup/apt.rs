//! apt, without touching the machine's own sources and lists.
//!
//! [`HostApt`] installs packages on this machine, with a source list and package lists of its own
//! under target/setup/apt. [`PrivateApt`] downloads arm64 packages into target/payload/apt, needs
//! no root and changes nothing outside. Both check signatures as apt always does.
//!
//! Each of them has a lock, which runs of ours wait for, and checks that there is room before apt
//! writes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use super::sources::Mirrors;
use super::space::{self, Need};
use super::{host, lock};
use crate::workspace::Workspace;
use crate::{process, progress};

/// What package lists of up to two releases and apt's index of them take, with room for the next
/// ones: 170 MB of them were seen.
const LISTS_BYTES: u64 = 250_000_000;
/// What is unpacked of a package of ours: 85 MB of device trees, and an Image of 50 MB.
const UNPACKED_BYTES: u64 = 180_000_000;
const LISTS: &str = "fetching package lists";
/// dpkg's locks, which apt takes to install.
const DPKG_LOCKS: [&str; 2] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"];

/// A version of a package that a source offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The Debian version, such as 1:10.0.2+ds-2.
    pub version: String,
    /// The suite it is in.
    pub suite: String,
}

impl Offer {
    /// The first number of the upstream version.
    pub fn major(&self) -> u32 {
        let upstream = self.version.split_once(':').map_or(self.version.as_str(), |(_, upstream)| upstream);
        let digits = upstream.find(|c: char| !c.is_ascii_digit()).unwrap_or(upstream.len());
        upstream[..digits].parse().unwrap_or(0)
    }
}

/// apt for this machine's own packages.
#[derive(Debug)]
pub struct HostApt {
    options: Vec<String>,
    codename: String,
    folder: PathBuf,
    _lock: File,
}

/// What an installation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How many packages.
    pub packages: usize,
    /// What is downloaded, bytes.
    pub download: u64,
    /// What it takes once it is installed, bytes.
    pub installed: u64,
}

impl HostApt {
    /// Writes the source list and fetches the package lists.
    pub fn update(workspace: &Workspace) -> Result<Self> {
        let mirrors = Mirrors::of_this_machine()?;
        let folder = workspace.folder("setup/apt")?;
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let lock = lock::of_our_runs(&folder.join("run.lock"), "installing packages")?;
        let list = folder.join("debian.sources");
        let architecture = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
        let apt = Self {
            options: vec![
                format!("Dir::Etc::sourcelist={}", list.display()),
                "Dir::Etc::sourceparts=-".into(),
                format!("Dir::State::lists={}", folder.join("lists").display()),
                format!("Dir::Cache={}", folder.join("cache").display()),
                "APT::Sandbox::User=root".into(),
            ],
            codename: mirrors.codename.clone(),
            folder,
            _lock: lock,
        };
        let own: &[&str] = &[&mirrors.codename];
        let ready = || apt.check_ready(&[]);
        update_with_what_backports_there_are(&mirrors, own, own, architecture.trim(), &list, ready, || {
            apt.command("apt-get", &["update"])
        })?;
        Ok(apt)
    }

    /// Waits for whoever holds a lock of apt's, and checks that there is room for new lists.
    fn check_ready(&self, more_locks: &[&str]) -> Result<()> {
        let own = ["lists/lock", "cache/archives/lock"].map(|name| self.folder.join(name));
        let locks = own.iter().map(PathBuf::as_path).chain(more_locks.iter().map(Path::new));
        lock::wait_for_apt(&locks.collect::<Vec<_>>())?;
        space::check(LISTS, &[Need { folder: &self.folder, bytes: LISTS_BYTES }])
    }

    /// What installing these packages would take, with those that they depend on.
    pub fn size(&self, packages: &[&str], from: &Suite) -> Result<Size> {
        let mut words = self.words(packages, from);
        words.insert(1, "--print-uris".to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let fetched = fetched(&process::capture(&mut self.command("apt-get", &words))?);
        let download = fetched.iter().map(|package| package.bytes).sum();
        let mut show = vec!["show".to_owned()];
        show.extend(fetched.iter().map(|package| package.name_and_version.clone()));
        let shown = match fetched.is_empty() {
            true => String::new(),
            false => {
                let words: Vec<&str> = show.iter().map(String::as_str).collect();
                process::capture(&mut self.command("apt-cache", &words))?
            }
        };
        Ok(Size { packages: fetched.len(), download, installed: installed(&shown) })
    }

    fn words(&self, packages: &[&str], from: &Suite) -> Vec<String> {
        let mut words: Vec<String> = ["install", "-y", "--no-install-recommends"].map(str::to_owned).into();
        if *from == Suite::Backports {
            words.extend(["-t".to_owned(), format!("{}-backports", self.codename)]);
        }
        words.extend(packages.iter().map(|package| (*package).to_owned()));
        words
    }

    /// The versions of a package on offer.
    pub fn offers(&self, package: &str) -> Result<Vec<Offer>> {
        Ok(offers(&process::capture(&mut self.command("apt-cache", &["madison", package]))?))
    }

    /// Asks for permission, then installs `packages` from the suite `from`.
    pub fn install(&self, what: &str, packages: &[&str], from: &Suite) -> Result<()> {
        let words = self.words(packages, from);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut install = self.command("apt-get", &words);
        host::permission_for_root(what, &install)?;
        self.check_ready(&DPKG_LOCKS)?;
        let size = self.size(packages, from)?;
        let needs = [
            Need { folder: &self.folder, bytes: size.download },
            Need { folder: Path::new("/usr"), bytes: size.installed },
        ];
        space::check(&format!("installing {what}"), &needs)?;
        install.env("DEBIAN_FRONTEND", "noninteractive");
        progress::during(&format!("installing {}", packages.join(", ")), || process::capture(&mut install))?;
        Ok(())
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.args(words);
        command
    }
}

/// Which of a release's suites a package is installed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// The release itself and its security updates.
    Release,
    /// Its backports.
    Backports,
}

/// Whether this run has fetched the lists of arm64 packages already.
static UPDATED: AtomicBool = AtomicBool::new(false);

/// apt for arm64 packages that are unpacked and never installed.
#[derive(Debug)]
pub struct PrivateApt {
    folder: PathBuf,
    _lock: File,
}

impl PrivateApt {
    /// Sets the private root up and fetches the package lists.
    pub fn update(workspace: &Workspace) -> Result<Self> {
        let mirrors = Mirrors::of_this_machine()?;
        let folder = workspace.folder("payload/apt")?;
        let lock = lock::of_our_runs(&folder.join("run.lock"), "downloading packages")?;
        let apt = Self { folder, _lock: lock };
        for folder in ["etc/empty", "state/lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(apt.folder.join(folder))?;
        }
        fs::write(apt.folder.join("state/status"), "")?;
        let of_host = process::capture(Command::new("apt-config").arg("dump"))?;
        fs::write(apt.configuration(), configuration(&apt.folder, &of_host))?;
        // Whatever runs here, the oldest line is in bookworm, and the newest are among trixie's
        // backports.
        let own = mirrors.codename.as_str();
        let mut releases = vec![own];
        releases.extend((own != "bookworm").then_some("bookworm"));
        let mut backports = vec![own];
        backports.extend((own != "trixie").then_some("trixie"));
        let list = apt.folder.join("etc/debian.sources");
        if UPDATED.load(Ordering::Relaxed) {
            return Ok(apt);
        }
        let ready = || apt.check_ready();
        update_with_what_backports_there_are(&mirrors, &releases, &backports, "arm64", &list, ready, || {
            apt.command("apt-get", &["update"])
        })?;
        UPDATED.store(true, Ordering::Relaxed);
        Ok(apt)
    }

    /// As [`HostApt::check_ready`].
    fn check_ready(&self) -> Result<()> {
        let locks = ["state/lists/lock", "cache/archives/lock"].map(|name| self.folder.join(name));
        lock::wait_for_apt(&locks.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        space::check(LISTS, &[Need { folder: &self.folder, bytes: LISTS_BYTES }])
    }

    /// The names of all packages on offer that match a POSIX extended regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = process::capture(&mut self.command("apt-cache", &["search", "--names-only", pattern]))?;
        Ok(found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// Downloads a package. Gives its file and its version.
    pub fn download(&self, package: &str) -> Result<(PathBuf, String)> {
        let offers = offers(&process::capture(&mut self.command("apt-cache", &["madison", package]))?);
        let Some(newest) = offers.first() else { bail!("no configured source offers {package} for arm64") };
        let bytes = self.size(package)?.saturating_add(UNPACKED_BYTES);
        space::check(&format!("downloading {package}"), &[Need { folder: &self.folder, bytes }])?;
        // A folder for each package, so that the file is found whatever apt calls it.
        let folder = self.folder.join("packages").join(package);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let mut download = self.command("apt-get", &["download", &format!("{package}={}", newest.version)]);
        download.current_dir(&folder);
        progress::during(&format!("downloading {package} {}", newest.version), || {
            process::capture(&mut download)
        })?;
        let mut files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let file = files.find(|file| file.extension().is_some_and(|extension| extension == "deb"));
        let file =
            file.with_context(|| format!("apt-get download left no package in {}", folder.display()))?;
        Ok((file, newest.version.clone()))
    }

    /// The bytes of the newest version of a package.
    pub fn size(&self, package: &str) -> Result<u64> {
        let shown =
            process::capture(&mut self.command("apt-cache", &["show", "--no-all-versions", package]))?;
        let size = shown.lines().find_map(|line| line.strip_prefix("Size: ")?.trim().parse().ok());
        size.with_context(|| format!("apt-cache show says no size of {package}"))
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("etc/apt.conf")
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.configuration()).env("LC_ALL", "C").args(words);
        command
    }
}

/// apt's configuration for the private root. It takes over only how the machine's own apt downloads
/// (proxies, time-outs), not its hooks, pins and architectures.
fn configuration(folder: &Path, of_host: &str) -> String {
    let unwanted = ["Acquire::IndexTargets", "Acquire::Languages"];
    let kept = of_host.lines().filter(|line| {
        line.starts_with("Acquire::") && !unwanted.iter().any(|prefix| line.starts_with(prefix))
    });
    let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
    let root = folder.display();
    text.push_str(&format!(
        r#"Acquire::Languages "none";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
Dir::State "{root}/state";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
Dir::Etc::main "{root}/etc/none";
Dir::Etc::parts "{root}/etc/empty";
Dir::Etc::sourcelist "{root}/etc/debian.sources";
Dir::Etc::sourceparts "{root}/etc/empty";
Dir::Etc::preferences "{root}/etc/none";
Dir::Etc::preferencesparts "{root}/etc/empty";
"#
    ));
    text
}

/// Fetches the package lists with all `backports`, else with each alone, else with none. Backports
/// of an old release leave the mirrors one day, and all else must stay available then.
/// `ready` stops that: a full disk is not a mirror's fault.
fn update_with_what_backports_there_are(
    mirrors: &Mirrors,
    releases: &[&str],
    backports: &[&str],
    architecture: &str,
    list: &Path,
    ready: impl Fn() -> Result<()>,
    update: impl Fn() -> Command,
) -> Result<()> {
    let attempt = |backports: &[&str]| {
        ready()?;
        fs::write(list, mirrors.source_list(releases, backports, architecture))
            .with_context(|| format!("writing {}", list.display()))?;
        let mut update = update();
        update.args(["-o", "APT::Update::Error-Mode=any"]);
        progress::during(LISTS, || process::capture(&mut update))
    };
    let Err(with_all) = attempt(backports) else { return Ok(()) };
    ready()?;
    let fewer = backports.chunks(1).filter(|_| backports.len() > 1).chain([&[][..]]);
    match fewer.map(attempt).any(|outcome| outcome.is_ok()) {
        true => Ok(()),
        false => Err(with_all),
    }
}

/// A package that apt would download.
#[derive(Debug, PartialEq, Eq)]
struct Fetched {
    /// As apt-cache takes it: name=version.
    name_and_version: String,
    bytes: u64,
}

/// `apt-get install --print-uris`: lines of "'uri' name_version_architecture.deb size hash".
fn fetched(printed: &str) -> Vec<Fetched> {
    let package = |line: &str| {
        let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
        let (file, bytes) = (words.next()?, words.next()?.parse().ok()?);
        let (name, rest) = file.split_once('_')?;
        let version = rest.split('_').next()?.replace("%3a", ":");
        Some(Fetched { name_and_version: format!("{name}={version}"), bytes })
    };
    printed.lines().filter_map(package).collect()
}

/// The sum of what `apt-cache show` says, which is in KiB, in bytes.
fn installed(shown: &str) -> u64 {
    let size = |line: &str| line.strip_prefix("Installed-Size: ")?.trim().parse::<u64>().ok();
    shown.lines().filter_map(size).sum::<u64>().saturating_mul(1024)
}

/// `apt-cache madison`: lines of "package | version | source", newest first.
fn offers(madison: &str) -> Vec<Offer> {
    let offer = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        let (version, source) = (columns.nth(1)?, columns.next()?);
        let suite = source.split_whitespace().nth(1)?.split('/').next()?;
        Some(Offer { version: version.to_owned(), suite: suite.to_owned() })
    };
    madison.lines().filter_map(offer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_with_their_suites() {
        let found = offers(
            "qemu-system-arm | 1:10.0.2+ds-2~bpo12+1 | http://m.example/debian bookworm-backports/main amd64 \
             Packages\n\
             qemu-system-arm | 1:7.2+dfsg-7 | http://m.example/debian bookworm/main amd64 Packages\nW: \
             odd line\n",
        );
        let majors: Vec<_> = found.iter().map(|offer| (offer.major(), offer.suite.as_str())).collect();
        assert_eq!(majors, [(10, "bookworm-backports"), (7, "bookworm")]);
    }

    #[test]
    fn sizes_are_read_from_the_uris_that_apt_would_fetch_and_from_what_it_shows() {
        let printed = "Reading package lists...\n\
            'http://m.example/pool/a_1%3a2_amd64.deb' a_1%3a2-3_amd64.deb 1200 SHA256:00\n\
            'http://m.example/pool/b_1_all.deb' b_1_all.deb 34 MD5Sum:00\n";
        let package = |name: &str, bytes| Fetched { name_and_version: name.to_owned(), bytes };
        assert_eq!(fetched(printed), [package("a=1:2-3", 1200), package("b=1", 34)]);
        assert_eq!(fetched("Reading package lists...\n"), []);
        let shown = "Package: a\nInstalled-Size: 10\nSize: 1200\n\nPackage: b\nInstalled-Size: 2\n";
        assert_eq!(installed(shown), 12 << 10);
    }

    #[test]
    fn only_how_things_are_acquired_comes_from_the_machine() {
        let of_host = "APT::Architectures:: \"amd64\";\n\
                       APT::Update::Post-Invoke:: \"rm -f /var/cache/apt/archives/*.deb\";\n\
                       Acquire::http::Proxy \"http://proxy.example:3128\";\n\
                       Acquire::Languages \"de\";\n\
                       Dir::Cache::pkgcache \"\";\n";
        let text = configuration(Path::new("/t"), of_host);
        assert!(text.contains("Acquire::http::Proxy \"http://proxy.example:3128\";\n"));
        for unwanted in ["amd64", "Post-Invoke", "\"de\"", "pkgcache"] {
            assert!(!text.contains(unwanted), "{unwanted}");
        }
    }
}

//! What linmap hands over to: Debian's arm64 Linux, Xen and BusyBox, and the kexec that Linux comes
//! back with, downloaded once into target/payload. One of the kernel packages also has the device
//! trees of arm64 boards.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::apt::PrivateApt;
use super::deb::Deb;
use super::{device_trees, modules};
use crate::checksum::sha256;
use crate::progress;
use crate::workspace::{Workspace, write_atomically};

/// A line of Debian's kernels, or its hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// 6.1, from before the 2024 improvements to building the linear map.
    Linux6_1,
    /// 6.12, with them.
    Linux6_12,
    /// 6.12 with pages of 16K.
    Linux16K,
    /// 6.18, the first long-term line that maps blocks on CPUs with BBML2.
    Linux6_18,
    /// The newest of all.
    Newest,
    /// The newest Xen.
    Xen,
}

impl Line {
    /// All lines that there are.
    pub const ALL: [Self; 6] =
        [Self::Linux6_1, Self::Linux6_12, Self::Linux16K, Self::Linux6_18, Self::Newest, Self::Xen];

    /// Those of Linux.
    pub const LINUX: [Self; 5] =
        [Self::Linux6_1, Self::Linux6_12, Self::Linux16K, Self::Linux6_18, Self::Newest];

    /// The line whose package has the device trees.
    const WITH_DEVICE_TREES: Self = Self::Linux6_18;

    /// The folder below target/payload, and what messages call the line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Linux6_1 => "linux-6.1",
            Self::Linux6_12 => "linux-6.12",
            Self::Linux16K => "linux-16k",
            Self::Linux6_18 => "linux-6.18",
            Self::Newest => "linux-newest",
            Self::Xen => "xen",
        }
    }

    fn packages(self) -> Packages {
        let image = |release, flavour| Packages {
            start: "linux-image-",
            release: Some(release),
            flavour,
            member: "./boot/vmlinuz-*",
        };
        match self {
            Self::Linux6_1 => image("6.1", "arm64"),
            Self::Linux6_12 => image("6.12", "arm64"),
            Self::Linux16K => image("6.12", "arm64-16k"),
            Self::Linux6_18 => image("6.18", "arm64"),
            // Since 6.19 the kernel is in a package of its own, without the modules.
            Self::Newest => Packages {
                start: "linux-binary-",
                release: None,
                flavour: "arm64",
                member: "*/lib/modules/*/vmlinuz",
            },
            Self::Xen => Packages {
                start: "xen-hypervisor-",
                release: None,
                flavour: "arm64",
                member: "./boot/xen-*-arm64",
            },
        }
    }
}

/// How a line's packages are called, and what in them is the kernel.
#[derive(Debug, Clone, Copy)]
struct Packages {
    start: &'static str,
    /// The release's first numbers; any release without them.
    release: Option<&'static str>,
    /// What follows the release.
    flavour: &'static str,
    member: &'static str,
}

impl Packages {
    /// Of these packages, the line's own with the highest release.
    fn newest(self, names: &[String]) -> Option<String> {
        names.iter().filter(|name| self.has(name)).max_by_key(|name| numbers(name)).cloned()
    }

    fn has(self, name: &str) -> bool {
        let release = || {
            let release = name.strip_prefix(self.start)?.strip_suffix(self.flavour)?.strip_suffix('-')?;
            match self.release {
                Some(first) => release.strip_prefix(first)?.strip_prefix('.'),
                None => Some(release),
            }
        };
        // After a hyphen there is an ABI number, or a word that makes it another flavour.
        release().is_some_and(|release| {
            release.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        })
    }
}

/// A file of the payload.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Where it is.
    pub path: PathBuf,
    pub(super) package: String,
    version: String,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.path.display(), self.package, self.version)
    }
}

/// Which package has something.
pub type Find = Box<dyn Fn(&PrivateApt) -> Result<String>>;

/// The names of what is not there, and how each package is found. `tools` are BusyBox and kexec.
pub fn what_is_missing(workspace: &Workspace, lines: &[Line], tools: Tools) -> Result<Vec<(String, Find)>> {
    let folder = workspace.folder("payload")?;
    // A file that differs from what was downloaded is only found when it is used.
    let is_missing = |name: &str, file: &str| !folder.join(name).join(file).exists();
    let mut missing: Vec<(String, Find)> = Vec::new();
    for &line in lines.iter().filter(|line| is_missing(line.name(), "Image")) {
        missing.push((line.name().to_owned(), Box::new(move |apt| newest_package(apt, line))));
    }
    if tools != Tools::None && is_missing("busybox", "busybox") {
        missing.push(("BusyBox".to_owned(), Box::new(|_| Ok(BUSYBOX.to_owned()))));
    }
    if tools == Tools::All {
        for part in KEXEC.iter().filter(|part| is_missing(KEXEC_FOLDER, part.file)) {
            missing.push((format!("kexec's {}", part.file), Box::new(|apt| part.package(apt))));
        }
    }
    // They come with the kernel of their package, if that is missing too.
    let of = Line::WITH_DEVICE_TREES;
    if lines == Line::ALL && !is_missing(of.name(), "Image") && is_missing(of.name(), DEVICE_TREES.file) {
        missing.push(("device trees".to_owned(), Box::new(move |apt| newest_package(apt, of))));
    }
    Ok(missing)
}

const BUSYBOX: &str = "busybox-static";

/// Which programs for the payload's user space are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// None.
    None,
    /// BusyBox.
    BusyBox,
    /// BusyBox and kexec.
    All,
}

/// The folder below target/payload with kexec and its libraries, each by the name that the loader
/// looks for.
const KEXEC_FOLDER: &str = "kexec-tools";

/// A file of kexec or of a library that it needs.
struct Part {
    /// The package's name, up to a version if `versioned`.
    package: &'static str,
    /// Whether a version is part of the package's name.
    versioned: bool,
    /// The file in the package.
    member: &'static str,
    /// The file's name in [`KEXEC_FOLDER`].
    file: &'static str,
}

impl Part {
    const fn of(package: &'static str, member: &'static str, file: &'static str) -> Self {
        Self { package, versioned: false, member, file }
    }

    fn package(&self, apt: &PrivateApt) -> Result<String> {
        if !self.versioned {
            return Ok(self.package.to_owned());
        }
        let names = apt.names(&format!("^{}[0-9.]+$", self.package))?;
        let newest = names.into_iter().max_by_key(|name| numbers(name));
        newest.with_context(|| format!("the configured Debian mirrors offer no {}*", self.package))
    }
}

/// kexec, and what `readelf -d` says that it needs. Debian's is linked to Xen's libraries.
static KEXEC: [Part; 12] = [
    Part::of("kexec-tools", "*/sbin/kexec", "kexec"),
    Part::of("libc6", "*/ld-linux-aarch64.so.1", "ld-linux-aarch64.so.1"),
    Part::of("libc6", "*/libc.so.6", "libc.so.6"),
    Part::of("zlib1g", "*/libz.so.1.*", "libz.so.1"),
    Part { versioned: true, ..Part::of("libxenmisc", "*/libxenctrl.so.*.0", "libxenctrl.so") },
    Part::of("libxencall1", "*/libxencall.so.1.*", "libxencall.so.1"),
    Part::of("libxendevicemodel1", "*/libxendevicemodel.so.1.*", "libxendevicemodel.so.1"),
    Part::of("libxenevtchn1", "*/libxenevtchn.so.1.*", "libxenevtchn.so.1"),
    Part::of("libxenforeignmemory1", "*/libxenforeignmemory.so.1.*", "libxenforeignmemory.so.1"),
    Part::of("libxengnttab1", "*/libxengnttab.so.1.*", "libxengnttab.so.1"),
    Part::of("libxentoolcore1", "*/libxentoolcore.so.1.*", "libxentoolcore.so.1"),
    Part::of("libxentoollog1", "*/libxentoollog.so.1.*", "libxentoollog.so.1"),
];

/// kexec and its libraries: the folder that they are in.
pub fn kexec_tools(workspace: &Workspace) -> Result<PathBuf> {
    for part in &KEXEC {
        let name = format!("{KEXEC_FOLDER}/{}", part.file);
        let content = Content::Member(part.member);
        let file = CachedFile { name: &name, of: KEXEC_FOLDER, file: part.file, content };
        fetch(workspace, file, None, None, |apt| part.package(apt)).with_context(|| hint("kexec"))?;
    }
    Ok(workspace.folder("payload")?.join(KEXEC_FOLDER))
}

/// The newest package of a line.
fn newest_package(apt: &PrivateApt, line: Line) -> Result<String> {
    let packages = line.packages();
    let names = apt.names(&format!("^{}[0-9].*-{}$", packages.start, packages.flavour))?;
    packages.newest(&names).with_context(|| {
        let release = packages.release.map_or(String::new(), |release| format!("{release}."));
        let (start, flavour) = (packages.start, packages.flavour);
        format!("the configured Debian mirrors offer no {start}{release}*-{flavour}")
    })
}

/// The newest kernel of a line.
pub fn linux(workspace: &Workspace, line: Line) -> Result<Payload> {
    let content = Content::Member(line.packages().member);
    let image = CachedFile { name: line.name(), of: line.name(), file: "Image", content };
    let trees = (line == Line::WITH_DEVICE_TREES).then_some(DEVICE_TREES);
    fetch(workspace, image, trees, None, |apt| newest_package(apt, line))
        .with_context(|| hint(&format!("the payload {}", line.name())))
}

/// The device trees of arm64 boards: an archive for the tests.
pub fn device_trees(workspace: &Workspace) -> Result<Payload> {
    fetch(workspace, DEVICE_TREES, None, None, |apt| newest_package(apt, Line::WITH_DEVICE_TREES))
        .context("the device trees, which the tests need, can't be downloaded")
}

/// Static BusyBox.
pub fn busybox(workspace: &Workspace) -> Result<Payload> {
    let content = Content::Member("*/bin/busybox");
    let busybox = CachedFile { name: "busybox", of: "busybox", file: "busybox", content };
    fetch(workspace, busybox, None, None, |_| Ok(BUSYBOX.to_owned())).with_context(|| hint("BusyBox"))
}

pub(super) fn hint(what: &str) -> String {
    format!(
        "{what} can't be downloaded; `boot --payload self` needs no download, `--kernel` and `--initrd` take \
         your own"
    )
}

/// A file below target/payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedFile<'n> {
    /// Its name in the manifest.
    pub name: &'n str,
    /// Its folder.
    pub of: &'static str,
    /// Its name in the folder.
    pub file: &'static str,
    /// What it holds.
    pub content: Content,
}

/// What of a package a file holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// The one member that this pattern matches.
    Member(&'static str),
    /// All device trees, in an archive.
    DeviceTrees,
    /// The modules that the workload loads, in an archive.
    Modules,
}

const DEVICE_TREES: CachedFile<'static> = CachedFile {
    name: "device-trees",
    of: Line::WITH_DEVICE_TREES.name(),
    file: device_trees::FILE,
    content: Content::DeviceTrees,
};

impl CachedFile<'_> {
    fn unpack(&self, deb: &Deb, package: &str, version: &str) -> Result<Vec<u8>> {
        match self.content {
            Content::Member(pattern) => deb.member(pattern),
            Content::DeviceTrees => device_trees::archive(deb, &format!("{package} {version}")),
            Content::Modules => modules::archive(deb),
        }
    }
}

/// The cached `file`, downloaded if it is missing or differs from what was downloaded before, or is
/// of another package than `package`. A download also gives the file `beside`, which is of the same
/// package.
pub(super) fn fetch(
    workspace: &Workspace,
    file: CachedFile<'_>,
    beside: Option<CachedFile<'_>>,
    package: Option<&str>,
    find: impl Fn(&PrivateApt) -> Result<String>,
) -> Result<Payload> {
    let folder = workspace.folder("payload")?;
    let path = |of: CachedFile<'_>| folder.join(of.of).join(of.file);
    let manifest = folder.join("manifest.json");
    let cached = || {
        let payload = cached(&manifest, file.name, &path(file))?;
        package.is_none_or(|package| package == payload.package).then_some(payload)
    };
    if let Some(payload) = cached() {
        return Ok(payload);
    }
    // Two runs at the same time: the second waits and finds what the first has fetched.
    let lock = fs::File::create(folder.join("lock"))?;
    progress::during("waiting for another download", || flock(&lock, FlockOperation::LockExclusive))?;
    if let Some(payload) = cached() {
        return Ok(payload);
    }
    let apt = PrivateApt::update(workspace)?;
    let package = find(&apt)?;
    let (deb, version) = apt.download(&package)?;
    let deb = Deb::at(deb);
    for file in [Some(file), beside].into_iter().flatten() {
        let unpacking = format!("unpacking {}: {}", package, file.name);
        let content = progress::during(&unpacking, || file.unpack(&deb, &package, &version))?;
        write_atomically(&path(file), &content)?;
        let mut entries = read_manifest(&manifest);
        entries[file.name] = json!({"package": package, "version": version, "sha256": sha256(&content)});
        write_atomically(&manifest, format!("{entries:#}\n").as_bytes())?;
    }
    deb.remove()?;
    Ok(Payload { path: path(file), package, version })
}

fn cached(manifest: &Path, name: &str, path: &Path) -> Option<Payload> {
    let entries = read_manifest(manifest);
    let text = |key: &str| Some(entries.get(name)?.get(key)?.as_str()?.to_owned());
    let content = fs::read(path).ok()?;
    (text("sha256")? == sha256(&content)).then_some(Payload {
        path: path.to_owned(),
        package: text("package")?,
        version: text("version")?,
    })
}

/// The manifest's entries; none if it is missing or malformed, so that all is fetched anew.
fn read_manifest(manifest: &Path) -> Value {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    serde_json::from_str(&text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

/// The numbers in a release in their order, which is how kernel releases of one line compare.
fn numbers(release: &str) -> Vec<u64> {
    let runs = release.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    runs.map(|run| run.parse().unwrap_or(u64::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(names: &[&str], line: Line) -> Option<String> {
        line.packages().newest(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_newest_plain_kernel_of_the_line_is_chosen() {
        let names = [
            "linux-image-6.12.9+bpo-arm64",
            "linux-image-6.12.95+deb12-arm64",
            "linux-image-6.12.117+deb12-arm64",
            "linux-image-6.12.43+deb12-arm64",
            "linux-image-6.12.200+deb12-rt-arm64",
            "linux-image-6.12.200+deb12-cloud-arm64",
            "linux-image-6.12.200+deb12-arm64-16k",
            "linux-image-6.12.200+deb12-arm64-dbg",
            "linux-image-6.12.200+deb12-amd64",
            "linux-image-6.120.1+deb12-arm64",
            "linux-image-arm64",
            "linux-image-6.1.0-9-arm64",
        ];
        assert_eq!(newest(&names, Line::Linux6_12).as_deref(), Some("linux-image-6.12.117+deb12-arm64"));
    }

    #[test]
    fn the_abi_number_of_the_older_line_is_compared_as_a_number() {
        let names = [
            "linux-image-6.1.0-9-arm64",
            "linux-image-6.1.0-56-arm64",
            "linux-image-6.1.0-40-arm64",
            "linux-image-6.1.0-57-rt-arm64",
            "linux-image-6.1.0-0.deb11.60-arm64",
            "linux-image-6.12.117+deb12-arm64",
        ];
        assert_eq!(newest(&names, Line::Linux6_1).as_deref(), Some("linux-image-6.1.0-56-arm64"));
        assert_eq!(newest(&names[5..], Line::Linux6_1), None);
    }

    #[test]
    fn a_flavour_is_chosen_only_by_the_line_that_names_it() {
        let names = [
            "linux-image-6.12.9+deb12-arm64-16k",
            "linux-image-6.12.95+deb12-arm64-16k",
            "linux-image-6.12.200+deb12-arm64",
            "linux-image-6.12.200+deb12-rt-arm64-16k",
            "linux-image-6.18.15+deb13-arm64-16k",
            "linux-image-6.12.200+deb12-arm64-16k-unsigned",
        ];
        assert_eq!(newest(&names, Line::Linux16K).as_deref(), Some("linux-image-6.12.95+deb12-arm64-16k"));
        assert_eq!(newest(&names, Line::Linux6_18), None);
    }

    #[test]
    fn the_newest_of_all_is_the_plain_kernel_with_the_highest_release() {
        let names = [
            "linux-binary-6.19.14+deb13-arm64",
            "linux-binary-7.2.13+deb14-arm64",
            "linux-binary-7.10.4+deb13-arm64",
            "linux-binary-7.11.1+deb13-rt-arm64",
            "linux-binary-7.11.1+deb13-arm64-16k",
            "linux-image-7.12.1+deb13-arm64",
        ];
        assert_eq!(newest(&names, Line::Newest).as_deref(), Some("linux-binary-7.10.4+deb13-arm64"));
    }

    #[test]
    fn the_newest_hypervisor_is_none_of_the_packages_around_it() {
        let names = [
            "xen-hypervisor-4.9-arm64",
            "xen-hypervisor-4.17-arm64",
            "xen-hypervisor-4.17-arm64-dbg",
            "xen-hypervisor-common",
        ];
        assert_eq!(newest(&names, Line::Xen).as_deref(), Some("xen-hypervisor-4.17-arm64"));
    }

    #[test]
    fn a_cached_file_that_was_changed_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (manifest, path) = (folder.path().join("manifest.json"), folder.path().join("Image"));
        fs::write(&path, b"content").unwrap();
        let entry = json!({"x": {"package": "p", "version": "1", "sha256": sha256(b"content")}});
        fs::write(&manifest, entry.to_string()).unwrap();
        assert_eq!(cached(&manifest, "x", &path).map(|payload| payload.version), Some("1".into()));
        assert!(cached(&manifest, "y", &path).is_none());
        fs::write(&path, b"conten").unwrap();
        assert!(cached(&manifest, "x", &path).is_none());
        fs::write(&manifest, b"[").unwrap();
        assert!(cached(&manifest, "x", &path).is_none());
    }
}

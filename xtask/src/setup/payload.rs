//! What linmap hands over to: Debian's arm64 Linux and BusyBox, downloaded once into target/payload.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::apt::PrivateApt;
use crate::workspace::{Workspace, write_atomically};
use crate::{process, progress};

/// A line of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// 6.12, with the 2024 improvements to building the linear map.
    Linux6_12,
    /// 6.1, from before them.
    Linux6_1,
}

impl Line {
    fn release(self) -> &'static str {
        match self {
            Self::Linux6_12 => "6.12",
            Self::Linux6_1 => "6.1",
        }
    }
}

/// A file of the payload.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Where it is.
    pub path: PathBuf,
    package: String,
    version: String,
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.path.display(), self.package, self.version)
    }
}

/// The newest kernel of a line.
pub fn linux(workspace: &Workspace, line: Line) -> Result<Payload> {
    let release = line.release();
    let find = |apt: &PrivateApt| {
        let names = apt.names(&format!("^linux-image-{}\\..*-arm64$", release.replace('.', "\\.")))?;
        newest_kernel(&names, release).with_context(|| {
            format!("the configured Debian mirrors offer no arm64 kernel of the {release} line")
        })
    };
    fetch(workspace, &format!("linux-{release}"), "Image", "./boot/vmlinuz-*", find)
        .with_context(|| hint(&format!("the Linux {release} payload")))
}

/// Static BusyBox.
pub fn busybox(workspace: &Workspace) -> Result<Payload> {
    let find = |_: &PrivateApt| Ok("busybox-static".to_owned());
    fetch(workspace, "busybox", "busybox", "*/bin/busybox", find).with_context(|| hint("BusyBox"))
}

fn hint(what: &str) -> String {
    format!(
        "{what} can't be had; `boot --payload self` needs no download, `--kernel` and `--initrd` take your own"
    )
}

/// The cached file of `name`, downloaded when it is not there or not what was put there.
fn fetch(
    workspace: &Workspace,
    name: &str,
    file: &str,
    member: &str,
    find: impl Fn(&PrivateApt) -> Result<String>,
) -> Result<Payload> {
    let folder = workspace.folder("payload")?;
    let path = folder.join(name).join(file);
    let manifest = folder.join("manifest.json");
    if let Some(payload) = cached(&manifest, name, &path) {
        return Ok(payload);
    }
    // Two runs at the same time: the second waits and finds what the first has fetched.
    let lock = fs::File::create(folder.join("lock"))?;
    progress::during("waiting for another download", || flock(&lock, FlockOperation::LockExclusive))?;
    if let Some(payload) = cached(&manifest, name, &path) {
        return Ok(payload);
    }
    let apt = PrivateApt::update(workspace)?;
    let package = find(&apt)?;
    let (deb, version) = apt.download(&package)?;
    let content = progress::during(&format!("unpacking {package}"), || unpack(&deb, member))?;
    write_atomically(&path, &content)?;
    let mut entries = read_manifest(&manifest);
    entries[name] = json!({"package": package, "version": version, "sha256": sha256(&content)});
    write_atomically(&manifest, format!("{entries:#}\n").as_bytes())?;
    fs::remove_file(&deb)?;
    Ok(Payload { path, package, version })
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

/// The manifest's entries; none where it is missing or no manifest, so that all is fetched anew.
fn read_manifest(manifest: &Path) -> Value {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    serde_json::from_str(&text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The one member of a package that `pattern` matches.
fn unpack(deb: &Path, pattern: &str) -> Result<Vec<u8>> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut unpacking = unpack.spawn().with_context(|| format!("running {}", process::line(&unpack)))?;
    let tar_file = unpacking.stdout.take().context("dpkg-deb has no output")?;
    let mut extract = Command::new("tar");
    extract.args(["--extract", "--to-stdout", "--wildcards", pattern]).stdin(tar_file);
    let extracted = extract.output().with_context(|| format!("running {}", process::line(&extract)))?;
    let unpacked = unpacking.wait()?;
    if !unpacked.success() || !extracted.status.success() || extracted.stdout.is_empty() {
        let said = String::from_utf8_lossy(&extracted.stderr);
        bail!("{} holds no {pattern}, or can't be unpacked: {}", deb.display(), said.trim_end());
    }
    Ok(extracted.stdout)
}

/// Of these packages, the plain kernel of the line with the highest release: no -rt, -cloud, -16k or -dbg.
fn newest_kernel(names: &[String], line: &str) -> Option<String> {
    let plain = |name: &&String| {
        let release = name.strip_prefix("linux-image-").and_then(|rest| rest.strip_suffix("-arm64"));
        let after = release.and_then(|release| release.strip_prefix(line)?.strip_prefix('.'));
        // A flavour is a word behind a hyphen; what may stand there otherwise is the ABI number.
        after.is_some_and(|after| {
            after.split('-').skip(1).all(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    names.iter().filter(plain).max_by_key(|name| numbers(name)).cloned()
}

/// The numbers in a release in their order, which is how kernel releases of one line compare.
fn numbers(release: &str) -> Vec<u64> {
    let runs = release.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    runs.map(|run| run.parse().unwrap_or(u64::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(names: &[&str], line: &str) -> Option<String> {
        newest_kernel(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), line)
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
        assert_eq!(newest(&names, "6.12").as_deref(), Some("linux-image-6.12.117+deb12-arm64"));
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
        assert_eq!(newest(&names, "6.1").as_deref(), Some("linux-image-6.1.0-56-arm64"));
        assert_eq!(newest(&names[5..], "6.1"), None);
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
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

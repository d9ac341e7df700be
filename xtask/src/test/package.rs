//! `cargo package` of the crates that are published, each verified by a build of what is in its
//! archive.
//!
//! Crates that are documented for the bare-metal target are verified for it, together with those of
//! ours that they need. cargo takes these from the archives made in the same run.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::process;
use crate::setup::toolchain::TARGET;
use crate::workspace::Workspace;

/// The crates that are published, by where they are verified, each with those that it needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Published<'m> {
    /// For the host.
    pub host: Vec<&'m str>,
    /// For the bare-metal target.
    pub bare_metal: Vec<&'m str>,
}

impl<'m> Published<'m> {
    /// What `cargo metadata --no-deps` says.
    pub fn read(metadata: &'m Value) -> Result<Self> {
        let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
        let published: Vec<&Value> = packages.iter().filter(|package| package["publish"].is_null()).collect();
        let (bare_metal, host): (Vec<&Value>, Vec<&Value>) =
            published.iter().partition(|package| is_for_bare_metal(package));
        Ok(Self { host: with_needs(host, &published), bare_metal: with_needs(bare_metal, &published) })
    }
}

/// The names of `wanted` and of what they need.
fn with_needs<'m>(mut wanted: Vec<&'m Value>, published: &[&'m Value]) -> Vec<&'m str> {
    let mut at = 0;
    while let Some(package) = wanted.get(at) {
        let is_new = |other: &&&Value| needs(package, other) && !wanted.contains(other);
        let needed: Vec<&Value> = published.iter().filter(is_new).copied().collect();
        wanted.extend(needed);
        at += 1;
    }
    wanted.into_iter().filter_map(|package| package["name"].as_str()).collect()
}

fn is_for_bare_metal(package: &Value) -> bool {
    let targets = &package["metadata"]["docs"]["rs"]["targets"];
    targets.as_array().is_some_and(|targets| targets.iter().any(|target| target == TARGET))
}

/// Whether `package` needs `other` to be built; tests don't count.
fn needs(package: &Value, other: &Value) -> bool {
    let all = package["dependencies"].as_array();
    all.is_some_and(|all| all.iter().any(|it| it["name"] == other["name"] && it["kind"].is_null()))
}

/// A folder for one run's archives and builds.
///
/// cargo unpacks the archives as it does crates from a registry, and never again while the version
/// stays the same. So each run has a target folder and a cargo home of its own, whose downloads are
/// those of the user's.
#[derive(Debug)]
pub struct Yard(TempDir);

impl Yard {
    /// Makes the folder below the target folder. It is removed at the end.
    pub fn new(workspace: &Workspace) -> Result<Self> {
        let parent = workspace.folder("packages")?;
        let yard = Self(tempfile::Builder::new().prefix("run-").tempdir_in(parent)?);
        let (home, users) = (yard.home(), cargo_home()?);
        std::fs::create_dir_all(home.join("registry"))?;
        for shared in ["registry/cache", "registry/index", "config.toml"] {
            let from = users.join(shared);
            if from.exists() {
                symlink(&from, home.join(shared)).with_context(|| format!("linking {}", from.display()))?;
            }
        }
        Ok(yard)
    }

    fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }
}

/// The user's cargo home.
fn cargo_home() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let default = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    named.or_else(default).context("neither CARGO_HOME nor HOME is set")
}

/// Runs `cargo package` for `crates`. What cargo prints about files that it leaves out is not
/// shown.
pub fn run(yard: &Yard, mut cargo: Command, crates: &[&str]) -> Result<bool> {
    // All that they need is there, since the workspace was built from the same lock file.
    cargo.arg("--offline").arg("--target-dir").arg(yard.0.path().join("target"));
    cargo.env("CARGO_HOME", yard.home());
    if has_changes(&cargo)? {
        eprintln!("there are uncommitted changes: packaging with --allow-dirty");
        cargo.arg("--allow-dirty");
    }
    crates.iter().for_each(|name| _ = cargo.args(["--package", name]));
    let mut packaging = process::start(cargo.stderr(Stdio::piped()))?;
    let said = BufReader::new(packaging.stderr().context("cargo has no standard error")?);
    for line in said.lines() {
        let line = line?;
        if !line.starts_with("warning: ignoring ") {
            eprintln!("{line}");
        }
    }
    Ok(packaging.wait()?.success())
}

/// Whether git reports uncommitted changes; `false` where git does not work.
fn has_changes(cargo: &Command) -> Result<bool> {
    let mut git = Command::new("git");
    git.args(["status", "--porcelain"]);
    let Some(folder) = cargo.get_current_dir() else { bail!("cargo runs in no folder") };
    let output = process::output(git.current_dir(folder));
    Ok(output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn crates_for_bare_metal_bring_what_they_need_and_nothing_private_is_published() {
        let package = |name: &str, publish: Value, targets: &[&str], needs: &[(&str, Value)]| {
            let needs: Vec<_> =
                needs.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
            json!({"name": name, "publish": publish, "dependencies": needs,
                   "metadata": {"docs": {"rs": {"targets": targets}}}})
        };
        let (all, none) = (Value::Null, json!([]));
        let metadata = json!({"packages": [
            package("values", all.clone(), &[], &[]),
            package("tables", all.clone(), &[], &[("values", Value::Null), ("checks", json!("dev"))]),
            package("checks", all.clone(), &[], &[]),
            package("park", all, &[TARGET], &[("tables", Value::Null), ("thiserror", Value::Null)]),
            package("kernel", none, &[TARGET], &[("park", Value::Null)]),
        ]});
        let published = Published::read(&metadata).unwrap();
        assert_eq!(published.host, ["values", "tables", "checks"]);
        assert_eq!(published.bare_metal, ["park", "tables", "values"]);
    }
}

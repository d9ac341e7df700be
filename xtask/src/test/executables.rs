//! The test programs: built by one run of cargo, so that everything is compiled once.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// A test program.
#[derive(Debug, Clone)]
pub struct Executable {
    /// The package's folder, in which its tests run.
    pub folder: PathBuf,
    /// The package and the target: `linmap-live checks`; of unit tests the package alone.
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

/// Builds what `cargo test --no-run` with these arguments builds. Shows cargo's progress.
pub fn build(cargo: &mut Command) -> Result<Vec<Executable>> {
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    let mut building = process::start(cargo)?;
    let messages = BufReader::new(building.stdout().context("cargo has no output")?);
    let mut found = Vec::new();
    for line in messages.lines() {
        found.extend(serde_json::from_str(&line?).ok().as_ref().and_then(executable));
    }
    let status = building.wait()?;
    if !status.success() {
        bail!("building the tests ended with {status}");
    }
    Ok(found)
}

/// The test program that a message of cargo's is about.
fn executable(message: &Value) -> Option<Executable> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let folder = manifest.parent()?.to_owned();
    // path+file:///folder/name#version, or …/folder#name@version where the two differ.
    let (source, id) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = match id.split_once('@') {
        Some((name, _)) => name,
        None => source.rsplit('/').next()?,
    };
    let target = message["target"]["name"].as_str()?;
    let is_test = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let name = if is_test { format!("{package} {target}") } else { package.to_owned() };
    Some(Executable { folder, name, path: message["executable"].as_str()?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn test_programs_are_named_by_package_and_target() {
        let message = |id: &str, kind: &str, test: bool| {
            executable(&json!({
                "reason": "compiler-artifact", "package_id": id, "manifest_path": "/w/crates/live/Cargo.toml",
                "target": {"name": "checks", "kind": [kind]}, "profile": {"test": test},
                "executable": "/w/target/checks-1",
            }))
        };
        let test = message("path+file:///w/crates/live#linmap-live@0.1.0", "test", true).unwrap();
        assert_eq!((test.name.as_str(), test.folder), ("linmap-live checks", "/w/crates/live".into()));
        let unit = message("path+file:///w/crates/linmap#0.1.0", "lib", true).unwrap();
        assert_eq!(unit.name, "linmap");
        assert!(message("path+file:///w/crates/linmap#0.1.0", "lib", false).is_none());
        assert!(executable(&json!({"reason": "build-finished"})).is_none());
    }
}

//! The packages of the workspace and the files that each is compiled from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A package.
#[derive(Debug, Clone)]
pub struct Package {
    /// As in its Cargo.toml.
    pub name: String,
    /// Its folder below the workspace's root.
    pub folder: PathBuf,
    /// The root file of its library.
    pub library: Option<PathBuf>,
    /// The root files of its programs and its build script.
    pub programs: Vec<PathBuf>,
}

impl Package {
    /// The name that code uses for its library.
    pub fn crate_name(&self) -> String {
        self.name.replace('-', "_")
    }

    /// All root files.
    pub fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.library.iter().chain(&self.programs)
    }
}

/// Reads the packages below `root` from the output of `cargo metadata --no-deps`. Tests, benchmarks
/// and examples are left out.
pub fn read(root: &Path, metadata: &serde_json::Value) -> Result<Vec<Package>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let package = |entry: &serde_json::Value| {
        let manifest = Path::new(entry["manifest_path"].as_str()?);
        let folder = manifest.parent()?.strip_prefix(root).ok()?.to_owned();
        let mut package =
            Package { name: entry["name"].as_str()?.to_owned(), folder, library: None, programs: Vec::new() };
        for target in entry["targets"].as_array()? {
            let path = PathBuf::from(target["src_path"].as_str()?);
            let is =
                |kind: &str| target["kind"].as_array().is_some_and(|all| all.iter().any(|it| it == kind));
            if ["lib", "rlib", "cdylib", "staticlib", "proc-macro"].into_iter().any(is) {
                package.library = Some(path);
            } else if ["bin", "custom-build"].into_iter().any(is) {
                package.programs.push(path);
            }
        }
        Some(package)
    };
    packages
        .iter()
        .map(|entry| {
            package(entry).with_context(|| format!("cargo metadata: an odd package {}", entry["name"]))
        })
        .collect()
}

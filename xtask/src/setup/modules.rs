//! The modules of a kernel package that the workload loads and unloads, as one initramfs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::deb::Deb;
use crate::archive::Archive;

/// The archive's file.
pub const FILE: &str = "modules.cpio";

/// The folder that they are in.
const FOLDER: &str = "modules";

/// Small ones that need no other, and do nothing until they are used.
const NAMES: [&str; 5] = ["brd", "crc7", "dummy", "ifb", "nlmon"];

/// The archive of these modules in the package `deb`: each as it is there, `.ko` or `.ko.xz`.
pub fn archive(deb: &Deb) -> Result<Vec<u8>> {
    let patterns = NAMES.map(|name| format!("*/{name}.ko*"));
    let folder = deb.unpack(&patterns.each_ref().map(String::as_str))?;
    let mut modules = Vec::new();
    find(folder.path(), &mut modules)?;
    modules.sort();
    let mut archive = Archive::default();
    archive.directory(FOLDER)?;
    for (name, content) in &modules {
        archive.file(&format!("{FOLDER}/{name}"), content)?;
    }
    Ok(archive.finish()?)
}

/// Adds the files below `folder` with their names.
fn find(folder: &Path, modules: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            find(&path, modules)?;
        } else if kind.is_file() {
            let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.file_name().and_then(|name| name.to_str());
            modules.push((
                name.with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned(),
                content,
            ));
        }
    }
    Ok(())
}

//! The device trees of a kernel package, as one archive for the tests: a cpio archive, compressed
//! by zstd.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::deb::Deb;
use crate::archive::Archive;

/// The archive's file.
pub const FILE: &str = "device-trees.cpio.zst";
/// The first member: the package and its version, as text.
const PACKAGE: &str = "package";
/// The folder in the package below which they are, one folder for each vendor.
const FOLDER: &str = "dtb";
/// 85 MB become 4.9 MB in half a second.
const COMPRESSION: i32 = 3;

/// The device trees in the package `deb`, which is called `package`: each is a member named
/// `VENDOR/BOARD.dtb`, in the order of their names.
pub fn archive(deb: &Deb, package: &str) -> Result<Vec<u8>> {
    let folder = deb.unpack(&["*.dtb"])?;
    let mut trees = Vec::new();
    find(folder.path(), &mut trees)?;
    if trees.is_empty() {
        bail!("{package} holds no device trees");
    }
    trees.sort();
    let mut archive = Archive::default();
    archive.file(PACKAGE, package.as_bytes())?;
    for (name, content) in &trees {
        archive.file(name, content)?;
    }
    zstd::encode_all(archive.finish()?.as_slice(), COMPRESSION).context("compressing the device trees")
}

/// Adds the trees below `folder` with their names.
fn find(folder: &Path, trees: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            find(&path, trees)?;
        } else if kind.is_file() {
            let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            trees.push((name(&path)?, content));
        }
    }
    Ok(())
}

/// The path below the folder of all trees.
fn name(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    let (_, name) = text.rsplit_once(&format!("/{FOLDER}/")).unwrap_or(("", text));
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_named_by_vendor_and_board_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let trees = folder.path().join("usr/lib/modules/6.18/dtb");
        for (name, content) in [("ti/b.dtb", "2"), ("ti/a.dtb", "1"), ("exynos/google/c.dtb", "3")] {
            fs::create_dir_all(trees.join(name).parent().unwrap()).unwrap();
            fs::write(trees.join(name), content).unwrap();
        }
        let mut found = Vec::new();
        find(folder.path(), &mut found).unwrap();
        found.sort();
        let found: Vec<_> = found.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        assert_eq!(found, [("exynos/google/c.dtb", &b"3"[..]), ("ti/a.dtb", b"1"), ("ti/b.dtb", b"2")]);
    }
}

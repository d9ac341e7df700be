//! Free space, checked before it is used: on a full disk apt takes minutes to give up.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What something needs in the file system of a folder.
#[derive(Debug, Clone, Copy)]
pub struct Need<'n> {
    /// A folder that exists.
    pub folder: &'n Path,
    /// How many bytes.
    pub bytes: u64,
}

/// A file system has too little room.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} needs {:.0} MB in the file system of {}, and {:.0} MB are free there",
    mega(*.needed), .folder.display(), mega(*.free)
)]
pub struct NoSpace {
    what: String,
    folder: PathBuf,
    needed: u64,
    free: u64,
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Checks that there is room for `needs`. Those in one file system add up.
pub fn check(what: &str, needs: &[Need<'_>]) -> Result<()> {
    let mut by_system: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for Need { folder, bytes } in needs {
        let system = fs::metadata(folder).with_context(|| format!("looking at {}", folder.display()))?.dev();
        let (_, sum) = by_system.entry(system).or_insert_with(|| ((*folder).to_owned(), 0));
        *sum = sum.saturating_add(*bytes);
    }
    for (folder, needed) in by_system.into_values() {
        let free = free(&folder)?;
        if free < needed {
            return Err(NoSpace { what: what.to_owned(), folder, needed, free }.into());
        }
    }
    Ok(())
}

/// What an unprivileged user may still write there, bytes.
fn free(folder: &Path) -> Result<u64> {
    let system = rustix::fs::statvfs(folder)
        .with_context(|| format!("asking for the free space of {}", folder.display()))?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_what_is_free_is_told_and_needs_of_one_file_system_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        let free = free(folder.path()).unwrap();
        let half = Need { folder: folder.path(), bytes: free / 2 };
        assert!(check("it", &[half]).is_ok());
        let error = check("it", &[half, Need { folder: &below, bytes: free }]).unwrap_err().to_string();
        assert!(error.starts_with("it needs ") && error.contains(" MB are free there"), "{error}");
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
    }
}

//! A package file of Debian, and what is taken out of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process;

/// A package file.
#[derive(Debug)]
pub struct Deb {
    path: PathBuf,
}

impl Deb {
    /// The file at `path`.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the one member that `pattern` matches.
    pub fn member(&self, pattern: &str) -> Result<Vec<u8>> {
        let content = self.extract(Command::new("tar").args(["--to-stdout", "--wildcards", pattern]))?;
        if content.is_empty() {
            bail!("{} holds no {pattern}", self.path.display());
        }
        Ok(content)
    }

    /// Unpacks the members that `patterns` match into a folder beside the file. Each has to match.
    pub fn unpack(&self, patterns: &[&str]) -> Result<TempDir> {
        let beside = self.path.parent().context("a file needs a folder")?;
        let folder = tempfile::tempdir_in(beside)?;
        let mut tar = Command::new("tar");
        // The folder counts for the patterns behind it.
        tar.arg("--directory").arg(folder.path()).args(["--no-same-owner", "--wildcards"]).args(patterns);
        self.extract(&mut tar)?;
        Ok(folder)
    }

    /// Deletes the file.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }

    /// Runs `tar` on the package's content and returns what it prints.
    fn extract(&self, tar: &mut Command) -> Result<Vec<u8>> {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--fsys-tarfile").arg(&self.path).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut unpacking = process::start(&mut unpack)?;
        let content = unpacking.stdout().context("dpkg-deb has no output")?;
        tar.arg("--extract").stdin(content).stdout(Stdio::piped()).stderr(Stdio::piped());
        let extracted = process::start(tar)?.output()?;
        if !unpacking.wait()?.success() || !extracted.status.success() {
            let said = String::from_utf8_lossy(&extracted.stderr);
            bail!("{} can't be unpacked: {}", self.path.display(), said.trim_end());
        }
        Ok(extracted.stdout)
    }
}

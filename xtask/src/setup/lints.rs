//! cargo fmt and cargo clippy.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::host;
use crate::{process, progress};

/// Whether both can be run, after adding them with rustup where that is possible.
pub fn ensure(cargo: &Path) -> Result<bool> {
    let has_both = || {
        ["fmt", "clippy"].iter().all(|tool| process::succeeds(Command::new(cargo).args([*tool, "--version"])))
    };
    if has_both() {
        return Ok(true);
    }
    if !process::succeeds(Command::new("rustup").arg("--version")) {
        return Ok(false);
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", "rustfmt", "clippy"]);
    host::permission("cargo fmt or cargo clippy", &add)?;
    Ok(progress::during("adding rustfmt and clippy", || process::succeeds(&mut add)) && has_both())
}

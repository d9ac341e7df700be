//! cargo-deny: licences, sources and bans by deny.toml, and known vulnerabilities where their
//! database is at hand. Nothing is installed or downloaded for it.

use std::path::PathBuf;
use std::process::Command;

use crate::process;
use crate::workspace::{Workspace, cargo};

/// The command, or why it can't be run.
pub fn command(workspace: &Workspace) -> Result<Command, &'static str> {
    if !process::succeeds(Command::new(cargo()).args(["deny", "--version"])) {
        return Err("cargo-deny is not installed");
    }
    let mut deny = Command::new(cargo());
    deny.args(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"])
        .current_dir(&workspace.root);
    match has_advisories() {
        true => _ = deny.args(["advisories", "--disable-fetch"]),
        false => eprintln!("licences: no database of advisories in ~/.cargo/advisory-dbs: left out"),
    }
    Ok(deny)
}

/// Whether cargo-deny has fetched advisories before.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let folders = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    folders.into_iter().flatten().flatten().any(|entry| entry.path().is_dir())
}

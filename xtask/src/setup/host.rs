//! Whether we may install something on this machine.

use std::io::{IsTerminal, Write};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Returns if `command` may be run to install `what`. If not, the error shows the commands to type.
///
/// On a terminal the user is asked. Without one a program that runs as root, like CI, says what it
/// does and does it.
pub fn permission_for_root(what: &str, command: &Command) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("{what} is missing. As root, run:\n  {}\nthen run the command again.", process::line(command));
    }
    permission(what, command)
}

/// Like [`permission_for_root`], for what needs no root.
pub fn permission(what: &str, command: &Command) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        eprintln!("installing {what}: {}", process::line(command));
        return Ok(());
    }
    eprint!("{what} is missing. Run this now?\n  {}\n[Y/n] ", process::line(command));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer)?;
    if read == 0 || !matches!(answer.trim(), "" | "y" | "Y" | "yes") {
        bail!("{what} is missing. Run:\n  {}\nthen run the command again.", process::line(command));
    }
    Ok(())
}

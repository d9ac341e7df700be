//! Completions for shells, and manual pages, made from the command line's own description.

use std::fs;
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

/// An example of `linmap completions`.
pub const COMPLETIONS_HELP: &str = "Example:
  linmap completions bash > ~/.local/share/bash-completion/completions/linmap";

/// An example of `linmap man`.
pub const MAN_HELP: &str = "Example:
  linmap man ~/.local/share/man/man1";

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder for the pages; it is created if it is missing
    folder: PathBuf,
}

/// `linmap completions`: those of `command`.
pub fn completions(
    arguments: &CompletionsArgs,
    command: &mut Command,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "linmap", &mut script);
    output.write(format_args!("{}", String::from_utf8_lossy(&script)))?;
    Ok(Outcome::Good)
}

/// `linmap man`: the pages of `command`.
pub fn man(arguments: &ManArgs, command: Command) -> Result<Outcome, Failure> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map_err(|error| Failure::from(error).of(folder.display()))?;
    Ok(Outcome::Good)
}

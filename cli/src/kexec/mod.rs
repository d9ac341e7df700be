//! `linmap kexec`.

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

#[derive(Debug, clap::Subcommand)]
pub enum KexecCommand {
    /// Show where each segment goes, and what is moved, cleared or in place
    Plan(KexecPlanArgs),
}

#[derive(Debug, clap::Args)]
pub struct KexecPlanArgs {}

/// `linmap kexec plan`.
pub fn run(_arguments: &KexecPlanArgs, _output: &mut Output) -> Result<Outcome, Failure> {
    Err(Failure::new("being built"))
}

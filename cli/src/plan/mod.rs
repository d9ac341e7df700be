//! `linmap plan`.

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

pub const HELP: &str = "";

#[derive(Debug, clap::Args)]
pub struct PlanArgs {}

/// `linmap plan`.
pub fn run(_arguments: &PlanArgs, _output: &mut Output) -> Result<Outcome, Failure> {
    Err(Failure::new("being built"))
}

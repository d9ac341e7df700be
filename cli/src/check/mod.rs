//! `linmap check`.

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

pub const HELP: &str = "";

#[derive(Debug, clap::Args)]
pub struct CheckArgs {}

/// `linmap check`.
pub fn run(_arguments: &CheckArgs, _output: &mut Output) -> Result<Outcome, Failure> {
    Err(Failure::new("being built"))
}

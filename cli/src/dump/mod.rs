//! `linmap dump`.

mod guest;

use crate::Outcome;
use crate::failure::Failure;
use crate::output::Output;

pub const HELP: &str = "";

#[derive(Debug, clap::Args)]
pub struct DumpArgs {}

/// `linmap dump`.
pub fn run(_arguments: &DumpArgs, _output: &mut Output) -> Result<Outcome, Failure> {
    Err(Failure::new("being built"))
}

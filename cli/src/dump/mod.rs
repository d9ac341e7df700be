//! `linmap dump`.

mod address_range;
mod aliases;
mod contiguity;
mod described;
mod diff;
mod finding;
mod frames;
mod guest;
mod json;
mod judgement;
mod listing;
mod meaning;
mod memory_attribute;
mod reading;
mod runs;
mod saved;
mod segments;
mod summary;
#[cfg(test)]
mod tests;
mod tree;
mod view;
mod walk;

use crate::Outcome;
use crate::failure::Failure;
use crate::output::Output;

pub const HELP: &str = "";

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    #[command(flatten)]
    view: view::ViewArgs,
}

/// `linmap dump`.
pub fn run(_arguments: &DumpArgs, _output: &mut Output) -> Result<Outcome, Failure> {
    Err(Failure::new("being built"))
}

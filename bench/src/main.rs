//! `cargo xtask bench`: the crates that build the linear map, on host memory, beside other crates that build such tables
//! and beside the raw store loop that is the floor.
//!
//! Everyone builds the same map into the same memory, in rounds of one run each; medians count. Each map is checked
//! once by software walks. Aims are shown with the results, and the exit code does not depend on them.

mod arena;
mod case;
mod check;
mod contestant;
mod floor;
mod json;
mod machine;
mod measure;
mod ours;
mod peers;
mod progress;
mod table;
mod wanted;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::arena::Arena;
use crate::case::Case;
use crate::machine::Machine;
use crate::measure::{Effort, measure};
use crate::progress::Progress;

/// Build the linear map in host memory, beside other crates and beside raw stores. Takes about 1 GiB of memory and two
/// to three minutes
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Fewer rounds: everything in under two minutes
    #[arg(long)]
    quick: bool,
    /// Where to write host.json [default: bench in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    json_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let json_dir = match arguments.json_dir {
        Some(folder) => folder,
        None => default_json_dir()?,
    };
    let arena_bytes = Case::ALL.iter().map(|case| case.table_bytes()).max().unwrap_or(0);
    let mut arena = Arena::new(arena_bytes)?;
    let machine = Machine::with_arena(arena_bytes);
    let mut progress = Progress::new();
    let mut all = Vec::new();
    for case in Case::ALL {
        all.push(measure(case, effort, &mut arena, &mut progress)?);
    }
    progress.finish();
    let path = json::write(&json_dir, &machine, effort, &all)?;
    table::print(&machine, &all).context("writing the results")?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// The folder `bench` beside the folder of the profile that this program was built in.
fn default_json_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("asking for the program's own path")?;
    let target = program.parent().and_then(|profile| profile.parent());
    Ok(target.context("the program is not in a target directory; name one with --json-dir")?.join("bench"))
}

//! `cargo xtask bench`: the crates that build and change the linear map, on host memory, beside
//! other crates that write such tables and beside the raw store loop that is the floor; and the
//! checker of the machine model.
//!
//! Everyone makes the same map in the same memory, in rounds of one run each; medians count. Each
//! map is checked once by software walks. Aims are shown with the results, and the exit code does
//! not depend on them.

mod arena;
mod case;
mod check;
mod contestant;
mod floor;
mod geometry;
mod json;
mod live;
mod machine;
mod measure;
mod model;
mod ours;
mod peers;
mod progress;
mod run;
mod table;
mod wanted;

use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::arena::Arena;
use crate::case::Case;
use crate::machine::Machine;
use crate::measure::{Effort, measure};
use crate::model::{Job, Source};
use crate::progress::Progress;

/// Build the linear map in host memory and make it read-only, beside other crates and beside raw
/// stores; check builds on the machine model. Takes about 1 GiB of memory for tables, and four
/// minutes
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Fewer rounds: everything in under two minutes
    #[arg(long)]
    quick: bool,
    /// Where to write host.json [default: bench in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    json_dir: Option<PathBuf>,
    /// One job of the model in this process, for the benchmarks themselves
    #[arg(long, hide = true, requires = "model_gib")]
    model_job: Option<Source>,
    /// Its GiB
    #[arg(long, hide = true, requires = "model_job")]
    model_gib: Option<u64>,
    /// Write the job's events as a trace instead
    #[arg(long, hide = true, requires = "model_job")]
    model_trace: bool,
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
    if let (Some(source), Some(gib)) = (arguments.model_job, arguments.model_gib) {
        let job = Job { source, gib };
        if arguments.model_trace {
            return job.write(BufWriter::with_capacity(1 << 18, std::io::stdout().lock()));
        }
        println!("{}", job.run()?);
        return Ok(());
    }
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
    let model = model::measure(effort, &mut progress)?;
    progress.finish();
    let path = json::write(&json_dir, &machine, effort, &all, &model)?;
    table::print(&machine, &all, &model).context("writing the results")?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// The folder `bench` beside the folder of the profile that this program was built in.
fn default_json_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("asking for the program's own path")?;
    let target = program.parent().and_then(|profile| profile.parent());
    Ok(target.context("the program is not in a target directory; name one with --json-dir")?.join("bench"))
}

//! `linmap check`: the model's verdict on a trace of table edits.
//!
//! The events are parsed by one thread and judged by another, a batch at a time, so that a trace
//! may have any length. A violation is shown by the fewest events that make it: those that may take
//! part are gathered in a second pass over a file, or from the last events of a pipe.

mod events;
mod explain;
mod history;
mod input;
mod json;
mod judge;
mod report;

use std::io::Read;
use std::path::{Path, PathBuf};

use linmap_model::Leniency;

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::symbols::{self, Symbols};
use input::Input;
use judge::{Judged, Options};

/// Examples of `linmap check`.
pub const HELP: &str = "\
A trace is lines of events, described in crates/trace/README.md: the machine, its memory, and the \
stores, barriers, TLBIs and register writes of each CPU. The binary form of such traces is read, \
too, and so are casemate's traces.

Examples:
  linmap check edit.trace
  linmap check --all --json edit.trace
  zstd -dc long.trace.zst | linmap check --history 1000000 -

Exit codes: 0 legal, 1 illegal, 2 the trace can't be read.";

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The trace; - for standard input
    trace: PathBuf,
    /// Go on behind a violation, and count them by rule and place
    #[arg(long)]
    all: bool,
    /// Take nothing beyond the architecture's text: ARCHITECTURE.md lists what kernels rely on
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name the instructions by the kernel's ELF file, System.map or Image
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Where the kernel's first byte (`_text`) lies when it runs, if not at its link address:
    /// shifted by KASLR, or its physical address while it runs 1:1. May be given several times.
    /// What `linmap record` recorded says where Linux runs after KASLR
    #[arg(long, value_name = "ADDR", requires = "symbols", value_parser = parse_address)]
    symbols_base: Vec<u64>,
    /// How many of the last events of a pipe are kept to show a violation by
    #[arg(long, value_name = "EVENTS", default_value_t = HISTORY, value_parser = parse_history)]
    history: usize,
}

/// How many of the last events of a pipe are kept, unless another number is given.
const HISTORY: usize = 1 << 18;

/// The most violations that are shown by their events.
const SHOWN: usize = 16;

fn parse_history(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(events @ 1..=0x1000_0000) => Ok(events),
        _ => Err(format!("must be 1 to {}", 0x1000_0000)),
    }
}

/// An address as the command line has it.
pub fn parse_address(text: &str) -> Result<u64, String> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => linmap_trace::number(digits.as_bytes(), 16),
        None => linmap_trace::number(text.as_bytes(), 10),
    };
    value.map_err(|error| error.to_string())
}

/// What is taken beyond the architecture's text.
pub fn leniency(strict: bool) -> Leniency {
    if strict { Leniency::Strict } else { Leniency::Kernels }
}

/// A trace that is judged while it is recorded.
pub struct Judging<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Goes on behind a violation.
    pub all: bool,
    /// What is taken beyond the architecture's text.
    pub leniency: Leniency,
    /// The file that names instructions.
    pub symbols: Option<&'a Path>,
    /// Where the kernel's first byte lies.
    pub symbols_base: &'a [u64],
}

/// Judges `trace` as it comes.
pub fn live(
    judging: &Judging<'_>,
    trace: Box<dyn Read + Send>,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let names = judging.symbols.map(symbols::open).transpose()?;
    let input = Input::of(Some(judging.name.into()), None, trace)?;
    let options = Options {
        leniency: judging.leniency,
        all: judging.all,
        history: HISTORY,
        shown: SHOWN,
        verbosity: output.verbosity(),
    };
    let judged = judge::judge(input, &options)?;
    let names = names.map(|names| names.run_at(judging.symbols_base, judged.vectors)).transpose()?;
    say(&judged, names.as_ref(), Form::Text { all: judging.all }, output)
}

/// How a verdict is printed.
enum Form {
    Text { all: bool },
    Json,
}

/// Prints the verdict.
fn say(
    judged: &Judged,
    names: Option<&Symbols>,
    form: Form,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let place = |pc: u64| match names {
        Some(names) => names.place(pc),
        None => format!("{pc:#x}"),
    };
    match form {
        Form::Json => output.line(format_args!("{:#}", json::value(judged, &place)))?,
        Form::Text { all } => report::print(judged, all, &place, output)?,
    }
    Ok(if judged.legal.is_some() { Outcome::Good } else { Outcome::Bad })
}

/// `linmap check`.
pub fn run(arguments: &CheckArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let input = Input::open(&arguments.trace)?;
    let options = Options {
        leniency: leniency(arguments.strict),
        all: arguments.all,
        history: arguments.history,
        shown: SHOWN,
        verbosity: output.verbosity(),
    };
    let names = arguments.symbols.as_ref().map(|file| symbols::open(file)).transpose()?;
    let judged = judge::judge(input, &options)?;
    let names = names.map(|names| names.run_at(&arguments.symbols_base, judged.vectors)).transpose()?;
    let form = if arguments.json { Form::Json } else { Form::Text { all: arguments.all } };
    say(&judged, names.as_ref(), form, output)
}

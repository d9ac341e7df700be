//! `linmap check`: the model's verdict on a trace of table edits.
//!
//! The events are parsed by one thread and judged by another, a batch at a time, so that a trace
//! may have any length. A violation is shown by the fewest events that make it: those that may take
//! part are gathered in a second pass over a file, or from the last events of a pipe.

mod events;
mod explain;
mod form;
mod found;
mod history;
mod input;
mod json;
mod judge;
#[cfg(test)]
mod left_out;
mod names;
mod overdue;
mod report;
mod shown;
mod summary;
mod tally;
mod trail;

use std::io::Read;
use std::path::PathBuf;

use linmap_model::Leniency;

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::{Output, Verbosity};
use crate::symbols::{self, Symbols};
use input::Input;
use judge::{Judged, Options};
use names::Names;

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
    /// Continue after a violation, and count all by rule and place
    #[arg(long)]
    all: bool,
    /// Refuse what kernels rely on beyond the architecture's text: ARCHITECTURE.md lists it
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name the instructions by the kernel's ELF file, System.map or Image
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Where the kernel's first byte (`_text`) lies when it runs: needed where it is not found by
    /// its instructions, as with a System.map or in a trace of a few events. May be given several
    /// times: behind KASLR, and at its physical address while it runs 1:1
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
    /// Prints JSON.
    pub json: bool,
    /// Shows progress while the guest runs.
    pub has_progress: bool,
    /// What names instructions.
    pub symbols: Option<Symbols>,
    /// Where the kernel's first byte lies, beside where it is found.
    pub symbols_base: &'a [u64],
}

/// Judges `trace` as it comes.
pub fn live(
    judging: Judging<'_>,
    trace: Box<dyn Read + Send>,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let input = Input::of(Some(judging.name.into()), None, trace)?;
    let verbosity = output.verbosity();
    let options = Options {
        leniency: judging.leniency,
        all: judging.all,
        history: HISTORY,
        shown: shown(verbosity),
        verbosity: if judging.has_progress { verbosity } else { Verbosity::Quiet },
        is_live: true,
    };
    let mut judged = judge::judge(input, &options)?;
    let names = names(judging.symbols, judging.symbols_base, &mut judged);
    let form = if judging.json { Form::Json } else { Form::Text { all: judging.all } };
    say(&judged, &names, form, output)
}

/// How many violations are shown by their events: finding these takes a moment each.
fn shown(verbosity: Verbosity) -> usize {
    if verbosity == Verbosity::Quiet { 0 } else { SHOWN }
}

/// The names of instructions by `symbols`, where the kernel ran.
fn names(symbols: Option<Symbols>, places: &[u64], judged: &mut Judged) -> Names {
    let names = Names::from(symbols.map(|symbols| symbols.run_at(places, judged.tally.ran())));
    if names.has_functions() && names.places().is_empty() {
        judged.notes.insert(0, UNPLACED.to_owned());
    }
    names
}

const UNPLACED: &str = "no instruction is named: where the kernel ran is not found by its instructions, and \
     its file does not say where it is linked; give --symbols-base, the address of _text when it runs";

/// How a verdict is printed.
enum Form {
    Text { all: bool },
    Json,
}

/// Prints the verdict.
///
/// # Errors
/// The trace is legal as far as it goes, but was cut off.
fn say(judged: &Judged, names: &Names, form: Form, output: &mut Output) -> Result<Outcome, Failure> {
    match form {
        Form::Json => output.line(format_args!("{:#}", json::value(judged, names)))?,
        Form::Text { all } => report::print(judged, all, names, output)?,
    }
    match judged.legal {
        None => Ok(Outcome::Bad),
        Some(_) if judged.is_cut => {
            let what = format!("{}: cut off behind {} events", judged.name, judged.events);
            Err(Failure::new(what).hint("what followed is not judged: record it again"))
        }
        Some(_) => Ok(Outcome::Good),
    }
}

/// `linmap check`.
pub fn run(arguments: &CheckArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let input = Input::open(&arguments.trace)?;
    let verbosity = output.verbosity();
    let options = Options {
        leniency: leniency(arguments.strict),
        all: arguments.all,
        history: arguments.history,
        shown: shown(verbosity),
        verbosity,
        is_live: false,
    };
    let symbols = arguments.symbols.as_ref().map(|file| symbols::open(file)).transpose()?;
    let mut judged = judge::judge(input, &options)?;
    let names = names(symbols, &arguments.symbols_base, &mut judged);
    let form = if arguments.json { Form::Json } else { Form::Text { all: arguments.all } };
    say(&judged, &names, form, output)
}

//! `linmap`: the host tool for people who work on arm64 memory management.
//!
//! | command | does |
//! |---|---|
//! | `check` | judges a trace of table edits by the machine model |
//! | `record` | records what a guest does to its tables, and judges it |
//! | `dump` | shows the translation tables of a guest or of a core |
//! | `plan` | derives what the linear map of a machine costs |
//! | `kexec plan` | shows what a kexec would move, and where |
//!
//! Exit codes: 0 done, or the trace is legal; 1 the trace is illegal, or dumps differ; 2 the
//! command line was wrong, or an input can't be read.

#![forbid(unsafe_code)]

mod check;
mod complete;
mod dump;
mod failure;
mod file_kind;
mod kexec;
mod outcome;
mod output;
mod plan;
mod progress;
mod record;
mod symbols;

use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::{Output, Verbosity};

/// Check edits of arm64 translation tables, dump the tables of a guest, plan a machine's linear map
#[derive(Debug, Parser)]
#[command(name = "linmap", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    saying: Saying,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Saying {
    /// Print the result alone
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 100)]
    quiet: bool,
    /// Print also how the result was found
    #[arg(short, long, global = true, action = ArgAction::SetTrue, display_order = 101)]
    verbose: bool,
}

impl Saying {
    fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge a trace of table edits: legal, or the rule that it breaks and why
    #[command(after_long_help = check::HELP)]
    Check(check::CheckArgs),
    /// Record what an unmodified guest of QEMU does to its tables, and judge it
    #[command(after_long_help = record::HELP)]
    Record(record::RecordArgs),
    /// Show the translation tables of a running guest, a core or a memory image
    #[command(after_long_help = dump::HELP)]
    Dump(Box<dump::DumpArgs>),
    /// Derive what the linear map of a machine costs: tables, entries, TLBIs, barriers
    #[command(after_long_help = plan::HELP)]
    Plan(plan::PlanArgs),
    /// Show what a kexec does before it is done
    #[command(subcommand)]
    Kexec(kexec::KexecCommand),
    /// Print the completions of a shell
    #[command(after_long_help = complete::COMPLETIONS_HELP)]
    Completions(complete::CompletionsArgs),
    /// Write the manual pages
    #[command(after_long_help = complete::MAN_HELP)]
    Man(complete::ManArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if record::lacks_dashes(&error, std::env::args_os()) => {
            record::without_dashes().print();
            return ExitCode::from(2);
        }
        // Also help and the version, which a full disk may refuse.
        Err(error) => {
            let is_printed = error.print().is_ok();
            return ExitCode::from(if error.use_stderr() || !is_printed { 2 } else { 0 });
        }
    };
    let mut output = Output::new(cli.saying.verbosity());
    let result = run(cli.command, &mut output).and_then(|outcome| output.flush().map(|()| outcome));
    match result {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Err(failure) => {
            // What was printed before the failure stands before it.
            drop(output);
            failure.print();
            ExitCode::from(2)
        }
    }
}

fn run(command: Command, output: &mut Output) -> Result<Outcome, Failure> {
    match command {
        Command::Check(arguments) => check::run(&arguments, output),
        Command::Record(arguments) => record::run(&arguments, output),
        Command::Dump(arguments) => dump::run(&arguments, output),
        Command::Plan(arguments) => plan::run(&arguments, output),
        Command::Kexec(kexec::KexecCommand::Plan(arguments)) => kexec::run(&arguments, output),
        Command::Completions(arguments) => complete::completions(&arguments, &mut Cli::command(), output),
        Command::Man(arguments) => complete::man(&arguments, Cli::command()),
    }
}

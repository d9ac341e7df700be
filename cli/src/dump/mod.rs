//! `linmap dump`.

mod guest;
mod source;

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;

pub const HELP: &str = "\
Examples:
  linmap dump --gdb :1234
  linmap dump --gdb guest.sock --cpu 1 --regime el1
  linmap dump /proc/vmcore
  linmap dump core.elf --ttbr1 0x41f8c000 --tcr 0x53510 --mair 0x40044ffff";

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    #[command(flatten)]
    source: source::SourceArgs,
}

/// `linmap dump`.
pub fn run(arguments: &DumpArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let guest = source::open(&arguments.source)?;
    for root in &guest.roots {
        output.line(format_args!("{} {} {:?}", root.register, root.table, root.geometry))?;
    }
    for note in &guest.notes {
        output.line(format_args!("note: {note}"))?;
    }
    Err(Failure::new("being built"))
}

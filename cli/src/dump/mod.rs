//! `linmap dump`.

mod address;
mod address_range;
mod aliases;
mod arguments;
mod asked;
mod comparison;
mod contiguity;
mod counted;
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
mod read_trees;
mod reading;
mod runs;
mod saved;
mod segments;
mod source;
mod summary;
#[cfg(test)]
mod tests;
mod tree;
mod view;
mod walk;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::failure::Failure;
use crate::file_kind::FileKind;
use crate::outcome::Outcome;
use crate::output::Output;

pub const HELP: &str = "\
Examples:
  linmap dump --gdb :1234 --summary
  linmap dump --gdb guest.sock --cpu 1 --root ttbr1_el1
  linmap dump --gdb :1234 --va 0xffff000000000000+1G
  linmap dump /proc/vmcore --va 0xffff800080000000
  linmap dump core.elf --ttbr1 0x41f8c000 --tcr 0x53510 --mair 0x40044ffff
  linmap dump --gdb :1234 --json > before.json
  linmap dump --gdb :1234 --diff before.json";

#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    #[command(flatten)]
    source: source::SourceArgs,
    #[command(flatten)]
    view: arguments::ViewArgs,
}

/// `linmap dump`.
pub fn run(arguments: &DumpArgs, output: &mut Output) -> Result<Outcome, Failure> {
    // What is compared with comes first: a guest is stopped no longer than it has to be.
    let other = arguments.view.diff.as_deref().map(|path| open_other(path, &arguments.source)).transpose()?;
    let guest = source::open(&arguments.source)?;
    match other {
        Some(other) => comparison::show(guest, other, &arguments.view, output),
        None => view::show(guest, &arguments.view, output),
    }
}

/// A dump to compare with: JSON, or a core with the same registers where it holds none.
fn open_other(path: &Path, source: &source::SourceArgs) -> Result<comparison::Other, Failure> {
    let of = |failure: Failure| failure.of(path.display());
    let file = File::open(path).map_err(|error| of(error.into()))?;
    let mut head = Vec::new();
    file.take(FileKind::HEAD as u64).read_to_end(&mut head).map_err(|error| of(error.into()))?;
    match FileKind::of(&head) {
        FileKind::ElfCore => Ok(comparison::Other::Guest(Box::new(source::open(&source.of_core(path))?))),
        FileKind::Text => comparison::Other::saved(path),
        kind => Err(of(Failure::new(format_args!("{kind}, not a dump"))
            .hint("--diff takes what --json wrote, or an ELF core"))),
    }
}

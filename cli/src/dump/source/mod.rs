//! Where a guest's registers and memory come from.

mod elf_core;
mod file_memory;
mod gdb;
mod given;
mod ranges;
mod raw_memory;
mod registers;

use std::path::{Path, PathBuf};

use super::guest::{AddressSpace, Guest};
use crate::failure::Failure;
use given::GivenRegisters;
use raw_memory::MemoryFile;

/// Where a guest's registers and memory come from.
#[derive(Clone, Debug, clap::Args)]
pub struct SourceArgs {
    /// An ELF core: /proc/vmcore, or what QEMU's dump-guest-memory writes
    #[arg(value_name = "CORE", required_unless_present_any = ["gdb", "memory"])]
    core: Option<PathBuf>,
    /// A running guest of QEMU, by what its option -gdb listens on. It is stopped while its tables
    /// are read
    #[arg(long, value_name = "HOST:PORT|PATH", conflicts_with_all = ["core", "memory"])]
    gdb: Option<String>,
    /// The guest's CPU [default: the first that is not in user space]
    #[arg(long, value_name = "N", requires = "gdb")]
    cpu: Option<usize>,
    /// Leave the guest stopped. Without this it goes on, even if it was paused before: connecting
    /// pauses a guest, and QEMU does not tell whether it was. One that has not started, has ended
    /// or has crashed stays as it is
    #[arg(long, requires = "gdb")]
    keep_stopped: bool,
    /// Raw memory that begins at this physical address; may be repeated
    #[arg(long, value_name = "FILE@ADDRESS", conflicts_with = "core")]
    memory: Vec<MemoryFile>,
    #[command(flatten)]
    given: GivenRegisters,
}

impl SourceArgs {
    /// The core at `path`, with the registers that were given.
    pub fn of_core(&self, path: &Path) -> Self {
        Self { core: Some(path.to_owned()), gdb: None, cpu: None, memory: Vec::new(), ..self.clone() }
    }
}

/// Opens the guest.
///
/// # Errors
/// It can't be read, has no tables, or has them where it has no memory.
pub fn open(arguments: &SourceArgs) -> Result<Guest, Failure> {
    let given = &arguments.given;
    let mut guest = match (&arguments.gdb, &arguments.core) {
        (Some(place), _) => gdb::open(place, arguments.cpu, arguments.keep_stopped, given)?,
        (None, Some(core)) => elf_core::open(core, given)?,
        (None, None) => raw_memory::open(&arguments.memory, given)?,
    };
    match drop_roots_outside(&mut guest) {
        // What is said of a running guest is how it was stopped, which explains nothing.
        Err(failure) if arguments.gdb.is_none() => Err(failure.explained_by(&guest.notes)),
        Err(failure) => Err(failure),
        Ok(()) => Ok(guest),
    }
}

/// Leaves roots out that are not in memory: what would be read there is nobody's.
fn drop_roots_outside(guest: &mut Guest) -> Result<(), Failure> {
    let (mut outside, memory) = (Vec::new(), guest.memory.ranges());
    guest.roots.retain(|root| {
        if root.addresses == AddressSpace::Intermediate {
            return true;
        }
        let geometry = root.geometry;
        let bytes = geometry.entries(geometry.start_level()) * geometry.root_tables() * 8;
        let table = root.table.0..root.table.0.saturating_add(bytes as u64);
        let is_inside = ranges::hold(memory, &table);
        if !is_inside {
            outside.push(format!("{} is {}, where no memory is", root.register, root.table));
        }
        is_inside
    });
    if guest.roots.is_empty() {
        return Err(Failure::new(outside.join("; ")).hint("is this the right register, and all of memory?"));
    }
    guest.notes.extend(outside.into_iter().map(|what| format!("{what}: its tree is not shown")));
    Ok(())
}

//! The core file by which a crash kernel sees the crashed kernel: its ELF header and its notes.

mod core_notes;
mod elf_core;

pub use core_notes::{CoreNotes, CpuRegisters, NotesError, VmcoreInfo};
pub use elf_core::{ElfCore, ElfCoreError};

//! Names of the addresses of a kernel: from its ELF file, its System.map, or the kallsyms tables in
//! its Image.
//!
//! A kernel may run elsewhere than it is linked: shifted by KASLR, and at physical addresses while
//! it is mapped 1:1. Where it ran is found by its instructions; the user may name more places.

mod code;
mod elf;
mod image;
mod instruction;
mod kallsyms;
mod system_map;
mod table;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::failure::Failure;
use crate::file_kind::FileKind;
use table::LIMIT;

pub use instruction::Instruction;
pub use table::{Place, Ran, Symbols};

/// Reads the symbols in the file at `path`. Where the kernel runs is for [`Symbols::run_at`].
///
/// # Errors
/// The file can't be read, or has no symbols.
pub fn open(path: &Path) -> Result<Symbols, Failure> {
    let read = || -> Result<Symbols, Failure> {
        let mut file = Vec::new();
        File::open(path)?.take(LIMIT + 1).read_to_end(&mut file)?;
        if file.len() as u64 > LIMIT {
            return Err(Failure::new(format_args!("a file of more than {} MiB", LIMIT >> 20)));
        }
        of(&file)
    };
    read().map_err(|failure| failure.of(path.display()))
}

fn of(file: &[u8]) -> Result<Symbols, Failure> {
    let kind = FileKind::of(file.get(..FileKind::HEAD).unwrap_or(file));
    match kind {
        FileKind::Elf => elf::symbols(file),
        FileKind::Image | FileKind::Zboot | FileKind::Gzip | FileKind::Zstd => image::symbols(file),
        FileKind::Text => system_map::symbols(file),
        _ => Err(Failure::new(format_args!("{kind}, which has no symbols"))
            .hint("give the kernel's ELF file (vmlinux), its System.map or its Image")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_symbols_is_named() {
        let failure = |file: &[u8]| of(file).unwrap_err().to_string();
        assert!(failure(b"").starts_with("an empty file, which has no symbols; give"));
        assert!(failure(b"\xd0\x0d\xfe\xed").starts_with("a device tree"));
    }
}

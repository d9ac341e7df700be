//! Raw memory in files, with registers that are given.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::file_memory::{self, FileMemory, Piece};
use super::given::{GivenRegisters, number};
use super::registers::Registers;
use crate::dump::guest::Guest;
use crate::failure::Failure;
use crate::file_kind::FileKind;

/// A file and the physical address of its first byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryFile {
    path: PathBuf,
    base: u64,
}

impl std::str::FromStr for MemoryFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('@') {
            Some((path, base)) if !path.is_empty() => Ok(Self { path: path.into(), base: number(base)? }),
            _ => Err("FILE@ADDRESS is needed, the physical address of the file's first byte".to_owned()),
        }
    }
}

/// The machine whose memory `files` hold.
///
/// # Errors
/// A file can't be read, or no root is given.
pub fn open(files: &[MemoryFile], given: &GivenRegisters) -> Result<Guest, Failure> {
    if !given.has_root() {
        let failure = Failure::new("raw memory holds no registers");
        return Err(failure.hint("give them with --ttbr1 VALUE --tcr VALUE --mair VALUE"));
    }
    let mut registers = Registers::default();
    let roots = given.apply(&mut registers)?;
    let (roots, notes) = registers.roots(&given.regime, &roots).roots_and_notes()?;
    let (mut opened, mut pieces) = (Vec::new(), Vec::new());
    for MemoryFile { path, base } in files {
        let of = |failure: Failure| failure.of(path.display());
        let (file, len) = file_memory::open(path)?;
        let mut magic = [0; 18];
        if len >= magic.len() as u64 {
            file.read_exact_at(&mut magic, 0).map_err(|error| of(error.into()))?;
        }
        match FileKind::of(&magic) {
            _ if len == 0 => return Err(of(Failure::new("it is empty"))),
            kind @ (FileKind::ElfCore | FileKind::KdumpCompressed | FileKind::Qcow2) => {
                let failure = Failure::new(format_args!("it is {kind}, not raw memory"));
                return Err(of(failure).hint("an ELF core is given without --memory"));
            }
            _ => {}
        }
        let end = base.checked_add(len).ok_or_else(|| of(Failure::new("it ends beyond 2^64")))?;
        pieces.push(Piece { memory: *base..end, offset: 0, file: opened.len() });
        opened.push((path.clone(), file));
    }
    Ok(Guest { memory: Box::new(FileMemory::new(opened, pieces)), roots, notes })
}

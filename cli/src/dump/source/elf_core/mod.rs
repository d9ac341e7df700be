//! ELF cores: /proc/vmcore, and what QEMU's `dump-guest-memory` writes.

mod headers;
mod notes;
mod vmcoreinfo;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file_memory::{self, FileMemory, Piece};
use super::given::GivenRegisters;
use super::registers::Registers;
use crate::dump::guest::{AddressSpace, Guest, Root, RootRegister};
use crate::failure::Failure;
use crate::file_kind::FileKind;
use headers::{Bytes, Headers};
use linmap_vmsa::id::Mmfr0;
use linmap_vmsa::{HardwareUpdates, Regime, TableRegisters, Walk};
use vmcoreinfo::KernelRoot;

/// Most bytes of notes that are read: those of a thousand CPUs.
const NOTES: u64 = 16 << 20;

/// ID_AA64MMFR0_EL1 of a CPU with 52 bits of PA, which take nothing away from what TCR says.
const MMFR0_52_BITS: u64 = 0x6;

/// A core file and its length.
struct Core {
    file: File,
    len: u64,
}

impl Bytes for Core {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}

/// The machine whose memory the core at `path` holds. Its registers are those that are given, or
/// what VMCOREINFO says.
///
/// # Errors
/// The file is none, or says nothing about the tables.
pub fn open(path: &Path, given: &GivenRegisters) -> Result<Guest, Failure> {
    let of = |failure: Failure| failure.of(path.display());
    let (file, len) = file_memory::open(path)?;
    let mut head = vec![0; FileKind::HEAD.min(usize::try_from(len).unwrap_or(FileKind::HEAD))];
    file.read_exact_at(&mut head, 0).map_err(|error| of(error.into()))?;
    match FileKind::of(&head) {
        FileKind::ElfCore => {}
        FileKind::KdumpCompressed => {
            let failure = Failure::new("it is a compressed dump of makedumpfile");
            return Err(
                of(failure).hint("write an ELF core: makedumpfile -E, or dump-guest-memory without a format")
            );
        }
        kind => {
            let failure = Failure::new(format_args!("it is {kind}, and an ELF core is needed"));
            return Err(of(failure).hint("raw memory is given with --memory FILE@ADDRESS"));
        }
    }
    let core = Core { file, len };
    let headers = Headers::read(&core).map_err(|error| of(error.into()))?;
    let mut notes = Vec::new();
    if headers.missing != 0 {
        notes.push(format!("the core is truncated: {:#x} bytes of memory are missing", headers.missing));
    }
    let (roots, of_roots) = roots(&core, &headers, given).map_err(of)?;
    notes.extend(of_roots);
    let pieces = headers.loads.into_iter();
    let pieces = pieces.map(|load| Piece { memory: load.memory, offset: load.offset, file: 0 }).collect();
    let memory = FileMemory::new(vec![(path.to_owned(), core.file)], pieces);
    Ok(Guest { memory: Box::new(memory), roots, notes })
}

fn roots(
    core: &Core,
    headers: &Headers,
    given: &GivenRegisters,
) -> Result<(Vec<Root>, Vec<String>), Failure> {
    if given.has_root() {
        let mut registers = Registers::default();
        let roots = given.apply(&mut registers)?;
        return registers.roots(&given.regime, &roots).roots_and_notes();
    }
    let Some(text) = vmcoreinfo(core, headers)? else {
        let failure = Failure::new("the core holds no registers of translation and no VMCOREINFO");
        return Err(failure.hint("give them with --ttbr1 VALUE --tcr VALUE --mair VALUE"));
    };
    let root = KernelRoot::read(&text).map_err(|error| {
        Failure::from(error).hint("give the registers with --ttbr1 VALUE --tcr VALUE --mair VALUE")
    })?;
    let mut notes =
        vec!["the root is swapper_pg_dir by VMCOREINFO, which does not tell about TTBR0".to_owned()];
    if given.mair().is_none() {
        notes.push(
            "VMCOREINFO has no MAIR: memory types are shown by index; --mair VALUE names them".to_owned(),
        );
    }
    // VMCOREINFO knows nothing else of TCR than its sizes.
    let registers = |tcr| TableRegisters { tcr, ttbr0: 0, ttbr1: root.table.0 };
    let walk = match given.tcr() {
        Some(tcr) => Walk::upper(Regime::El1And0, registers(tcr), Mmfr0(MMFR0_52_BITS)).map_err(|error| {
            Failure::new(format_args!("TTBR1_EL1 is not shown: TCR_EL1 is {tcr:#x}: {error}"))
        })?,
        None => None,
    };
    if root.geometry.lpa2() && walk.is_none() {
        notes.push("under LPA2 the shareability is in TCR_EL1: --tcr VALUE names it".to_owned());
    }
    let root = Root {
        register: RootRegister::Ttbr1El1,
        geometry: root.geometry,
        table: root.table,
        first: root.first,
        id: 0,
        tcr: given.tcr(),
        mair: given.mair(),
        addresses: AddressSpace::Physical,
        shareability: walk.and_then(|walk| walk.shareability),
        writable_never_executes: false,
        has_table_permissions: walk.is_none_or(|walk| walk.has_table_permissions),
        updates: walk.map_or(HardwareUpdates::Off, |walk| walk.updates),
    };
    Ok((vec![root], notes))
}

fn vmcoreinfo(core: &Core, headers: &Headers) -> Result<Option<String>, Failure> {
    for place in &headers.notes {
        let len = usize::try_from((place.end - place.start).min(NOTES)).unwrap_or(0);
        let mut bytes = vec![0; len];
        core.read(place.start, &mut bytes)?;
        if let Some(text) = notes::vmcoreinfo(&bytes) {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

//! Memory that goes through a hand-over untouched: told to the next kernel, found again by it.

use arrayvec::{ArrayString, ArrayVec, CapacityError};
use dtoolkit::fdt::Fdt;
use linmap_kexec::{MAX_PRESERVED, PreservedRange};
use linmap_memblock::Memblock;
use linmap_relocate::Sha256;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::arch::console::Quoted;
use crate::arch::cpu;
use crate::memory::layout::GEOMETRY;
use crate::memory::live::RESERVATIONS;
use crate::memory::machine::{Machine, REGIONS};
use crate::{report, say};

/// The longest label in bytes.
const LABEL: usize = 32;

/// A range that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// What it is.
    pub label: ArrayString<LABEL>,
    /// Where it is, in whole pages.
    pub range: PaRange,
}

/// All ranges that are kept.
pub type KeptRanges = ArrayVec<Kept, MAX_PRESERVED>;

/// Why a range is not kept.
#[derive(Debug, Error)]
pub enum KeepError {
    /// It has no label that fits.
    #[error("the label {label:?} is longer than {LABEL} bytes")]
    Label {
        /// As much of it as fits.
        label: ArrayString<LABEL>,
    },
    /// A label ends at its first NUL in a device tree.
    #[error("the label {label:?} has a NUL in it")]
    Nul {
        /// The label.
        label: ArrayString<LABEL>,
    },
    /// There are enough.
    #[error("there are {MAX_PRESERVED} kept ranges already")]
    Full,
    /// What is kept no longer has to be the user's again.
    #[error("there are too many of {RESERVATIONS} reservations for what is kept as {label:?}: `free` some")]
    NoRoom {
        /// The label.
        label: ArrayString<LABEL>,
    },
    /// The next kernel has been told already.
    #[error(
        "a payload is loaded, whose device tree says what was kept when it was loaded: `kexec unload` it first"
    )]
    Loaded,
    /// Its digest can't be made.
    #[error("{range} can't be kept: {pa} can't be read (`protect valid` it first)")]
    NotReadable {
        /// The range.
        range: PaRange,
        /// The first page in it that can't be read.
        pa: Pa,
    },
    /// It is no memory of the user's.
    #[error("{0} is not reserved by you: `reserve` it first")]
    NotYours(PaRange),
    /// Nothing is kept under this label.
    #[error("nothing is kept as {label:?}")]
    Nothing {
        /// The label.
        label: ArrayString<LABEL>,
    },
}

impl<T> From<CapacityError<T>> for KeepError {
    fn from(_: CapacityError<T>) -> Self {
        Self::Full
    }
}

fn label(text: &str) -> Result<ArrayString<LABEL>, KeepError> {
    let label = ArrayString::from(text).map_err(|_| {
        let mut label = ArrayString::new();
        for c in text.chars() {
            if label.try_push(c).is_err() {
                break;
            }
        }
        KeepError::Label { label }
    })?;
    if label.contains('\0') { Err(KeepError::Nul { label }) } else { Ok(label) }
}

/// What the kernel before us has kept. One range that is wrong is said, and then nothing counts as kept; all of it stays
/// reserved.
pub fn from_tree(fdt: Fdt<'_>, memblock: &Memblock<REGIONS>, in_use: &[PaRange]) -> KeptRanges {
    let read = PreservedRange::read_all(
        fdt,
        memblock.mappable(GEOMETRY.granule().bytes()),
        memblock.reserved(),
        in_use,
    );
    let ranges = match read {
        Ok(ranges) => ranges,
        Err(error) => {
            say!("what was kept is lost: {error}");
            report!("warning=kept what={}", Quoted(&error));
            return KeptRanges::new();
        }
    };
    let mut kept = KeptRanges::new();
    for range in ranges {
        match label(range.label) {
            Ok(label) => kept.push(Kept { label, range: range.range }),
            Err(error) => report!("warning=kept what={}", Quoted(&error)),
        }
    }
    kept
}

/// Keeps `range`, which the user has reserved, from now on.
///
/// # Errors
/// [`KeepError`].
pub fn keep(machine: &mut Machine<'_>, range: PaRange, text: &str) -> Result<(), KeepError> {
    let label = label(text)?;
    is_not_told(machine)?;
    let nth = machine.live.reserved.iter().position(|reserved| *reserved == range);
    let nth = nth.ok_or(KeepError::NotYours(range))?;
    if let Some(pa) = machine.first_unreadable(range) {
        return Err(KeepError::NotReadable { range, pa });
    }
    machine.kept.try_push(Kept { label, range })?;
    machine.live.reserved.remove(nth);
    Ok(())
}

/// Ends it for all ranges with this label; they are the user's reserved memory again.
///
/// # Errors
/// [`KeepError`].
pub fn drop_label(machine: &mut Machine<'_>, text: &str) -> Result<(), KeepError> {
    let label = label(text)?;
    is_not_told(machine)?;
    let ranges = machine.kept.iter().filter(|kept| kept.label == label);
    match ranges.clone().count() {
        0 => return Err(KeepError::Nothing { label }),
        // Before any of them is both kept and reserved.
        count if count > machine.live.reserved.remaining_capacity() => {
            return Err(KeepError::NoRoom { label });
        }
        _ => machine.live.reserved.extend(ranges.map(|kept| kept.range)),
    }
    machine.kept.retain(|kept| kept.label != label);
    Ok(())
}

/// Refuses a change of what is kept once a payload's tree has been written. A crash kernel's says nothing of it, since all of
/// it lies in memory that a crash kernel does not use.
fn is_not_told(machine: &Machine<'_>) -> Result<(), KeepError> {
    if machine.loaded.is_some() { Err(KeepError::Loaded) } else { Ok(()) }
}

/// Prints what is kept, with its digest.
pub fn show(machine: &Machine<'_>) {
    for kept in &machine.kept {
        let started = cpu::counter();
        // SAFETY: kept memory is mapped, was readable when it was kept, and stays so: it is not the user's to protect. Nobody
        // writes to it while the boot CPU reads.
        let digest = Sha256::new().of(unsafe { machine.bytes(kept.range) });
        report!(
            "kept={} start={} bytes={} sha256={digest} ticks={}",
            Quoted(kept.label.as_str()),
            kept.range.start,
            kept.range.len(),
            cpu::ticks_since(started)
        );
    }
}

/// Fills `range`, whole pages that this kernel may write to, with words that can't be guessed from a few of them, from `seed`
/// on (splitmix64).
pub fn fill(machine: &Machine<'_>, range: PaRange, seed: u64) {
    // SAFETY: memory that the user has reserved, of which the boot CPU alone makes anything; it is writable, as asked for.
    let bytes = unsafe { machine.bytes_mut(range) };
    let mut state = seed;
    for word in bytes.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        *word = (value ^ value >> 31).to_le_bytes();
    }
}

/// The ranges as the next kernel's tree has them.
pub fn for_tree(kept: &KeptRanges) -> ArrayVec<PreservedRange<'_>, MAX_PRESERVED> {
    kept.iter().map(|kept| PreservedRange { label: kept.label.as_str(), range: kept.range }).collect()
}

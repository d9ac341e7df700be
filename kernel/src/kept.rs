//! Memory that goes through a hand-over untouched: told to the next kernel, found again by it.

use arrayvec::{ArrayString, ArrayVec, CapacityError};
use dtoolkit::fdt::Fdt;
use linmap_kexec::{KeptRange, MAX_KEPT};
use linmap_memblock::Memblock;
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::console::Quoted;
use crate::cpu;
use crate::machine::{Machine, REGIONS};
use crate::sha256::{Digest, Sha256};
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
pub type KeptRanges = ArrayVec<Kept, MAX_KEPT>;

/// Why a range is not kept.
#[derive(Debug, Error)]
pub enum KeepError {
    /// It has no label that fits.
    #[error("the label {label:?} is longer than {LABEL} bytes")]
    Label {
        /// As much of it as fits.
        label: ArrayString<LABEL>,
    },
    /// There are enough.
    #[error("there are {MAX_KEPT} kept ranges already")]
    Full,
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
    ArrayString::from(text).map_err(|_| {
        let mut label = ArrayString::new();
        for c in text.chars() {
            if label.try_push(c).is_err() {
                break;
            }
        }
        KeepError::Label { label }
    })
}

/// What the kernel before us has kept. One range that is wrong is said, and then nothing counts as kept; all of it stays
/// reserved.
pub fn from_tree(fdt: Fdt<'_>, memblock: &Memblock<REGIONS>, in_use: &[PaRange]) -> KeptRanges {
    let read = KeptRange::read_all(fdt, memblock, in_use);
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
    let nth = machine.live.reserved.iter().position(|reserved| *reserved == range);
    let nth = nth.ok_or(KeepError::NotYours(range))?;
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
    let before = machine.kept.len();
    for kept in machine.kept.iter().filter(|kept| kept.label == label) {
        machine.live.reserved.try_push(kept.range)?;
    }
    machine.kept.retain(|kept| kept.label != label);
    if machine.kept.len() == before { Err(KeepError::Nothing { label }) } else { Ok(()) }
}

/// Prints what is kept, with its digest.
pub fn show(machine: &Machine<'_>) {
    for kept in &machine.kept {
        let started = cpu::counter();
        let digest = digest(machine, kept.range);
        report!(
            "kept={} start={} bytes={} sha256={digest} ticks={}",
            Quoted(kept.label.as_str()),
            kept.range.start,
            kept.range.len(),
            cpu::ticks_since(started)
        );
    }
}

fn digest(machine: &Machine<'_>, range: PaRange) -> Digest {
    let mut digest = Sha256::new();
    // SAFETY: kept memory is mapped and reserved, and nobody writes to it while the boot CPU reads.
    digest.update(unsafe { machine.bytes(range) });
    digest.finish()
}

/// Fills `range` with words that can't be guessed from a few of them, from `seed` on (splitmix64).
pub fn fill(machine: &Machine<'_>, range: PaRange, seed: u64) {
    // SAFETY: memory that the user has reserved, of which the boot CPU alone makes anything.
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
pub fn for_tree(kept: &KeptRanges) -> ArrayVec<KeptRange<'_>, MAX_KEPT> {
    kept.iter().map(|kept| KeptRange { label: kept.label.as_str(), range: kept.range }).collect()
}

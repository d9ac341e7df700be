//! Preserved memory: it keeps its content through a hand-over. The device tree tells the next
//! kernel where it is.

use arrayvec::{ArrayString, ArrayVec};
use linmap_fdt::Fdt;
use linmap_kexec::{MAX_PRESERVED, PreservedRange};
use linmap_memblock::Memblock;
use linmap_relocate::Sha256;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::layout::GRANULE;
use crate::arch::print::Quoted;
use crate::memory::long_lists::REGIONS;
use crate::memory::physical::Memory;
use crate::memory::reservations::{RESERVATIONS, Reservations};
use crate::{report, say};

/// The longest label in bytes.
const LABEL: usize = 32;

/// A preserved range.
#[derive(Clone, Copy, Debug)]
pub struct Preserved {
    /// What the user calls it.
    pub label: ArrayString<LABEL>,
    /// Where it is, in whole pages.
    pub range: PaRange,
}

/// Why a range can't be preserved or released.
#[derive(Debug, Error)]
pub enum PreserveError {
    /// The label is too long.
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
    /// There is no room for another range.
    #[error("there are {MAX_PRESERVED} preserved ranges already")]
    Full,
    /// The user's reservations have no room for the released ranges.
    #[error("{RESERVATIONS} reservations have no room for what is preserved as {label:?}: `free` some")]
    NoRoom {
        /// The label.
        label: ArrayString<LABEL>,
    },
    /// The digest can't be made.
    #[error("{range} can't be preserved: {pa} can't be read (`protect valid` it first)")]
    NotReadable {
        /// The range.
        range: PaRange,
        /// The first page of it that can't be read.
        pa: Pa,
    },
    /// The user has not reserved the range.
    #[error("{0} is not reserved by you: `reserve` it first")]
    NotYours(PaRange),
    /// Nothing is preserved with this label.
    #[error("nothing is preserved as {label:?}")]
    Nothing {
        /// The label.
        label: ArrayString<LABEL>,
    },
}

fn label(text: &str) -> Result<ArrayString<LABEL>, PreserveError> {
    let label = ArrayString::from(text).map_err(|_| {
        let mut label = ArrayString::new();
        for c in text.chars() {
            if label.try_push(c).is_err() {
                break;
            }
        }
        PreserveError::Label { label }
    })?;
    if label.contains('\0') { Err(PreserveError::Nul { label }) } else { Ok(label) }
}

/// All preserved ranges.
#[derive(Clone, Debug, Default)]
pub struct PreservedMemory(ArrayVec<Preserved, MAX_PRESERVED>);

impl PreservedMemory {
    /// Reads the ranges that the previous kernel preserved. If one of them is wrong, reports it
    /// and returns none; the memory of all stays reserved.
    pub fn from_tree(fdt: Fdt<'_>, memblock: &Memblock<REGIONS>, in_use: &[PaRange]) -> Self {
        let read =
            PreservedRange::read_all(fdt, memblock.mappable(GRANULE.bytes()), memblock.reserved(), in_use);
        let ranges = match read {
            Ok(ranges) => ranges,
            Err(error) => {
                say!("no memory is preserved: {error}");
                report!("warning=preserved what={}", Quoted(&error));
                return Self::default();
            }
        };
        let mut preserved = ArrayVec::new();
        for range in ranges {
            match label(range.label) {
                Ok(label) => preserved.push(Preserved { label, range: range.range }),
                Err(error) => report!("warning=preserved what={}", Quoted(&error)),
            }
        }
        Self(preserved)
    }

    /// The ranges.
    pub fn ranges(&self) -> impl Iterator<Item = PaRange> + Clone {
        self.0.iter().map(|preserved| preserved.range)
    }

    /// The ranges in the form for the next kernel's device tree.
    pub fn for_tree(&self) -> ArrayVec<PreservedRange<'_>, MAX_PRESERVED> {
        self.0
            .iter()
            .map(|preserved| PreservedRange { label: preserved.label.as_str(), range: preserved.range })
            .collect()
    }

    /// Preserves `range`, which is one of the user's `reservations` and no longer is afterwards.
    ///
    /// # Errors
    /// [`PreserveError`].
    pub fn preserve(
        &mut self,
        memory: &Memory,
        reservations: &mut Reservations,
        range: PaRange,
        text: &str,
    ) -> Result<(), PreserveError> {
        let label = label(text)?;
        if !reservations.contains(range) {
            return Err(PreserveError::NotYours(range));
        }
        if let Some(pa) = memory.first_unreadable(range) {
            return Err(PreserveError::NotReadable { range, pa });
        }
        self.0.try_push(Preserved { label, range }).map_err(|_| PreserveError::Full)?;
        reservations.remove(range);
        Ok(())
    }

    /// Releases all ranges with this label: they become `reservations` of the user again.
    ///
    /// # Errors
    /// [`PreserveError`].
    pub fn release(&mut self, reservations: &mut Reservations, text: &str) -> Result<(), PreserveError> {
        let label = label(text)?;
        let ranges = self.0.iter().filter(|preserved| preserved.label == label);
        match ranges.clone().count() {
            0 => return Err(PreserveError::Nothing { label }),
            count if count > reservations.remaining() => return Err(PreserveError::NoRoom { label }),
            _ => {}
        }
        for preserved in ranges {
            reservations.add(preserved.range).map_err(|_| PreserveError::NoRoom { label })?;
        }
        self.0.retain(|preserved| preserved.label != label);
        Ok(())
    }

    /// Prints all ranges with their digests.
    pub fn show(&self, memory: &Memory) {
        for preserved in &self.0 {
            let started = cpu::counter();
            // SAFETY: preserved memory is mapped. It was readable when it was preserved, and the
            // user can't change its protection. Nothing writes to it while the boot CPU reads.
            let digest = Sha256::new().of(unsafe { memory.bytes(preserved.range) });
            report!(
                "preserved={} start={} bytes={} sha256={digest} ticks={}",
                Quoted(preserved.label.as_str()),
                preserved.range.start,
                preserved.range.len(),
                cpu::ticks_since(started)
            );
        }
    }
}

//! CPUs that wait in a pen of ours for the next kernel (arm64 boot protocol, `enable-method = "spin-table"`).

use arrayvec::ArrayVec;
use linmap_memblock::Piece;
use linmap_vmsa::{Pa, PaRange};

use crate::TreeError;
use crate::cells::Width;
use crate::kept::PAGE;
use crate::next_tree::properties_of;

/// Where CPUs wait with their MMU off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinTable {
    /// The memory with the loop that they run and the word that they watch, in whole pages of 4 KiB.
    pub pen: PaRange,
    /// The word that they all watch for the address to go to: 8 bytes in the pen, aligned, and 0 while they wait.
    pub release: Pa,
}

impl SpinTable {
    pub(crate) fn check(&self) -> Result<(), TreeError> {
        let Self { pen, release } = *self;
        if pen.is_empty() || pen.align_inward(PAGE) != pen {
            return Err(TreeError::PenUnaligned { pen });
        }
        let word = PaRange::from_len(release, 8).filter(|_| release.0.is_multiple_of(8));
        match word.filter(|&word| pen.covers(word)) {
            Some(_) => Ok(()),
            None => Err(TreeError::ReleaseOutsidePen { release, pen }),
        }
    }

    /// The value that replaces one of `old_len` bytes in the `cpu-release-addr` at `offset`, as long as that. `None` if
    /// the old one is no address: nobody has started that CPU.
    pub(crate) fn release_value(
        &self,
        old_len: usize,
        offset: usize,
    ) -> Result<Option<ArrayVec<u8, 8>>, TreeError> {
        let release = self.release;
        let value = Width::of_len(old_len).map(|width| width.bytes(release.0));
        value.map(|value| value.ok_or(TreeError::ReleaseTooHigh { offset, release })).transpose()
    }
}

/// Whether the CPU whose node goes on with `pieces` watches a word of memory.
pub(crate) fn is_used_by<'a>(pieces: impl Iterator<Item = Piece<'a>>) -> bool {
    let method = properties_of(pieces).find(|(name, _)| *name == "enable-method");
    method.is_some_and(|(_, value)| value == b"spin-table\0")
}

//! What `/chosen` tells the next kernel: command line, initrd, random numbers, and where a crash kernel runs.

use core::fmt;

use linmap_vmsa::PaRange;

use crate::cells::Cells;
use crate::tree_output::{Name, TreeOutput};
use crate::{NextTree, TreeError};

/// Random numbers that the next kernel takes from `/chosen`. Those of the tree are never passed on: this
/// kernel may have used them, and the next one's addresses and keys could be told from them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Seeds {
    /// `kaslr-seed` and `rng-seed` of the tree are removed, and there are no new ones.
    #[default]
    Removed,
    /// New ones replace them.
    New {
        /// `kaslr-seed`: where Linux places itself in virtual memory. Linux takes 0 for none.
        kaslr: u64,
        /// `rng-seed`: what it begins its random numbers with.
        rng: [u8; 32],
    },
}

/// Without the numbers: what is printed is read by others.
impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "Removed",
            Self::New { .. } => "New",
        })
    }
}

/// Where a crash kernel runs, and where it learns what the crashed one used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashMemory<'a> {
    /// `linux,usable-memory-range`: the memory that was reserved for it, one or two ranges. It uses no other.
    pub usable: &'a [PaRange],
    /// `linux,elfcorehdr`: the [`ElfCore`](crate::ElfCore) header, in one of the usable ranges since Linux reads it
    /// through its linear map.
    pub elf_core_header: PaRange,
}

impl CrashMemory<'_> {
    pub(crate) fn check(&self, initrd: Option<PaRange>) -> Result<(), TreeError> {
        let count = self.usable.len();
        if !(1..=2).contains(&count) {
            return Err(TreeError::UsableCount { count });
        }
        let parts = [("ELF core header", Some(self.elf_core_header)), ("initrd", initrd)];
        for (what, part) in parts {
            if let Some(range) = part
                && (range.is_empty() || !self.usable.iter().any(|usable| usable.covers(range)))
            {
                return Err(TreeError::OutsideUsable { what, range });
            }
        }
        Ok(())
    }
}

/// Whether the tree's property of `/chosen` gives way to what the next one says, if anything.
pub(crate) fn replaces(property: &str) -> bool {
    const REPLACED: [Name; 7] = [
        Name::Bootargs,
        Name::InitrdStart,
        Name::InitrdEnd,
        Name::KaslrSeed,
        Name::RngSeed,
        Name::UsableMemory,
        Name::ElfCoreHeader,
    ];
    REPLACED.iter().any(|name| name.text() == property)
}

/// Writes what `next` says.
pub(crate) fn write(
    next: &NextTree<'_>,
    root: Cells,
    output: &mut TreeOutput<'_, '_>,
) -> Result<(), TreeError> {
    output.property_string(Name::Bootargs, next.bootargs)?;
    if let Some(initrd) = next.initrd {
        for (name, address) in [(Name::InitrdStart, initrd.start), (Name::InitrdEnd, initrd.end)] {
            output.property(name, &address.0.to_be_bytes())?;
        }
    }
    if let Seeds::New { kaslr, rng } = next.seeds {
        output.property(Name::KaslrSeed, &kaslr.to_be_bytes())?;
        output.property(Name::RngSeed, &rng)?;
    }
    if let Some(crash) = next.crash {
        let widths = root.of_root()?;
        output.property_ranges(Name::UsableMemory, crash.usable, widths)?;
        output.property_ranges(Name::ElfCoreHeader, &[crash.elf_core_header], widths)?;
    }
    Ok(())
}

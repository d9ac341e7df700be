//! `/chosen`: the command line, the initrd, random numbers, and the memory of a crash kernel.

use core::fmt;

use linmap_fdt::CellCounts;
use linmap_vmsa::PaRange;

use super::names::{self, Writer};
use super::root_format::root_format;
use super::tree_error::TreeError;

/// The random numbers for the next kernel in `/chosen`. Those of the source are never passed on:
/// this kernel may have used them, and who knows them could derive the next kernel's addresses and
/// keys.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Seeds {
    /// `kaslr-seed` and `rng-seed` of the source are removed.
    #[default]
    Removed,
    /// New numbers replace those of the source.
    New {
        /// `kaslr-seed`: Linux derives its virtual addresses from it. 0 means none.
        kaslr: u64,
        /// `rng-seed`: seeds Linux's random number generator.
        rng: [u8; 32],
    },
}

/// Prints no number, so that logs do not reveal them.
impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "Removed",
            Self::New { .. } => "New",
        })
    }
}

/// The memory of a crash kernel, and the description of the crashed kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashMemory<'a> {
    /// `linux,usable-memory-range`: the memory reserved for the crash kernel, one or two ranges. It
    /// uses no other.
    pub usable: &'a [PaRange],
    /// `linux,elfcorehdr`: the range of the [`ElfCore`](crate::ElfCore) header. It lies in a usable
    /// range, because Linux reads it through its linear map.
    pub elf_core_header: PaRange,
}

impl CrashMemory<'_> {
    pub(super) fn check(&self, initrd: Option<PaRange>) -> Result<(), TreeError> {
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

/// The properties of `/chosen` that are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen<'a> {
    pub bootargs: &'a str,
    pub initrd: Option<PaRange>,
    pub seeds: Seeds,
    pub crash: Option<CrashMemory<'a>>,
}

impl Chosen<'_> {
    /// Returns whether the source's `property` is replaced or removed. The memory of a crash kernel
    /// is replaced by that of another only: a kernel that such a kernel starts has no other memory,
    /// and finds the core file of the same crashed kernel.
    pub fn replaces(&self, property: &str) -> bool {
        const REPLACED: [&str; 5] =
            [names::BOOTARGS, names::INITRD_START, names::INITRD_END, names::KASLR_SEED, names::RNG_SEED];
        const OF_CRASH: [&str; 2] = [names::USABLE_MEMORY, names::ELF_CORE_HEADER];
        REPLACED.contains(&property) || (self.crash.is_some() && OF_CRASH.contains(&property))
    }

    /// Writes the properties. Their ranges have the format of the root's children.
    pub fn write(&self, root: CellCounts, output: &mut Writer<'_, '_>) -> Result<(), TreeError> {
        output.property_string(names::BOOTARGS, self.bootargs)?;
        if let Some(initrd) = self.initrd {
            for (name, address) in [(names::INITRD_START, initrd.start), (names::INITRD_END, initrd.end)] {
                output.property(name, &address.0.to_be_bytes())?;
            }
        }
        if let Seeds::New { kaslr, rng } = self.seeds {
            output.property(names::KASLR_SEED, &kaslr.to_be_bytes())?;
            output.property(names::RNG_SEED, &rng)?;
        }
        if let Some(crash) = self.crash {
            let format = root_format(root)?;
            let entry = |range: &PaRange| (range.start.0, range.len());
            output.property_reg(names::USABLE_MEMORY, crash.usable.iter().map(entry), format)?;
            let header = [crash.elf_core_header];
            output.property_reg(names::ELF_CORE_HEADER, header.iter().map(entry), format)?;
        }
        Ok(())
    }
}

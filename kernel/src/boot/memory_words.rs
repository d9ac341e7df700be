//! The words of the command line that change which memory the kernel uses: `mem=`, which the
//! payload obeys too, and `linmap.mem=` and `linmap.memmap=`, which are for this kernel alone.

use arrayvec::ArrayVec;
use linmap_kexec::MAX_PRESERVED;
use linmap_memblock::{Memblock, RegionError};
use linmap_platform::{CommandLine, MemoryLimit, MemoryMap, MemoryWordError};
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::memory::long_lists::REGIONS;
use crate::report;

/// Limits this kernel and, since it is no word of ours, the payload.
const LIMIT: &str = "mem";
/// Limits this kernel alone.
pub const OWN_LIMIT: &str = "linmap.mem";
/// Adds memory, and leaves memory unmapped.
pub const MEMORY_MAP: &str = "linmap.memmap";

/// Why a word can't be obeyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum WordError {
    /// Its value makes no sense.
    #[error("{key}={value}: {source}")]
    Value {
        /// The word before `=`.
        key: &'static str,
        /// The rest.
        value: &'static str,
        /// What is wrong.
        source: MemoryWordError,
    },
    /// Memblock refuses the change.
    #[error("{key}={value}: {source}")]
    Region {
        /// The word before `=`.
        key: &'static str,
        /// The rest.
        value: &'static str,
        /// Why.
        source: RegionError,
    },
}

/// Adds the memory of all `linmap.memmap=` words to `memblock`, and marks what they leave unmapped.
///
/// # Errors
/// [`WordError`].
pub fn apply_maps(line: CommandLine<'static>, memblock: &mut Memblock<REGIONS>) -> Result<(), WordError> {
    let key = MEMORY_MAP;
    for word in line.words().filter(|word| word.key() == key) {
        let value = word.value();
        let map = MemoryMap::parse(value).map_err(|source| WordError::Value { key, value, source })?;
        map.apply(memblock).map_err(|source| WordError::Region { key, value, source })?;
        report!("memory-word={key} entries={} bytes={}", map.entries().count(), memblock.memory_len());
    }
    Ok(())
}

/// Removes the memory above the smaller one of the limits, but for what is `rescued`.
///
/// # Errors
/// [`WordError`].
pub fn apply_limits(
    line: CommandLine<'static>,
    memblock: &mut Memblock<REGIONS>,
    rescued: impl Iterator<Item = PaRange>,
) -> Result<(), WordError> {
    if [LIMIT, OWN_LIMIT].iter().all(|key| line.get(key).is_none()) {
        return Ok(());
    }
    let rescued: ArrayVec<PaRange, { 3 + MAX_PRESERVED }> = rescued.collect();
    for key in [LIMIT, OWN_LIMIT] {
        let Some(value) = line.get(key) else { continue };
        let limit = value.parse::<MemoryLimit>();
        let limit = limit.map_err(|source| WordError::Value { key, value, source })?;
        let before = memblock.memory_len();
        let end = limit.apply(memblock, &rescued);
        let end = end.map_err(|source| WordError::Region { key, value, source })?;
        let end = end.unwrap_or(memblock.memory_end());
        report!("memory-word={key} end={end} hidden={}", before - memblock.memory_len());
    }
    Ok(())
}

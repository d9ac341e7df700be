//! Memory for a crash kernel, as the command line asks for it.

use linmap_kexec::CommandLine;
use linmap_memblock::{AllocError, Memblock, RegionError};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::boot::number::number;

/// What is reserved begins and ends at a multiple of this: an image does, and block mappings of it stay whole.
const ALIGN: u64 = 0x20_0000;
/// Devices of 32 address bits reach memory below this, so that it is tried first.
const LOW: u64 = 1 << 32;
/// The word that reserves.
pub const WORD: &str = "linmap.crashkernel";

/// Why no memory is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ReserveError {
    /// The word can't be read.
    #[error("{WORD}= is SIZE or SIZE@ADDRESS, in numbers with K, M or G behind them")]
    Word,
    /// What it says is no whole number of 2 MiB.
    #[error(
        "{WORD}={size:#x}@{start:#x}: size and address have to be multiples of {ALIGN:#x}, and there has to be a size"
    )]
    Unaligned {
        /// The size in bytes.
        size: u64,
        /// The address.
        start: u64,
    },
    /// The memory is not there, or taken.
    #[error("{WORD}: {range} is not all free memory")]
    Taken {
        /// What was asked for.
        range: PaRange,
    },
    /// There is no such memory.
    #[error("{WORD}: {0}")]
    Memory(#[from] AllocError),
    /// Memblock has no room to note it.
    #[error("{WORD}: {0}")]
    Regions(#[from] RegionError),
}

/// Reserves what the command line asks for; `None` if it does not.
///
/// # Errors
/// [`ReserveError`]; nothing is reserved.
pub fn reserve<const N: usize>(
    line: CommandLine<'_>,
    memblock: &mut Memblock<N>,
) -> Result<Option<PaRange>, ReserveError> {
    let Some(value) = line.get(WORD) else { return Ok(None) };
    let (size, start) = value.split_once('@').map_or((value, None), |(size, start)| (size, Some(start)));
    let size = number(size).ok_or(ReserveError::Word)?;
    let start = start.map(|start| number(start).ok_or(ReserveError::Word)).transpose()?;
    let unaligned = ReserveError::Unaligned { size, start: start.unwrap_or(0) };
    if size == 0 || !(size | start.unwrap_or(0)).is_multiple_of(ALIGN) {
        return Err(unaligned);
    }
    let range = match start {
        Some(start) => {
            let range = PaRange::from_len(Pa(start), size).ok_or(unaligned)?;
            if !memblock.free_ranges(range).any(|free| free == range) {
                return Err(ReserveError::Taken { range });
            }
            memblock.reserve(range)?;
            range
        }
        None => {
            let everywhere = PaRange::new(Pa(0), memblock.memory_end());
            let low = PaRange::new(Pa(0), Pa(LOW.min(everywhere.end.0)));
            let start =
                memblock.alloc(size, ALIGN, low).or_else(|_| memblock.alloc(size, ALIGN, everywhere))?;
            PaRange::new(start, Pa(start.0 + size))
        }
    };
    Ok(Some(range))
}

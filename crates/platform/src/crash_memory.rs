//! Memory that a kernel reserves at boot for its crash kernel.

use core::str::FromStr;

use linmap_memblock::{AllocError, Memblock, RegionError};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::number::parse_number;

/// The reservation begins and ends at a multiple of this: an arm64 image has this alignment, and
/// block mappings of the memory stay whole.
const ALIGN: u64 = 0x20_0000;
/// Devices with 32 address bits reach memory below this limit. The reservation is made there if it
/// fits.
const LOW: u64 = 1 << 32;

/// Why no memory is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CrashReservationError {
    /// The text cannot be read.
    #[error("not SIZE or SIZE@ADDRESS, where a number can end in K, M or G")]
    Syntax,
    /// The size is 0, or size or address is not a multiple of 2 MiB.
    #[error(
        "size {size:#x} and address {start:#x} must be multiples of {ALIGN:#x}, and the size must not be 0"
    )]
    Unaligned {
        /// The size in bytes.
        size: u64,
        /// The address.
        start: u64,
    },
    /// Not all of the range is free memory.
    #[error("{range} is not all free memory")]
    NotFree {
        /// The range asked for.
        range: PaRange,
    },
    /// No free range is large enough.
    #[error(transparent)]
    Memory(#[from] AllocError),
    /// Memblock has no room for one more reservation.
    #[error(transparent)]
    Regions(#[from] RegionError),
}

/// The memory that a command line asks for, written `SIZE` or `SIZE@ADDRESS`, as in
/// `crashkernel=64M`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashReservation {
    /// The size in bytes, a multiple of 2 MiB above 0.
    size: u64,
    /// The range, if the text has an address.
    range: Option<PaRange>,
}

impl FromStr for CrashReservation {
    type Err = CrashReservationError;

    fn from_str(text: &str) -> Result<Self, CrashReservationError> {
        let (size, start) = text.split_once('@').map_or((text, None), |(size, start)| (size, Some(start)));
        let number = |text| parse_number(text).ok_or(CrashReservationError::Syntax);
        let size = number(size)?;
        let start = start.map(number).transpose()?;
        let unaligned = CrashReservationError::Unaligned { size, start: start.unwrap_or(0) };
        if size == 0 || !(size | start.unwrap_or(0)).is_multiple_of(ALIGN) {
            return Err(unaligned);
        }
        let range = start.map(|start| PaRange::from_len(Pa(start), size).ok_or(unaligned)).transpose()?;
        Ok(Self { size, range })
    }
}

impl CrashReservation {
    /// Reserves the memory in `memblock` and returns it. Without an address it is the highest free
    /// range below 4 GiB; the highest of all if none is large enough there.
    ///
    /// # Errors
    /// [`CrashReservationError`]; `memblock` is unchanged.
    pub fn reserve<const N: usize>(
        self,
        memblock: &mut Memblock<N>,
    ) -> Result<PaRange, CrashReservationError> {
        if let Some(range) = self.range {
            if !memblock.free_ranges(range).any(|free| free == range) {
                return Err(CrashReservationError::NotFree { range });
            }
            memblock.reserve(range)?;
            return Ok(range);
        }
        let everywhere = PaRange::new(Pa(0), memblock.memory_end());
        let low = PaRange::new(Pa(0), Pa(LOW.min(everywhere.end.0)));
        let start = memblock
            .alloc(self.size, ALIGN, low)
            .or_else(|_| memblock.alloc(self.size, ALIGN, everywhere))?;
        Ok(PaRange::new(start, Pa(start.0 + self.size)))
    }
}

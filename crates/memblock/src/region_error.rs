//! What the memory map can hold.

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// The end of all physical addresses: they have at most 52 bits in VMSAv8-64 (FEAT_LPA, FEAT_LPA2).
pub const PA_LIMIT: Pa = Pa(1 << 52);

/// Why the memory map refused a change. The map is unchanged.
///
/// ```
/// use linmap_memblock::{AllocError, Memblock, PA_LIMIT, RegionError};
/// use linmap_vmsa::{Pa, PaRange};
///
/// let range = |start, end| PaRange::new(Pa(start), Pa(end));
/// let mut memory = Memblock::<1>::new();
/// memory.add(range(0x4000_0000, 0x4001_0000))?;
/// let full = memory.add(range(0x8000_0000, 0x8001_0000)).unwrap_err();
/// assert!(matches!(full, RegionError::Full { capacity: 1, .. }));
/// let none = memory.alloc(0x10_0000, 0x1000, range(0, PA_LIMIT.0)).unwrap_err();
/// assert!(matches!(none, AllocError::NoSpace { .. }));
/// # Ok::<(), RegionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The change needs one range more than fits into the list.
    #[error("no room for {range}: all {capacity} ranges of the {list} list are in use")]
    Full {
        /// The full list: `memory`, `no-map` or `reserved`.
        list: &'static str,
        /// The range to add, remove or free.
        range: PaRange,
        /// The capacity of the list.
        capacity: usize,
    },
    /// The change needs one range more than fits into the list, and the list can't grow.
    #[error(
        "no room for {range}: all {capacity} ranges of the {list} list are in use, and no {bytes:#x} \
         bytes inside {limit} are free and in reach for a longer one"
    )]
    NoStorage {
        /// The full list: `memory`, `no-map` or `reserved`.
        list: &'static str,
        /// The range to add, remove or free.
        range: PaRange,
        /// The capacity of the list.
        capacity: usize,
        /// The number of bytes that longer lists need.
        bytes: u64,
        /// Where they may lie.
        limit: PaRange,
    },
    /// The range holds the lists themselves.
    #[error("{range} holds the lists of the memory map, at {storage}")]
    HoldsLists {
        /// The range to free, to remove or to keep unmapped.
        range: PaRange,
        /// The memory that the lists are in.
        storage: PaRange,
    },
    /// The range ends above [`PA_LIMIT`].
    #[error("{range} ends above {PA_LIMIT}, the end of the 52-bit physical address space")]
    AbovePaLimit {
        /// The refused range.
        range: PaRange,
    },
    /// A range to free is not all reserved: it was freed before, or never allocated.
    #[error("cannot free {range}: {first_free} is not reserved")]
    NotReserved {
        /// The range to free.
        range: PaRange,
        /// The lowest address in it that is not reserved.
        first_free: Pa,
    },
}

impl RegionError {
    /// Returns the range of the refused change.
    pub fn range(&self) -> PaRange {
        match *self {
            Self::Full { range, .. }
            | Self::NoStorage { range, .. }
            | Self::HoldsLists { range, .. }
            | Self::AbovePaLimit { range }
            | Self::NotReserved { range, .. } => range,
        }
    }
}

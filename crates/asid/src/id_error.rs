//! Why identifiers can't be allocated.

use thiserror::Error;

/// Why [`IdAllocator::new`](crate::IdAllocator::new) failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum IdError {
    /// Identifiers can't have this width.
    #[error("an identifier of {bits} bits: ASIDs and VMIDs have 8 or 16, and tests may use 1 to 16")]
    Width {
        /// The width asked for.
        bits: u32,
    },
    /// A reserved identifier does not fit in the width.
    #[error("reserved identifier {id:#x} has more than {bits} bits")]
    NoSuchId {
        /// The reserved identifier.
        id: u16,
        /// The width in bits.
        bits: u32,
    },
    /// There are too few identifiers: at a rollover each CPU keeps the one that it runs by, and one
    /// more must be free.
    #[error("{usable} identifiers are not reserved, and {cpus} CPUs need one more than their number")]
    TooFew {
        /// The number of identifiers that are not reserved.
        usable: usize,
        /// The number of CPUs.
        cpus: usize,
    },
}

/// Why [`CpuIds::new`](crate::CpuIds::new) failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The allocator has no such CPU.
    #[error("CPU {cpu} of an allocator for {cpus} CPUs")]
    NoSuchCpu {
        /// The CPU's number.
        cpu: usize,
        /// The number of CPUs.
        cpus: usize,
    },
    /// A handle for this CPU exists.
    #[error("CPU {cpu} has its part of the allocator already")]
    Claimed {
        /// The CPU's number.
        cpu: usize,
    },
}

//! Why identifiers can't be allocated.

use thiserror::Error;

/// Why there can't be an allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum IdError {
    /// No identifier has this many bits.
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
    /// At a rollover each CPU keeps the identifier that it runs with, and one more must be left.
    #[error("{usable} identifiers are not reserved, and {cpus} CPUs need one more than their number")]
    TooFew {
        /// Identifiers that are not reserved.
        usable: usize,
        /// The number of CPUs.
        cpus: usize,
    },
}

/// Why a CPU can't use an allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CpuError {
    /// There is no such CPU.
    #[error("CPU {cpu} of an allocator for {cpus} CPUs")]
    NoSuchCpu {
        /// The CPU's number.
        cpu: usize,
        /// How many CPUs there are.
        cpus: usize,
    },
    /// The CPU has its part already.
    #[error("CPU {cpu} has its part of the allocator already")]
    Claimed {
        /// The CPU's number.
        cpu: usize,
    },
}

//! Why a stress run failed.

use linmap::ChangeError;
use linmap_memblock::AllocError;
use thiserror::Error;

use crate::smp::cross_call::NotIdle;
use crate::stress::call::Call;
use crate::stress::footprint::Footprint;

/// Why a stress run failed.
#[derive(Clone, Copy, Debug, Error)]
pub enum StressError {
    /// No memory is free to work on.
    #[error("no memory for the run: {0}")]
    Memory(#[from] AllocError),
    /// A CPU can't be given work.
    #[error(transparent)]
    NotIdle(#[from] NotIdle),
    /// A call failed that should succeed.
    #[error("call {call}, {what}, failed: {error}")]
    Refused {
        /// Its number.
        call: u64,
        /// What it was.
        what: Call,
        /// Why it failed.
        error: ChangeError,
    },
    /// A call succeeded that should be refused.
    #[error("call {call}, {what}, made memory executable that is writable, or that must not be")]
    Allowed {
        /// Its number.
        call: u64,
        /// What it was.
        what: Call,
    },
    /// Another CPU saw an illegal state.
    #[error(
        "CPU {cpu}, after call {call}: {what}, at {address:#x}, expected {expected:#x}, found {found:#x}"
    )]
    Wrong {
        /// The CPU.
        cpu: usize,
        /// The last call.
        call: u64,
        /// What it was.
        what: &'static str,
        /// The address.
        address: u64,
        /// The expected state of the page, word or sum.
        expected: u64,
        /// The syndrome, word or sum that was found.
        found: u64,
    },
    /// A CPU stopped answering.
    #[error("CPU {cpu} does not answer after call {call}")]
    Silent {
        /// The CPU.
        cpu: usize,
        /// The last call.
        call: u64,
    },
    /// After all calls are undone and folded, the map differs.
    #[error("the map was {before}, and is {after} after undoing all")]
    Differs {
        /// Before the run.
        before: Footprint,
        /// After it.
        after: Footprint,
    },
}

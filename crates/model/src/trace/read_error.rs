//! Why a trace cannot be read.

use linmap_trace::{Found, LineError, Malformed, Quote};
use thiserror::Error;

use crate::config::ConfigError;

/// A file that is not a trace.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// The byte of the line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl ReadError {
    /// The error of line `line`.
    pub(super) fn of_line(line: usize, error: LineError) -> Self {
        Self { line, column: error.column, problem: error.problem.into() }
    }
}

/// What is wrong with a trace.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A line or record by itself.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A CPU that the machine does not have.
    #[error("CPU {cpu}: the machine has {cpus}, numbered from 0")]
    NoSuchCpu {
        /// The number in the file.
        cpu: u64,
        /// How many there can be.
        cpus: usize,
    },
    /// A range of physical addresses that is not all memory.
    #[error("{len:#x} bytes from {start:#x} are not all memory of the machine")]
    OutsideRam {
        /// The first byte.
        start: u64,
        /// The length in bytes; [`u64::MAX`] if it exceeds 64 bits.
        len: u64,
    },
    /// The trace does not begin with the machine.
    #[error("the trace has to begin with the line `machine`")]
    NoHead,
    /// The machine is described twice.
    #[error("a second line `machine`")]
    SecondHead,
    /// Memory declared after the first event.
    #[error("`ram` after the first event")]
    LateRam,
    /// An impossible machine.
    #[error(transparent)]
    Config(ConfigError),
    /// A record that is not later than the one before it.
    #[error("id {id} after id {last}: records have to be in ascending order")]
    Order {
        /// The record's own number.
        id: u64,
        /// The number of the record before.
        last: u64,
    },
    /// A meaning that the model has no event for.
    #[error("{0} cannot be expressed in the model")]
    Unsupported(&'static str),
}

impl Problem {
    /// Returns the problem that `expected` is required where `found` is.
    pub(super) fn expected(expected: &'static str, found: &[u8]) -> Self {
        Malformed::Expected { expected, found: Found::Word(Quote::of(found)) }.into()
    }
}

//! Traces as files: linmap's own format, and casemate's.

pub mod casemate;
mod names;
mod ranges;
pub mod text;

use thiserror::Error;

use crate::shape::ConfigError;

/// Why a trace can't be read.
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

/// What can be wrong with a trace. Words of the file are quoted, and cut when long.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// Something else had to stand here, or the line or file ends too early.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What had to stand here.
        expected: &'static str,
        /// The word that does.
        found: String,
    },
    /// No such event.
    #[error("no event is called {0}")]
    UnknownEvent(String),
    /// No such system register.
    #[error("no register of a trace is called {0}")]
    UnknownRegister(String),
    /// No such TLBI instruction.
    #[error("no TLBI of a trace is called {0}")]
    UnknownTlbi(String),
    /// No such barrier.
    #[error("no barrier of a trace is called {0}")]
    UnknownBarrier(String),
    /// A number beyond what its field holds.
    #[error("{0} is too large a number here")]
    TooLarge(String),
    /// A CPU that the machine doesn't have.
    #[error("CPU {cpu}: the machine has {cpus}, numbered from 0")]
    NoSuchCpu {
        /// The number in the file.
        cpu: u64,
        /// How many there can be.
        cpus: usize,
    },
    /// A range of physical addresses that isn't all memory.
    #[error("{start:#x} and the {len:#x} bytes from there: not all of it is memory of the machine")]
    OutsideRam {
        /// The first byte.
        start: u64,
        /// The length in bytes.
        len: u64,
    },
    /// An address or length that isn't a multiple of what it must be.
    #[error("{value:#x} is not a multiple of {multiple:#x}")]
    Unaligned {
        /// The address or length.
        value: u64,
        /// Of what it must be a multiple.
        multiple: u64,
    },
    /// A range of virtual addresses that ends beyond the last one.
    #[error("{start:#x} and the {len:#x} bytes from there: beyond the last address")]
    BeyondEnd {
        /// The first byte.
        start: u64,
        /// The length in bytes.
        len: u64,
    },
    /// A length or count of 0.
    #[error("nothing: the length is 0")]
    Empty,
    /// The trace doesn't begin with the machine.
    #[error("the trace has to begin with the line `machine`")]
    NoHead,
    /// The machine is there twice.
    #[error("a second line `machine`")]
    SecondHead,
    /// Memory declared after the first event.
    #[error("`ram` after the first event")]
    LateRam,
    /// More words than belong there.
    #[error("{0} is one word too many")]
    Trailing(String),
    /// A machine that can't be.
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
    #[error("{0}: the model can't say that")]
    Unsupported(&'static str),
}

/// A word of the file, fit for a message.
fn quoted(word: &[u8]) -> String {
    const LONGEST: usize = 40;
    let cut = word.get(..LONGEST).unwrap_or(word);
    let dots = if cut.len() < word.len() { "…" } else { "" };
    format!("`{}{dots}`", String::from_utf8_lossy(cut).escape_debug())
}

/// A number of digits and underscores.
fn number(digits: &[u8], radix: u32) -> Option<Result<u64, TooLarge>> {
    let mut value = Ok(0_u64);
    if digits.first().is_none_or(|&first| first == b'_') {
        return None;
    }
    for &digit in digits.iter().filter(|&&digit| digit != b'_') {
        let digit = char::from(digit).to_digit(radix)?;
        value = value.and_then(|value| {
            value.checked_mul(radix.into()).and_then(|value| value.checked_add(digit.into())).ok_or(TooLarge)
        });
    }
    Some(value)
}

/// A number that does not fit 64 bits.
#[derive(Clone, Copy)]
struct TooLarge;

//! Why a line cannot be read.

use core::fmt;

use thiserror::Error;

use crate::quote::Quote;

/// A line that is not one of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("column {column}: {problem}")]
pub struct LineError {
    /// The byte of the line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Malformed,
}

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Another word is required here, or the line ends too early.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// The word required here.
        expected: &'static str,
        /// What is here.
        found: Found,
    },
    /// A word that names no event.
    #[error("unknown event {0}")]
    UnknownEvent(Quote),
    /// A word that names no system register of a trace.
    #[error("unknown register {0}")]
    UnknownRegister(Quote),
    /// A word that names no TLBI instruction of a trace.
    #[error("unknown TLBI {0}")]
    UnknownTlbi(Quote),
    /// A word that names no barrier.
    #[error("unknown barrier {0}")]
    UnknownBarrier(Quote),
    /// A number that its field cannot hold.
    #[error("the number {0} is too large for this field")]
    TooLarge(Quote),
    /// An address or length that is not a multiple of what it must be.
    #[error("{value:#x} is not a multiple of {multiple:#x}")]
    Unaligned {
        /// The address or length.
        value: u64,
        /// What it must be a multiple of.
        multiple: u64,
    },
    /// A range of virtual addresses that ends beyond the last one.
    #[error("{len:#x} bytes from {start:#x} end beyond the last address")]
    BeyondEnd {
        /// The first byte.
        start: u64,
        /// The length in bytes.
        len: u64,
    },
    /// A length or count of 0.
    #[error("the length or count is 0")]
    Empty,
    /// A word after the end of the line's grammar.
    #[error("unexpected word {0}")]
    Trailing(Quote),
}

/// What is found where something else is required.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A word.
    Word(Quote),
    /// The end of the line, or of what is named here.
    End(&'static str),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word}"),
            Self::End(of) => write!(f, "the end of the {of}"),
        }
    }
}

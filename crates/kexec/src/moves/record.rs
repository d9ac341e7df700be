//! A record of a move list, and its three words.

use core::fmt;

use linmap_relocate::{KIND_CLEAR, KIND_COPY, KIND_COPY_DOWNWARDS, KIND_GO, KIND_MASK};
use linmap_vmsa::{Pa, PaRange};

use crate::place::SEGMENT_ALIGN;

/// Length of a record in 64-bit words.
pub const RECORD_WORDS: usize = 3;

const _: () = assert!(KIND_MASK == SEGMENT_ALIGN - 1);

/// The order of a copy's bytes. It matters if source and destination overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The lowest address first: correct unless the destination starts within the source.
    Upwards,
    /// The highest address first: correct unless the source starts within the destination.
    Downwards,
}

/// A record of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Copy memory.
    Copy {
        /// The address of the first byte.
        source: Pa,
        /// The address to which the first byte is copied.
        destination: Pa,
        /// The number of bytes; a multiple of [`SEGMENT_ALIGN`], not 0.
        len: u64,
        /// The order of the bytes.
        direction: Direction,
    },
    /// Fill memory with zeros.
    Clear {
        /// The address of the first byte.
        destination: Pa,
        /// The number of bytes; a multiple of [`SEGMENT_ALIGN`], not 0.
        len: u64,
    },
    /// Let the other CPUs start with their lists: all ordered copies are done.
    Go,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { source, destination, len, direction } => {
                let direction = match direction {
                    Direction::Upwards => "upwards",
                    Direction::Downwards => "downwards",
                };
                write!(f, "copy {len:#x} bytes from {source} to {destination}, {direction}")
            }
            Self::Clear { destination, len } => write!(f, "clear {len:#x} bytes at {destination}"),
            Self::Go => write!(f, "go"),
        }
    }
}

impl Record {
    /// Returns the copy of `len` bytes in the direction that is correct if the ranges overlap.
    pub(super) fn copy(source: Pa, destination: Pa, len: u64) -> Self {
        let starts_within = destination.0 > source.0 && destination.0 - source.0 < len;
        let direction = if starts_within { Direction::Downwards } else { Direction::Upwards };
        Self::Copy { source, destination, len, direction }
    }

    /// Returns the number of bytes that are written.
    pub fn len(self) -> u64 {
        match self {
            Self::Copy { len, .. } | Self::Clear { len, .. } => len,
            Self::Go => 0,
        }
    }

    /// Returns whether no byte is written.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns the range that is read; an empty one at 0 if nothing is read.
    pub(super) fn source(self) -> PaRange {
        match self {
            Self::Copy { source, len, .. } => PaRange::from_len(source, len).unwrap_or_default(),
            Self::Clear { .. } | Self::Go => PaRange::default(),
        }
    }

    /// Returns the first `len` bytes of it, and the rest if it is longer.
    pub(super) fn cut(self, len: u64) -> (Self, Option<Self>) {
        let Some(rest) = self.len().checked_sub(len).filter(|&rest| rest != 0) else { return (self, None) };
        let behind = |pa: Pa| Pa(pa.0.saturating_add(len));
        match self {
            Self::Copy { source, destination, direction, .. } => (
                Self::Copy { source, destination, len, direction },
                Some(Self::Copy {
                    source: behind(source),
                    destination: behind(destination),
                    len: rest,
                    direction,
                }),
            ),
            Self::Clear { destination, .. } => (
                Self::Clear { destination, len },
                Some(Self::Clear { destination: behind(destination), len: rest }),
            ),
            Self::Go => (self, None),
        }
    }

    /// Returns this record merged with `next`, if `next` continues it at source and destination.
    /// Neither may overlap itself.
    pub(super) fn joined(self, next: Self) -> Option<Self> {
        let sum = self.len().checked_add(next.len())?;
        let goes_on = |from: Pa, to: Pa| from.0.checked_add(self.len()) == Some(to.0);
        match (self, next) {
            (
                Self::Copy { source, destination, direction: Direction::Upwards, .. },
                Self::Copy { source: then, destination: to, direction: Direction::Upwards, .. },
            ) if goes_on(source, then) && goes_on(destination, to) => {
                Some(Self::Copy { source, destination, len: sum, direction: Direction::Upwards })
            }
            (Self::Clear { destination, .. }, Self::Clear { destination: to, .. })
                if goes_on(destination, to) =>
            {
                Some(Self::Clear { destination, len: sum })
            }
            _ => None,
        }
    }

    /// Returns the record's words in a list.
    pub(super) fn words(self) -> [u64; RECORD_WORDS] {
        match self {
            Self::Copy { source, destination, len, direction: Direction::Upwards } => {
                [source.0, destination.0, len | KIND_COPY]
            }
            Self::Copy { source, destination, len, direction: Direction::Downwards } => {
                [source.0, destination.0, len | KIND_COPY_DOWNWARDS]
            }
            Self::Clear { destination, len } => [0, destination.0, len | KIND_CLEAR],
            Self::Go => [0, 0, KIND_GO],
        }
    }

    /// Returns the record of these words, if a plan can have it.
    pub(super) fn from_words([source, destination, word]: [u64; RECORD_WORDS]) -> Option<Self> {
        let (len, kind) = (word & !KIND_MASK, word & KIND_MASK);
        let whole = |start: u64| start.is_multiple_of(SEGMENT_ALIGN) && start.checked_add(len).is_some();
        if kind == KIND_GO {
            return (source == 0 && destination == 0 && len == 0).then_some(Self::Go);
        }
        if len == 0 || !whole(source) || !whole(destination) {
            return None;
        }
        let apart = source.abs_diff(destination) >= len;
        let copy =
            |direction| Self::Copy { source: Pa(source), destination: Pa(destination), len, direction };
        match kind {
            KIND_COPY if apart || destination < source => Some(copy(Direction::Upwards)),
            KIND_COPY_DOWNWARDS if apart || destination > source => Some(copy(Direction::Downwards)),
            KIND_CLEAR if source == 0 => Some(Self::Clear { destination: Pa(destination), len }),
            _ => None,
        }
    }
}

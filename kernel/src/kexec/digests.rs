//! Digests of what is loaded, to see whether it has changed.

use arrayvec::ArrayVec;
use linmap_kexec::{Extent, ExtentSource, LIST_FRAME_LEN, Moves, SEGMENT_ALIGN, Transition, WireError};
use linmap_relocate::{Digest, Sha256};
use linmap_vmsa::{Pa, PaRange};

use crate::kexec::error::KexecError;
use crate::kexec::lists::frame_at;
use crate::kexec::segment::{MAX_SEGMENTS, Segment, Staged};
use crate::kexec::tables;
use crate::memory::physical::Memory;

/// The digests of a payload, taken when it was loaded. Each byte is in one of them.
#[derive(Clone, Debug)]
pub struct LoadDigests {
    /// The segments', in the order of the segments.
    pub segments: ArrayVec<Digest, MAX_SEGMENTS>,
    /// The move lists'.
    pub lists: Digest,
    /// The transitional tables'.
    pub tables: Digest,
}

impl LoadDigests {
    /// Takes the digests.
    ///
    /// # Errors
    /// As [`lists`] and [`segment`].
    pub fn take(
        memory: &Memory,
        segments: &[Segment],
        moves: &Moves,
        transition: Option<&Transition>,
    ) -> Result<Self, KexecError> {
        let mut taken = ArrayVec::new();
        for segment in segments.iter().take(MAX_SEGMENTS) {
            taken.push(self::segment(memory, moves, segment)?);
        }
        Ok(Self { segments: taken, lists: lists(memory, moves)?, tables: tables::digest(memory, transition) })
    }
}

/// A page of zeros.
#[repr(C, align(16))]
struct Zeros([u8; SEGMENT_ALIGN as usize]);

static ZEROS: Zeros = Zeros([0; SEGMENT_ALIGN as usize]);

/// The digest of the pages of `segment`, wherever they are staged, in the order of the destination.
/// So it is the digest of the destination after the move.
///
/// # Errors
/// [`KexecError::List`], [`KexecError::Changed`]: the move lists have changed.
pub fn segment(memory: &Memory, moves: &Moves, segment: &Segment) -> Result<Digest, KexecError> {
    match segment.staged {
        Staged::InPlace => return Ok(pages(memory, segment.destination)),
        Staged::At(start) => {
            return Ok(pages(memory, PaRange::new(start, Pa(start.0 + segment.destination.len()))));
        }
        Staged::Pages => {}
    }
    let mut digest = Sha256::new();
    // The frames of these pages are in no destination, as `sources` asks: the free parts of the
    // destinations were allocated first.
    for extent in moves.sources(segment.destination, frame_at(memory)) {
        let Extent { source, len, .. } = extent?;
        match source {
            ExtentSource::Zeros => {
                (0..len / SEGMENT_ALIGN).for_each(|_| digest.update(&ZEROS.0));
            }
            ExtentSource::At(start) => {
                let range = PaRange::from_len(start, len).filter(|&range| memory.is_mapped(range));
                let range = range.ok_or(KexecError::Changed { what: "the move list" })?;
                // SAFETY: the linear map has it, and nothing writes to what is loaded.
                digest.update(unsafe { memory.bytes(range) });
            }
        }
    }
    Ok(digest.finish())
}

/// The digest of the pages of `range`, which the linear map has.
pub fn pages(memory: &Memory, range: PaRange) -> Digest {
    let mut digest = Sha256::new();
    // SAFETY: the bytes were loaded or found there, and nothing writes to them during this.
    digest.update(unsafe { memory.bytes(range) });
    digest.finish()
}

/// The digest of the frames of all move lists, one after the other.
///
/// # Errors
/// [`WireError`]: a list is malformed.
pub fn lists(memory: &Memory, moves: &Moves) -> Result<Digest, WireError> {
    let mut digest = Sha256::new();
    let mut at = frame_at(memory);
    // The records ask for each frame once.
    let take_in = |frame| {
        let words = at(frame)?;
        // SAFETY: the frame is mapped, and nothing writes to it.
        digest.update(unsafe { memory.bytes(PaRange::from_len(frame, LIST_FRAME_LEN)?) });
        Some(words)
    };
    moves.records(take_in).try_for_each(|record| record.map(|_| ()))?;
    Ok(digest.finish())
}

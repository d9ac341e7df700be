//! Digests of what is loaded, to see whether it has changed.

use linmap_kexec::{LIST_FRAME_LEN, LIST_FRAME_WORDS, Moves, Record, WireError};
use linmap_relocate::{Digest, Sha256};
use linmap_vmsa::{Pa, PaRange};

use crate::memory::physical::Memory;

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

/// The digest of what `moves` copies, in that order, without what only passes through `bounce`.
///
/// # Errors
/// [`WireError`]: a list is malformed.
pub fn staged(memory: &Memory, moves: &Moves, bounce: PaRange) -> Result<Digest, WireError> {
    let mut digest = Sha256::new();
    for record in moves.records(frame_at(memory)) {
        if let Record::Copy { source, len, .. } = record? {
            let range = PaRange::new(source, Pa(source.0 + len));
            if !bounce.overlaps(range) {
                // SAFETY: sources are memory that was loaded, and nothing writes to them.
                digest.update(unsafe { memory.bytes(range) });
            }
        }
    }
    Ok(digest.finish())
}

/// Reads the frames of a move list.
pub fn frame_at<'m>(memory: &'m Memory) -> impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]> {
    |frame| {
        let range = PaRange::from_len(frame, LIST_FRAME_LEN)?;
        memory.is_mapped(range).then_some(())?;
        // SAFETY: the linear map has the frame, aligned. Any bytes are valid words, and nothing
        // writes to them during this.
        Some(unsafe { &*(memory.layout.linear(frame).0 as *const [u64; LIST_FRAME_WORDS]) })
    }
}

//! The move lists of a payload in memory.

use linmap_kexec::{LIST_FRAME_LEN, LIST_FRAME_WORDS, Moves, SEGMENT_ALIGN};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu;
use crate::kexec::error::KexecError;
use crate::memory::physical::Memory;

/// Reads the frames of a move list.
pub fn frame_at<'m>(memory: &'m Memory) -> impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]> + Clone {
    |frame| {
        let range = PaRange::from_len(frame, LIST_FRAME_LEN)?;
        // A link that has changed may lead anywhere.
        (frame.0.is_multiple_of(LIST_FRAME_LEN) && memory.is_mapped(range)).then_some(())?;
        // SAFETY: the linear map has the frame, aligned. Any bytes are valid words, and nothing
        // writes to them during this.
        Some(unsafe { &*(memory.layout.linear(frame).0 as *const [u64; LIST_FRAME_WORDS]) })
    }
}

/// Checks that no frame of the lists lies in what they copy, and that they write as many bytes as
/// when they were finished.
///
/// # Errors
/// [`KexecError::List`].
pub fn check(memory: &mut Memory, moves: &Moves) -> Result<(), KexecError> {
    let len = (moves.frames * size_of::<Pa>() as u64).next_multiple_of(SEGMENT_ALIGN);
    if len == 0 {
        return Ok(());
    }
    let everywhere = memory.everywhere();
    let Ok(start) = memory.memblock.alloc(len, SEGMENT_ALIGN, everywhere) else {
        // Slower, with the little room that the stack has.
        return Ok(moves.check(&mut [Pa(0); 64], frame_at(memory))?);
    };
    let range = PaRange::new(start, Pa(start.0 + len));
    // SAFETY: these bytes were just allocated, and are freed after their last use.
    let mut bytes = unsafe { memory.owned_bytes(range) };
    // SAFETY: any bytes are valid addresses.
    let (_, room, _) = unsafe { bytes.as_mut().align_to_mut::<Pa>() };
    let checked = moves.check(room, frame_at(memory));
    memory.memblock.free(range)?;
    Ok(checked?)
}

/// Cleans the lists, which are read with the MMU off if there are no transitional tables.
///
/// # Errors
/// [`KexecError::List`].
pub fn clean(memory: &Memory, moves: &Moves) -> Result<(), KexecError> {
    let mut at = frame_at(memory);
    // The records ask for each frame once.
    let clean = |frame| {
        cpu::clean_and_invalidate(memory.layout.linear(frame), LIST_FRAME_LEN);
        at(frame)
    };
    Ok(moves.records(clean).try_for_each(|record| record.map(|_| ()))?)
}

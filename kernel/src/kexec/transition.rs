//! The tables for the move of a payload.

use linmap::MappingList;
use linmap::MemblockFrames;
use linmap_kexec::{Transition, TransitionError};
use linmap_vmsa::PaRange;

use crate::arch::cpu;
use crate::kexec::error::KexecError;
use crate::memory::physical::Memory;
use crate::{report, say};

/// Builds the transitional tables, which execute the code in `control`. `None` if no memory is free
/// for them.
///
/// # Errors
/// [`KexecError::Transition`].
pub fn build(memory: &mut Memory, control: PaRange) -> Result<Option<Transition>, KexecError> {
    let started = cpu::counter();
    let mut mappings = MappingList::new();
    let layout = memory.layout;
    let (mut window, mapped) = (memory.tables(), memory.memblock.clone());
    let mut frames = MemblockFrames::new(&mut memory.memblock, layout.geometry());
    match Transition::build(&layout, &mapped, control.start, &mut mappings, &mut window, &mut frames) {
        Ok(both) => {
            report!(
                "phase=kexec-tables ticks={} tables={}",
                cpu::ticks_since(started),
                both.linear.built().tables + both.code.built().tables
            );
            Ok(Some(both))
        }
        Err(TransitionError::OutOfFrames(error)) => {
            say!(
                "no memory for transitional tables ({error}): the payload is moved with the MMU off, slowly"
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

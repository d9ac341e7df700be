//! What a load has taken from memblock, to be given back.

use arrayvec::ArrayVec;
use linmap_memblock::{AllocError, RegionError};
use linmap_vmsa::{Pa, PaRange};

use super::KexecError;
use crate::machine::Machine;

/// Ranges that are apart in memory, at most; memblock has no more gaps than that.
const RANGES: usize = 512;

/// Memory taken from memblock.
#[derive(Debug)]
pub struct Taken(ArrayVec<PaRange, RANGES>);

impl Taken {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Takes `len` bytes, aligned to `align`, anywhere.
    pub fn alloc(&mut self, machine: &mut Machine<'_>, len: u64, align: u64) -> Result<Pa, KexecError> {
        let everywhere = PaRange::new(Pa(0), machine.memblock.memory_end());
        let start = machine.memblock.alloc(len, align, everywhere)?;
        let range = PaRange::new(start, Pa(start.0 + len));
        self.note(machine, range)?;
        Ok(start)
    }

    /// Takes as much of `range` as is free.
    pub fn reserve_free(&mut self, machine: &mut Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        loop {
            let free = machine.memblock.free_ranges(range).next();
            let Some(free) = free else { return Ok(()) };
            machine.memblock.reserve(free)?;
            self.note(machine, free)?;
        }
    }

    /// Gives `range` back, which was taken by [`alloc`](Self::alloc) and is at an end of what was taken last.
    pub fn give_back(&mut self, machine: &mut Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        machine.memblock.free(range)?;
        if let Some(at) = self.0.iter().position(|taken| taken.covers(range)) {
            let taken = self.0[at];
            let parts = [PaRange::new(taken.start, range.start), PaRange::new(range.end, taken.end)];
            self.0.swap_remove(at);
            for part in parts {
                if !part.is_empty() {
                    self.0.try_push(part).map_err(|_| full(part))?;
                }
            }
        }
        Ok(())
    }

    /// Gives everything back.
    pub fn release(self, machine: &mut Machine<'_>) {
        for range in self.0 {
            // Memblock refuses only what would need one more region than it has room for; that stays reserved.
            let _ = machine.memblock.free(range);
        }
    }

    fn note(&mut self, machine: &mut Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        // Pages come from the top down, one below the other.
        let below = self.0.iter_mut().rev().find(|taken| taken.start == range.end);
        if let Some(taken) = below {
            taken.start = range.start;
            return Ok(());
        }
        if self.0.try_push(range).is_err() {
            machine.memblock.free(range)?;
            return Err(full(range));
        }
        Ok(())
    }
}

fn full(range: PaRange) -> KexecError {
    AllocError::Regions(RegionError::Full { list: "taken", range, capacity: RANGES }).into()
}

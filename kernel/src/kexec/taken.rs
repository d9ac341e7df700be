//! What a load has taken from memblock, to be given back.

use arrayvec::ArrayVec;
use linmap_memblock::{AllocError, Memblock, RegionError};
use linmap_vmsa::{Pa, PaRange};

use super::command::KexecError;
use crate::memory::machine::{Machine, REGIONS};

/// Ranges that are apart in memory, at most; memblock has no more gaps than that.
const RANGES: usize = 512;

/// What a load has taken of the machine's memory.
pub type TakenRanges = ArrayVec<PaRange, RANGES>;

/// Whose memory is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pool {
    /// What is free in the machine. There is one payload at a time, and the machine notes what was taken for it.
    #[default]
    Machine,
    /// What is reserved for a crash kernel, and belongs to nothing else.
    CrashKernel,
}

impl Pool {
    /// The memblock that has it.
    pub fn memblock<'m>(self, machine: &'m Machine<'_>) -> &'m Memblock<REGIONS> {
        match self {
            Self::Machine => machine.memblock,
            Self::CrashKernel => &machine.crash.memory,
        }
    }

    fn memblock_mut<'m>(self, machine: &'m mut Machine<'_>) -> &'m mut Memblock<REGIONS> {
        match self {
            Self::Machine => machine.memblock,
            Self::CrashKernel => &mut machine.crash.memory,
        }
    }

    /// Takes `len` bytes, aligned to `align`, anywhere.
    pub fn alloc(self, machine: &mut Machine<'_>, len: u64, align: u64) -> Result<Pa, KexecError> {
        let memblock = self.memblock_mut(machine);
        let everywhere = PaRange::new(Pa(0), memblock.memory_end());
        let start = memblock.alloc(len, align, everywhere)?;
        let range = PaRange::new(start, Pa(start.0 + len));
        self.note(machine, range)?;
        Ok(start)
    }

    /// Takes as much of `range` as is free.
    pub fn reserve_free(self, machine: &mut Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        loop {
            let memblock = self.memblock_mut(machine);
            let free = memblock.free_ranges(range).next();
            let Some(free) = free else { return Ok(()) };
            memblock.reserve(free)?;
            self.note(machine, free)?;
        }
    }

    /// Gives `range` back, which was taken by [`alloc`](Self::alloc) and is at an end of what was taken last.
    pub fn give_back(self, machine: &mut Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        self.memblock_mut(machine).free(range)?;
        let ranges = &mut machine.taken;
        if self == Self::Machine
            && let Some(at) = ranges.iter().position(|taken| taken.covers(range))
        {
            let taken = ranges.swap_remove(at);
            let parts = [PaRange::new(taken.start, range.start), PaRange::new(range.end, taken.end)];
            for part in parts {
                if !part.is_empty() {
                    ranges.try_push(part).map_err(|_| full(part))?;
                }
            }
        }
        Ok(())
    }

    /// Gives everything back that was taken.
    pub fn release(self, machine: &mut Machine<'_>) {
        match self {
            Self::Machine => {
                for range in machine.taken.drain(..) {
                    // Memblock refuses only what would need one more region than it has room for; that stays reserved.
                    let _ = machine.memblock.free(range);
                }
            }
            Self::CrashKernel => machine.crash.clear(),
        }
    }

    fn note(self, machine: &mut Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        if self == Self::CrashKernel {
            return Ok(());
        }
        // Pages come from the top down, one below the other.
        let below = machine.taken.iter_mut().rev().find(|taken| taken.start == range.end);
        if let Some(taken) = below {
            taken.start = range.start;
            return Ok(());
        }
        if machine.taken.try_push(range).is_err() {
            machine.memblock.free(range)?;
            return Err(full(range));
        }
        Ok(())
    }
}

fn full(range: PaRange) -> KexecError {
    AllocError::Regions(RegionError::Full { list: "taken", range, capacity: RANGES }).into()
}

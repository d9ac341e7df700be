//! The memory that payloads are loaded to, and what a load has allocated of it.

use arrayvec::ArrayVec;
use linmap_memblock::{AllocError, Memblock, RegionError};
use linmap_vmsa::{Pa, PaRange};

use crate::kexec::crash::memory::CrashMemory;
use crate::kexec::error::KexecError;
use crate::memory::long_lists::REGIONS;
use crate::memory::physical::Memory;

/// How many ranges that are apart in memory can be allocated; memblock has no more gaps than that.
const RANGES: usize = 512;

/// What the load of a payload has allocated of the machine's memory. There is one such payload at a
/// time.
#[derive(Debug, Default)]
pub struct Allocations(ArrayVec<PaRange, RANGES>);

/// Which memory a payload is loaded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pool {
    /// Free memory of the machine.
    #[default]
    Machine,
    /// The memory that is reserved for a crash kernel and belongs to nothing else.
    CrashKernel,
}

/// The memory that a payload is loaded to.
pub struct PayloadMemory<'p> {
    /// Which one is allocated from.
    pub pool: Pool,
    /// The memory of the machine.
    pub memory: &'p mut Memory,
    /// What is allocated of it.
    pub allocations: &'p mut Allocations,
    /// The memory of the crash kernel.
    pub crash: &'p mut CrashMemory,
}

impl PayloadMemory<'_> {
    /// The memblock of the pool.
    pub fn memblock(&self) -> &Memblock<REGIONS> {
        match self.pool {
            Pool::Machine => &self.memory.memblock,
            Pool::CrashKernel => &self.crash.memory,
        }
    }

    fn memblock_mut(&mut self) -> &mut Memblock<REGIONS> {
        match self.pool {
            Pool::Machine => &mut self.memory.memblock,
            Pool::CrashKernel => &mut self.crash.memory,
        }
    }

    /// Allocates `len` bytes of the pool, aligned to `align`, anywhere.
    ///
    /// # Errors
    /// [`KexecError::Memory`], [`KexecError::Region`].
    pub fn alloc(&mut self, len: u64, align: u64) -> Result<Pa, KexecError> {
        let memblock = self.memblock_mut();
        let everywhere = PaRange::new(Pa(0), memblock.memory_end());
        let start = memblock.alloc(len, align, everywhere)?;
        let range = PaRange::new(start, Pa(start.0 + len));
        self.record(range)?;
        Ok(start)
    }

    /// Allocates all free parts of `range`.
    ///
    /// # Errors
    /// [`KexecError::Memory`], [`KexecError::Region`].
    pub fn reserve_free(&mut self, range: PaRange) -> Result<(), KexecError> {
        loop {
            let memblock = self.memblock_mut();
            let free = memblock.free_ranges(range).next();
            let Some(free) = free else { return Ok(()) };
            memblock.reserve(free)?;
            self.record(free)?;
        }
    }

    /// Frees `range`, which [`alloc`](Self::alloc) returned and which is at an end of what was
    /// allocated last.
    ///
    /// # Errors
    /// [`KexecError::Memory`], [`KexecError::Region`].
    pub fn free(&mut self, range: PaRange) -> Result<(), KexecError> {
        self.memblock_mut().free(range)?;
        let ranges = &mut self.allocations.0;
        if self.pool == Pool::Machine
            && let Some(at) = ranges.iter().position(|allocated| allocated.covers(range))
        {
            let allocated = ranges.swap_remove(at);
            let parts = [PaRange::new(allocated.start, range.start), PaRange::new(range.end, allocated.end)];
            for part in parts {
                if !part.is_empty() {
                    ranges.try_push(part).map_err(|_| full(part))?;
                }
            }
        }
        Ok(())
    }

    /// Frees everything that was allocated.
    pub fn release(&mut self) {
        match self.pool {
            Pool::Machine => {
                for range in self.allocations.0.drain(..) {
                    // Memblock only refuses when it needs one more region than it has room for;
                    // that stays reserved.
                    let _ = self.memory.memblock.free(range);
                }
            }
            Pool::CrashKernel => self.crash.clear(),
        }
    }

    fn record(&mut self, range: PaRange) -> Result<(), KexecError> {
        if self.pool == Pool::CrashKernel {
            return Ok(());
        }
        // Pages are allocated from the top down, each below the one before.
        let below = self.allocations.0.iter_mut().rev().find(|allocated| allocated.start == range.end);
        if let Some(allocated) = below {
            allocated.start = range.start;
            return Ok(());
        }
        if self.allocations.0.try_push(range).is_err() {
            self.memory.memblock.free(range)?;
            return Err(full(range));
        }
        Ok(())
    }
}

fn full(range: PaRange) -> KexecError {
    AllocError::Regions(RegionError::Full { list: "allocations", range, capacity: RANGES }).into()
}

//! The memory of a crash kernel.

use linmap_memblock::Memblock;
use linmap_platform::{CommandLine, CrashReservation, CrashReservationError};
use linmap_vmsa::PaRange;
use thiserror::Error;

use crate::arch::command_line::CRASH_KERNEL;
use crate::memory::long_lists::REGIONS;
use crate::report;

/// Why no memory is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{CRASH_KERNEL}: {0}")]
pub struct ReserveError(#[from] CrashReservationError);

/// The memory of a crash kernel. Nothing else uses it.
#[derive(Debug, Default)]
pub struct CrashMemory {
    /// Where it is; empty if none is reserved.
    pub range: PaRange,
    /// What of it is free.
    pub memory: Memblock<REGIONS>,
}

impl CrashMemory {
    /// Reserves what the command line asks for.
    ///
    /// # Errors
    /// [`ReserveError`]. Nothing is reserved.
    pub fn reserve(line: CommandLine<'_>, memblock: &mut Memblock<REGIONS>) -> Result<Self, ReserveError> {
        let Some(value) = line.get(CRASH_KERNEL) else { return Ok(Self::default()) };
        let range = value.parse::<CrashReservation>()?.reserve(memblock)?;
        let mut crash = Self { range, ..Self::default() };
        crash.clear();
        report!("crash-kernel=reserved start={} bytes={}", range.start, range.len());
        Ok(crash)
    }

    /// Frees all of it.
    pub fn clear(&mut self) {
        self.memory.clear();
        // An empty memblock has room for one range, as before.
        let _ = self.memory.add(self.range);
    }
}

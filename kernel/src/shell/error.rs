//! Why a command failed.

use arrayvec::ArrayString;
use linmap::{ChangeError, MemoryError, RecordFull};
use linmap_memblock::RegionError;
use linmap_vmsa::{Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::kexec::error::KexecError;
use crate::memory::preserved::PreserveError;
use crate::memory::reservations::TooManyReservations;
use crate::memory::verify::Mismatch;
use crate::smp::cross_call::{DidNotAnswer, NotIdle};
use crate::smp::error::CpuError;
use crate::stress::error::StressError;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("no command {0:?}; `help` lists them")]
    Unknown(ArrayString<32>),
    /// The command was given the wrong words.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// A command after an exclamation mark succeeded.
    #[error("this should have been refused")]
    NotRefused,
    /// The map is wrong.
    #[error(transparent)]
    Verify(#[from] Mismatch),
    /// Memory is both writable and executable.
    #[error("memory is both writable and executable: {0} pairs of mappings allow it")]
    WritableAndExecutable(u64),
    /// The payload can't be loaded or entered.
    #[error(transparent)]
    Kexec(#[from] KexecError),
    /// A CPU can't be started or switched off.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// CPUs do not answer.
    #[error(transparent)]
    Silent(#[from] DidNotAnswer),
    /// A CPU can't be given work.
    #[error(transparent)]
    NotIdle(#[from] NotIdle),
    /// The stress run failed.
    #[error(transparent)]
    Stress(#[from] StressError),
    /// The range ends beyond the last address.
    #[error("{start:#x} and {len:#x} bytes end beyond the last address")]
    Overflow {
        /// Where it starts.
        start: u64,
        /// Its length.
        len: u64,
    },
    /// The user has not reserved the memory.
    #[error("{0} is not reserved by you: `reserve` it first, so that nothing else gets it")]
    NotYours(PaRange),
    /// The memory is in use.
    #[error("{range} can't be reserved: {used} is in use")]
    InUse {
        /// What was asked for.
        range: PaRange,
        /// The first range that is in use.
        used: PaRange,
    },
    /// It is not memory of the machine.
    #[error("{0} is not memory that the device tree names")]
    NoHardware(PaRange),
    /// The walk to the address ends above the level.
    #[error("there is no table at level {level} on the way to {va}")]
    NoTable {
        /// The address.
        va: Va,
        /// The level.
        level: Level,
    },
    /// A fixmap slot is in use.
    #[error("fixmap slot {0} is in use")]
    SlotInUse(usize),
    /// It is not mapped memory.
    #[error("{0} is not mapped memory")]
    NotMapped(Pa),
    /// The memory is invalid in the map.
    #[error("{0} can't be read: `protect valid` it first")]
    NotReadable(Pa),
    /// The memory is invalid or read-only in the map.
    #[error("{0} can't be written to: `protect valid` and `protect rw` it first")]
    NotWritable(Pa),
    /// All reservations are in use.
    #[error(transparent)]
    Full(#[from] TooManyReservations),
    /// Memblock refuses.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The crash kernel's core file would be wrong.
    #[error(
        "a crash kernel is loaded, and its core file would list the wrong memory: `kexec unload --crash` \
         it first"
    )]
    CrashKernel,
    /// The payload's device tree would be wrong.
    #[error(
        "a payload is loaded, and its device tree would list the wrong preserved memory: `kexec unload` it \
         first"
    )]
    PayloadLoaded,
    /// The memory can't be preserved or released.
    #[error(transparent)]
    Preserve(#[from] PreserveError),
    /// The map can't be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The map is not changed, because the change could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordFull),
    /// The memory can't be added or removed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl CommandError {
    /// There is no command `name`, of which the error shows the start.
    pub fn unknown(name: &str) -> Self {
        let mut start = ArrayString::new();
        for c in name.chars() {
            if start.try_push(c).is_err() {
                break;
            }
        }
        Self::Unknown(start)
    }
}

//! Why a payload can't be loaded or entered.

use linmap::{ChangeError, RecordFull, TooManyRanges};
use linmap_fdt::DtbError;
use linmap_kexec::{
    ElfCoreError, ImageError, IndError, KernelFileError, MoveError, PlacementError, SegmentError,
    TransitionError, TreeError, UnpackError, WireError,
};
use linmap_memblock::{AllocError, RegionError};
use linmap_platform::CommandLineError;
use linmap_vmsa::GeometryError;
use thiserror::Error;

use crate::arch::command_line::CRASH_KERNEL;
use crate::kexec::archive::ArchiveAccessError;
use crate::smp::cross_call::NotIdle;
use crate::smp::error::CpuError;

/// Why a payload can't be loaded or entered.
#[derive(Debug, Error)]
pub enum KexecError {
    /// There is no payload.
    #[error("there is no payload: {0}")]
    NoPayload(&'static str),
    /// `linmap.payload=` has an unknown value.
    #[error("linmap.payload= is linux, self or none")]
    UnknownPayload,
    /// A word of the command line is not a number.
    #[error("{key}= is not a number")]
    NotANumber {
        /// The word.
        key: &'static str,
    },
    /// The archive can't be read.
    #[error(transparent)]
    Archive(#[from] ArchiveAccessError),
    /// A member of the archive is not text.
    #[error("the archive's {name} is not text: byte {at} is not UTF-8")]
    NotText {
        /// The member.
        name: &'static str,
        /// The first byte that is not text.
        at: usize,
    },
    /// The image is malformed, or can't run on this CPU.
    #[error("Image: {0}")]
    Image(#[from] ImageError),
    /// The command line can't be made.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The file is not a kernel.
    #[error("Image: {0}")]
    KernelFile(#[from] KernelFileError),
    /// The kernel can't be unpacked.
    #[error("Image: {0}")]
    Unpack(#[from] UnpackError),
    /// Our own device tree can't be read.
    #[error(transparent)]
    OwnTree(#[from] DtbError),
    /// The device tree can't be rewritten.
    #[error(transparent)]
    DeviceTree(#[from] TreeError),
    /// There is no place for a part of the payload.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The destinations are not valid segments.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// The plan refuses a move.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// No memory is free for the payload's pages or the move list.
    #[error(transparent)]
    Memory(#[from] AllocError),
    /// Memblock has no room for a destination.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Another CPU can't be switched off.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Another CPU has work.
    #[error(transparent)]
    NotIdle(#[from] NotIdle),
    /// Another CPU did not leave the live tables.
    #[error(
        "CPU {cpu} did not leave the live tables in time; the CPUs that did are off, or wait to be called"
    )]
    DidNotLeave {
        /// Its number.
        cpu: usize,
    },
    /// A part of the payload has changed since it was loaded.
    #[error("{what} has changed since it was loaded")]
    Changed {
        /// The part.
        what: &'static str,
    },
    /// The payload was loaded without digests.
    #[error("there are no digests to compare with: `kexec unload`, then `kexec load --verify`")]
    NoDigests,
    /// The move list has changed.
    #[error(transparent)]
    List(#[from] WireError),
    /// The moves can't be written as a list of pages.
    #[error(transparent)]
    Ind(#[from] IndError),
    /// A payload is loaded.
    #[error("a payload is loaded already: `kexec unload` it first")]
    Loaded,
    /// A CPU may still use the payload.
    #[error("a CPU that timed out may still use the payload: it can't be unloaded")]
    InUse,
    /// No payload is loaded.
    #[error("no payload is loaded: `kexec load` it first")]
    NotLoaded,
    /// No memory is reserved for a crash kernel.
    #[error("no memory is reserved for a crash kernel: {CRASH_KERNEL}=SIZE on the command line does that")]
    NoCrashMemory,
    /// The crash kernel can't be protected.
    #[error(transparent)]
    Protect(#[from] ChangeError),
    /// The crash kernel is not protected, because that could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordFull),
    /// The core file for a crash kernel can't be made.
    #[error(transparent)]
    CoreFile(#[from] ElfCoreError),
    /// The transitional tables can't be built.
    #[error("transitional tables: {0}")]
    Transition(#[from] TransitionError),
    /// Memory is in too many parts for transitional tables.
    #[error("transitional tables: {0}")]
    Ranges(#[from] TooManyRanges),
    /// No 1:1 map reaches the relocation code.
    #[error("transitional tables: no 1:1 map reaches the relocation code: {0}")]
    Identity(#[from] GeometryError),
}

impl KexecError {
    /// The error's kind in a line for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Archive(error) => error.kind(),
            Self::Image(_) | Self::KernelFile(_) | Self::Unpack(_) => "image",
            Self::Changed { .. } => "verify",
            Self::Placement(_) => "placement",
            Self::Cpu(_) => "cpus",
            _ => "kexec",
        }
    }
}

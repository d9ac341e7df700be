//! Loading a payload, looking at what is loaded, and entering it. Everything that can fail fails while loading.

use core::convert::Infallible;

use linmap::{ChangeError, Protection, TooManyRanges};
use linmap_fdt::DtbError;
use linmap_kexec::{
    Archive, ElfCoreError, ImageError, IndError, KernelFileError, MoveError, PlacementError, SegmentError,
    TransitionError, TreeError, UnpackError, WireError,
};
use linmap_memblock::{AllocError, RegionError};
use linmap_platform::{CommandLine, CommandLineError};
use linmap_vmsa::GeometryError;
use thiserror::Error;

pub use super::load::Manner;
pub use super::loaded::Loaded;
use super::taken::Pool;
pub use super::taken::TakenRanges;
use crate::boot::command_line::GENERATION;
use crate::kexec::crash::{self, WORD};
use crate::memory::live::Fields;
use crate::memory::machine::{Machine, MachineError};
use crate::report;
use crate::smp::cpus::{self, CpuError};
use crate::smp::cross_call::NotIdle;

/// Why the payload was not entered.
#[derive(Debug, Error)]
pub enum KexecError {
    /// There is nothing to load.
    #[error("there is no payload: {0}")]
    NoPayload(&'static str),
    /// `linmap.payload=` names none.
    #[error("linmap.payload= names no payload; there are linux, self and none")]
    UnknownPayload,
    /// A word of the command line should have a number.
    #[error("{key}= is set to what is no number")]
    NotANumber {
        /// The word.
        key: &'static str,
    },
    /// The archive can't be read.
    #[error(transparent)]
    Archive(#[from] MachineError),
    /// A member of the archive is no text.
    #[error("the archive's {name} is no text: byte {at} is not UTF-8")]
    NotText {
        /// The member.
        name: &'static str,
        /// Where the text ends.
        at: usize,
    },
    /// The image is none, or one that can't run here.
    #[error("Image: {0}")]
    Image(#[from] ImageError),
    /// The command line can't be made.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// The file is no kernel.
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
    /// The destinations are no segments.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// The plan refuses a move.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// No memory is left for the payload's pages or the move list.
    #[error(transparent)]
    Memory(#[from] AllocError),
    /// Memblock has no room to note a destination.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Another CPU can't be switched off.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Another CPU has something else to do.
    #[error(transparent)]
    NotIdle(#[from] NotIdle),
    /// Another CPU did not come along.
    #[error(
        "CPU {cpu} did not leave the live tables in time; the CPUs that did are off, or wait to be called"
    )]
    DidNotCome {
        /// Its number.
        cpu: usize,
    },
    /// What was loaded has changed.
    #[error("{what} is no longer what was loaded")]
    Changed {
        /// The segment, or what waits to be moved.
        what: &'static str,
    },
    /// The move list has changed.
    #[error(transparent)]
    List(#[from] WireError),
    /// The moves can't be written as a list of pages.
    #[error(transparent)]
    Ind(#[from] IndError),
    /// There is something loaded.
    #[error("a payload is loaded already: `kexec unload` it first")]
    Loaded,
    /// A CPU may need what is loaded.
    #[error("a CPU that was given up may still come to what is loaded: it stays")]
    InUse,
    /// There is nothing loaded.
    #[error("no payload is loaded: `kexec load` it first")]
    NotLoaded,
    /// The command has the wrong words.
    #[error(
        "usage: kexec [load [--scattered] [--mmu-off] | load --crash | unload [--crash] | plan [--crash] | list | exec [--verify]]"
    )]
    Usage,
    /// There is no memory for a crash kernel.
    #[error("no memory is reserved for a crash kernel: {WORD}=SIZE on the command line does that")]
    NoCrashMemory,
    /// The crash kernel can't be protected.
    #[error(transparent)]
    Protect(#[from] ChangeError),
    /// The memory can't be shown to a crash kernel.
    #[error(transparent)]
    CoreFile(#[from] ElfCoreError),
    /// Memory is in too many parts for transitional tables.
    #[error("transitional tables: {0}")]
    Ranges(#[from] TooManyRanges),
    /// No 1:1 map reaches the relocation code.
    #[error("transitional tables: no 1:1 map reaches the relocation code: {0}")]
    Identity(#[from] GeometryError),
    /// There are no transitional tables.
    #[error("transitional tables: {0}")]
    Transition(#[from] TransitionError),
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

/// What to hand over to.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// The kernel of the archive.
    Linux,
    /// linmap again, with the same archive, as this generation.
    Myself(u64),
}

/// How many kexecs of linmap into itself led here.
pub fn generation(command_line: CommandLine<'_>) -> Result<u64, KexecError> {
    number(command_line, GENERATION, 0)
}

/// The number that `key` is set to, or `unset`.
fn number(command_line: CommandLine<'_>, key: &'static str, unset: u64) -> Result<u64, KexecError> {
    match command_line.get(key) {
        None => Ok(unset),
        Some(value) => value.parse().map_err(|_| KexecError::NotANumber { key }),
    }
}

/// The payload that the command line and the archive ask for, or `None` when the boot ends here.
pub fn payload(machine: &Machine<'_>) -> Result<Option<Payload>, KexecError> {
    let command_line = CommandLine(machine.command_line);
    let generation = machine.generation;
    let last = number(command_line, "linmap.generations", 1)?;
    match command_line.get("linmap.payload") {
        Some("none") => Ok(None),
        Some("self") => Ok((generation < last).then(|| Payload::Myself(generation + 1))),
        Some("linux") | None => Ok(machine.archive()?.map(|_| Payload::Linux)),
        Some(_) => Err(KexecError::UnknownPayload),
    }
}

/// What the shell's `kexec` is asked to do.
///
/// # Errors
/// [`KexecError`]; it returns only with an error when a payload is entered.
pub fn command(machine: &mut Machine<'_>, rest: &str) -> Result<(), KexecError> {
    let mut words = rest.split_whitespace();
    let what = words.next();
    let mut manner = Manner::default();
    let mut verify = false;
    for word in words {
        match (what, word) {
            (Some("load"), "--scattered") => manner.scattered = true,
            (Some("load"), "--mmu-off") => manner.mmu_off = true,
            (Some("exec"), "--verify") => verify = true,
            (Some("load" | "unload" | "plan"), "--crash") => manner.pool = Pool::CrashKernel,
            _ => return Err(KexecError::Usage),
        }
    }
    let crash = manner.pool == Pool::CrashKernel;
    if crash && (manner.scattered || manner.mmu_off) {
        return Err(KexecError::Usage);
    }
    match what {
        None => run(machine).map(|never| match never {}),
        Some("load") if crash => load_crash(machine, manner),
        Some("load") => load(machine, manner),
        Some("unload") if crash => {
            if machine.crash.loaded.is_none() {
                return Err(KexecError::NotLoaded);
            }
            protect_crash_kernel(machine, Protection::ReadWrite)?;
            crash::withdraw();
            if let Some(loaded) = machine.crash.loaded.take() {
                loaded.unload(machine, Pool::CrashKernel);
            }
            Ok(())
        }
        Some("unload") => {
            // Unless all are where they should be by now.
            if machine.loaded.as_ref().is_some_and(|loaded| loaded.is_in_use)
                && cpus::can_stop_all(machine).is_err()
            {
                return Err(KexecError::InUse);
            }
            machine.loaded.take().ok_or(KexecError::NotLoaded)?.unload(machine, Pool::Machine);
            Ok(())
        }
        Some("plan") => {
            let loaded = if crash { &machine.crash.loaded } else { &machine.loaded };
            loaded.as_ref().ok_or(KexecError::NotLoaded)?.show();
            Ok(())
        }
        Some("list") => {
            let loaded = machine.loaded.take().ok_or(KexecError::NotLoaded)?;
            let listed = loaded.list(machine);
            machine.loaded = Some(loaded);
            listed
        }
        Some("exec") => exec(machine, verify).map(|never| match never {}),
        Some(_) => Err(KexecError::Usage),
    }
}

/// Loads the payload, if none is, and enters it; returns only with an error.
///
/// # Errors
/// [`KexecError`].
pub fn run(machine: &mut Machine<'_>) -> Result<Infallible, KexecError> {
    if machine.loaded.is_none() {
        cpus::can_stop_all(machine)?;
        load(machine, Manner::default())?;
    }
    exec(machine, false)
}

fn load(machine: &mut Machine<'_>, manner: Manner) -> Result<(), KexecError> {
    if machine.loaded.is_some() {
        return Err(KexecError::Loaded);
    }
    let payload = payload(machine)?.ok_or(KexecError::NoPayload("this is the last generation"))?;
    let loaded = super::load::load(machine, payload, manner)?;
    machine.loaded = Some(loaded);
    Ok(())
}

/// Loads a crash kernel, which waits for the end of this one.
fn load_crash(machine: &mut Machine<'_>, manner: Manner) -> Result<(), KexecError> {
    if machine.crash.loaded.is_some() {
        return Err(KexecError::Loaded);
    }
    if machine.crash.range.is_empty() {
        return Err(KexecError::NoCrashMemory);
    }
    let payload = payload(machine)?.ok_or(KexecError::NoPayload("this is the last generation"))?;
    let loaded = super::load::load(machine, payload, manner)?;
    let ready = super::exec::wait_for_crash(machine, &loaded)
        .and_then(|()| protect_crash_kernel(machine, Protection::ReadOnly));
    match ready {
        Ok(()) => {
            machine.crash.loaded = Some(loaded);
            Ok(())
        }
        Err(error) => {
            crash::withdraw();
            loaded.unload(machine, Pool::CrashKernel);
            Err(error)
        }
    }
}

/// Keeps a crash kernel from being overwritten by mistake, or ends that.
fn protect_crash_kernel(machine: &mut Machine<'_>, protection: Protection) -> Result<(), KexecError> {
    let range = machine.crash.range;
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    let changed = map.protect(&mut editor, steps, range, protection)?;
    report!("crash-kernel={} {}", protection.name(), Fields(changed));
    Ok(())
}

/// Enters what is loaded. It stays loaded if that fails; as long as a CPU may still come to read its orders it can't be
/// unloaded.
fn exec(machine: &mut Machine<'_>, verify: bool) -> Result<Infallible, KexecError> {
    let mut loaded = machine.loaded.take().ok_or(KexecError::NotLoaded)?;
    let result = super::exec::exec(machine, &mut loaded, verify);
    machine.loaded = Some(loaded);
    result
}

pub(super) fn member_text<'a>(archive: &Archive<'a>, name: &'static str) -> Result<&'a str, KexecError> {
    let Some(member) = archive.find(name) else { return Ok("") };
    let text = core::str::from_utf8(member.data)
        .map_err(|error| KexecError::NotText { name, at: error.valid_up_to() })?;
    Ok(text.trim_end_matches('\0').trim())
}

//! The shell's commands that change the linear map. Addresses are physical.

use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::CapacityError;
use linmap::{ChangeError, Changed, MemoryError, Protection, first_unmappable};
use linmap_live::Global;
use linmap_memblock::RegionError;
use linmap_platform::parse_number as number;
use linmap_relocate::Sha256;
use linmap_vmsa::{Attributes, Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::cpu::ThisCpu;
use crate::arch::percpu;
use crate::memory::kept::{self, KeepError};
use crate::memory::layout::slot;
use crate::memory::live::{Fields, RESERVATIONS, timed};
use crate::memory::machine::Machine;
use crate::report;
use crate::smp::cross_call::{self, NotIdle};
use crate::stress::run::{StressError, Summary};

/// Why a command changed nothing.
#[derive(Debug, Error)]
pub enum ChangesError {
    /// A word is not what it should be.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// The range ends beyond the last address.
    #[error("{start:#x} and {len:#x} bytes end beyond the last address")]
    Overflow {
        /// Where it starts.
        start: u64,
        /// Its length.
        len: u64,
    },
    /// Not memory that the user has reserved.
    #[error("{0} is not reserved by you: `reserve` it first, so that nobody else gets it meanwhile")]
    NotYours(PaRange),
    /// Somebody has it.
    #[error("{range} can't be reserved: {taken} is in use")]
    Taken {
        /// What was asked for.
        range: PaRange,
        /// The first range that is in use.
        taken: PaRange,
    },
    /// Not memory of the machine.
    #[error("{0} is no memory that the device tree names")]
    NoHardware(PaRange),
    /// No memory that is mapped.
    #[error("{0} is no memory that is mapped")]
    NotMapped(Pa),
    /// The map does not let memory be read.
    #[error("{0} can't be read: `protect valid` it first")]
    NotReadable(Pa),
    /// The map does not let memory be written to.
    #[error("{0} can't be written to: `protect valid` and `protect rw` it first")]
    NotWritable(Pa),
    /// Too many reservations.
    #[error("there are {RESERVATIONS} reservations already: `free` one")]
    Full,
    /// Memblock can't say it.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A crash kernel would be shown other memory than there is.
    #[error(
        "a crash kernel waits, which is told of the memory that there was when it was loaded: `kexec unload --crash` first"
    )]
    CrashKernel,
    /// The memory can't be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The map can't change.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The memory can't be added or removed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A CPU can't be given something to do.
    #[error(transparent)]
    NotIdle(#[from] NotIdle),
    /// The stress run failed.
    #[error(transparent)]
    Stress(#[from] StressError),
}

impl<T> From<CapacityError<T>> for ChangesError {
    fn from(_: CapacityError<T>) -> Self {
        Self::Full
    }
}

/// The words START and LENGTH.
fn range<'w>(
    words: &mut impl Iterator<Item = &'w str>,
    usage: &'static str,
) -> Result<PaRange, ChangesError> {
    let mut next = || words.next().and_then(number).ok_or(ChangesError::Usage(usage));
    let (start, len) = (next()?, next()?);
    let end = start.checked_add(len).ok_or(ChangesError::Overflow { start, len })?;
    Ok(PaRange::new(Pa(start), Pa(end)))
}

/// Refuses words that are left.
fn end<'w>(mut words: impl Iterator<Item = &'w str>, usage: &'static str) -> Result<(), ChangesError> {
    words.next().map_or(Ok(()), |_| Err(ChangesError::Usage(usage)))
}

fn reported<E>(
    name: &str,
    what: impl Display,
    (result, ticks): (Result<Changed, E>, u64),
) -> Result<(), ChangesError>
where
    ChangesError: From<E>,
{
    report!("change={name} what=\"{what}\" ticks={ticks} {}", Fields(result?));
    Ok(())
}

/// Takes free memory for the user.
pub fn reserve(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "reserve START LENGTH";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    if let Some(taken) = machine.memblock.reserved().iter().find(|taken| taken.overlaps(range)) {
        return Err(ChangesError::Taken { range, taken: *taken });
    }
    machine.live.map.check_mapped(range, |range| first_unmappable(machine.memblock, range))?;
    machine.live.reserved.try_push(range)?;
    machine.memblock.reserve(range).inspect_err(|_| {
        machine.live.reserved.pop();
    })?;
    Ok(())
}

/// Takes all free memory for good, but for so many bytes at its top: to see how the kernel fares when memory is short.
pub fn hoard(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "hoard ALL-BUT";
    let mut words = rest.split_whitespace();
    let mut left = words.next().and_then(number).ok_or(ChangesError::Usage(USAGE))?;
    end(words, USAGE)?;
    let page = machine.geometry().granule().bytes();
    let everywhere = PaRange::new(Pa(0), machine.memblock.memory_end());
    let before = machine.memblock.clone();
    let mut below = everywhere;
    loop {
        let free = machine.memblock.free_ranges(below).next_back();
        let Some(free) = free else { break };
        let leave = left.min(free.len()) & !(page - 1);
        left -= leave;
        let taken = PaRange::new(free.start, Pa(free.end.0 - leave));
        if !taken.is_empty()
            && let Err(error) = machine.memblock.reserve(taken)
        {
            *machine.memblock = before;
            return Err(error.into());
        }
        below.end = free.start;
    }
    let free: u64 = machine.memblock.free_ranges(everywhere).map(PaRange::len).sum();
    report!("hoard=ok free={free}");
    Ok(())
}

/// Keeps reserved memory through hand-overs.
pub fn keep(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "keep START LENGTH LABEL";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    let label = words.next().ok_or(ChangesError::Usage(USAGE))?;
    end(words, USAGE)?;
    kept::keep(machine, range, label)?;
    kept::show(machine);
    Ok(())
}

/// Keeps memory no longer.
pub fn unkeep(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "unkeep LABEL";
    let mut words = rest.split_whitespace();
    let label = words.next().ok_or(ChangesError::Usage(USAGE))?;
    end(words, USAGE)?;
    Ok(kept::drop_label(machine, label)?)
}

/// Fills reserved memory with a pattern.
pub fn fill(machine: &Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "fill START LENGTH SEED";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    let seed = words.next().and_then(number).ok_or(ChangesError::Usage(USAGE))?;
    end(words, USAGE)?;
    machine.live.map.check_mapped(range, |range| first_unmappable(machine.memblock, range))?;
    if !machine.live.reserved.iter().any(|reserved| reserved.covers(range)) {
        return Err(ChangesError::NotYours(range));
    }
    if let Some(page) = machine.first_unwritable(range) {
        return Err(ChangesError::NotWritable(page));
    }
    kept::fill(machine, range, seed);
    Ok(())
}

/// Prints the SHA-256 of memory that is reserved or kept, by the CPU's instructions for it and without them.
pub fn digest(machine: &Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "digest START LENGTH";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    machine.live.map.check_mapped(range, |range| first_unmappable(machine.memblock, range))?;
    let mut yours = machine.live.reserved.iter().copied().chain(machine.kept.iter().map(|kept| kept.range));
    if !yours.any(|yours| yours.covers(range)) {
        return Err(ChangesError::NotYours(range));
    }
    if let Some(page) = machine.first_unreadable(range) {
        return Err(ChangesError::NotReadable(page));
    }
    // SAFETY: it is mapped and readable, and the boot CPU alone writes to what is reserved or kept.
    let bytes = unsafe { machine.bytes(range) };
    if let Some(by_instructions) = Sha256::by_instructions() {
        report!("digest={} by=instructions bytes={}", by_instructions.of(bytes), range.len());
    }
    report!("digest={} by=words bytes={}", Sha256::by_words().of(bytes), range.len());
    Ok(())
}

/// Stores a byte to memory, whoever has it and however it is protected, as a fault of the memory would.
pub fn poke(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "poke ADDRESS BYTE";
    let mut words = rest.split_whitespace();
    let mut next = || words.next().and_then(number).ok_or(ChangesError::Usage(USAGE));
    let (at, value) = (Pa(next()?), next()?);
    let value = u8::try_from(value).map_err(|_| ChangesError::Usage(USAGE))?;
    end(words, USAGE)?;
    if !machine.mapped().any(|mapped| mapped.contains(at)) {
        return Err(ChangesError::NotMapped(at));
    }
    let page = machine.geometry().granule().bytes();
    let frame = Pa(at.0 & !(page - 1));
    let _ = machine.fixmap.map(&mut ThisCpu, slot::MOMENT, frame, Attributes::KERNEL_DATA);
    let va = Va(machine.fixmap.address(slot::MOMENT).0 + (at.0 - frame.0));
    // SAFETY: the byte's frame is mapped there, writable. The assembly hides the store from the compiler, which is what a fault
    // of the memory does too. What it breaks is the user's wish.
    let was = unsafe { cpu::exchange_byte(va, value) };
    machine.fixmap.clear(&mut ThisCpu, slot::MOMENT);
    report!("poke={at} was={was:#x} now={value:#x}");
    Ok(())
}

/// Gives back what was reserved.
pub fn free(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "free START LENGTH";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    let Some(nth) = machine.live.reserved.iter().position(|reserved| *reserved == range) else {
        return Err(ChangesError::NotYours(range));
    };
    // Whether memblock can say it, before the map changes; taken again so that no table comes from it.
    machine.memblock.free(range)?;
    machine.memblock.reserve(range)?;
    // Whoever gets the memory next may write to it.
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    map.make_data(&mut editor, steps, range)?;
    machine.memblock.free(range)?;
    machine.live.reserved.remove(nth);
    Ok(())
}

/// Whether the user may change what `range` may be used for: reserved memory alone. Of the image the map itself says what
/// can't change; its data are the kernel's own.
fn is_yours(machine: &Machine<'_>, range: PaRange) -> Result<(), ChangesError> {
    let yours = machine.live.reserved.iter().any(|reserved| reserved.covers(range));
    // Memory that is none is for the map to refuse, and to say why.
    let taken_or_free = machine.mapped().any(|mapped| mapped.covers(range));
    if yours || range.is_empty() || range.overlaps(machine.image.read_only()) || !taken_or_free {
        Ok(())
    } else {
        Err(ChangesError::NotYours(range))
    }
}

/// Gives memory another protection.
pub fn protect(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "protect ro|rw|nx|invalid|valid START LENGTH (`text` makes memory executable)";
    let mut words = rest.split_whitespace();
    let protection = words.next().and_then(Protection::from_name).ok_or(ChangesError::Usage(USAGE))?;
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    is_yours(machine, range)?;
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    let changed = timed(|| map.protect(&mut editor, steps, range, protection));
    reported("protect", format_args!("{} {range}", protection.name()), changed)
}

/// Makes memory read-only and executable.
pub fn text(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "text START LENGTH";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    is_yours(machine, range)?;
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    let changed = timed(|| map.make_text(&mut editor, steps, range));
    reported("text", range, changed)
}

/// Makes leaves smaller.
pub fn split(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "split LEVEL START LENGTH (LEVEL 2 or 3)";
    let mut words = rest.split_whitespace();
    let level = words.next().and_then(number).filter(|level| matches!(level, 2 | 3));
    let level = level.and_then(|level| Level::new(level as i8)).ok_or(ChangesError::Usage(USAGE))?;
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    let changed = timed(|| map.split(&mut editor, steps, range, level));
    reported("split", format_args!("{range} to level {level}"), changed)
}

/// Makes leaves as large as they can be.
pub fn fold(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "fold START LENGTH";
    let mut words = rest.split_whitespace();
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    let changed = timed(|| map.fold(&mut editor, steps, range));
    reported("fold", range, changed)
}

/// Makes all translations global or not.
pub fn non_global(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    let global = match rest {
        "on" => Global::NonGlobal,
        "off" => Global::Global,
        _ => return Err(ChangesError::Usage("ng on|off")),
    };
    let (map, mut editor, steps) = machine.live.parts(machine.memblock);
    let changed = timed(|| map.set_global(&mut editor, steps, global));
    reported("ng", rest, changed)
}

/// Adds memory to the map or takes it away.
pub fn memory(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "memory add|remove START LENGTH";
    let mut words = rest.split_whitespace();
    let what = words.next().unwrap_or_default();
    let range = range(&mut words, USAGE)?;
    end(words, USAGE)?;
    if machine.crash.loaded.is_some() {
        return Err(ChangesError::CrashKernel);
    }
    let changed = match what {
        "add" => {
            if !machine.hardware.iter().any(|memory| memory.covers(range)) {
                return Err(ChangesError::NoHardware(range));
            }
            let (map, mut editor, steps) = machine.live.parts(machine.memblock);
            timed(|| map.add_memory(&mut editor, steps, range))
        }
        "remove" => {
            let (map, mut editor, steps) = machine.live.parts(machine.memblock);
            timed(|| map.remove_memory(&mut editor, steps, range))
        }
        _ => return Err(ChangesError::Usage(USAGE)),
    };
    reported("memory", format_args!("{what} {range}"), changed)
}

/// Keeps interrupts from a CPU for a while, to see what a change does that needs it.
pub fn mask(_: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "mask CPU MILLISECONDS";
    let mut words = rest.split_whitespace();
    let mut next = || words.next().and_then(number).ok_or(ChangesError::Usage(USAGE));
    let (cpu, milliseconds) = (next()?, next()?);
    end(words, USAGE)?;
    static MASKED: AtomicBool = AtomicBool::new(false);
    MASKED.store(false, Ordering::Release);
    cross_call::start_work(
        cpu as usize,
        |milliseconds| {
            cpu::mask_interrupts();
            MASKED.store(true, Ordering::Release);
            percpu::wait_until(milliseconds as u64, || false);
            cpu::unmask_interrupts();
        },
        milliseconds as usize,
    )?;
    percpu::wait_until(cross_call::PATIENCE, || MASKED.load(Ordering::Acquire));
    Ok(())
}

/// Random changes with all other CPUs at work.
pub fn stress(machine: &mut Machine<'_>, rest: &str) -> Result<(), ChangesError> {
    const USAGE: &str = "stress CALLS [SEED]";
    let mut words = rest.split_whitespace();
    let calls = words.next().and_then(number).ok_or(ChangesError::Usage(USAGE))?;
    let seed = match words.next() {
        // Whoever wants the same run again takes it from the first line.
        None => cpu::counter(),
        Some(word) => number(word).ok_or(ChangesError::Usage(USAGE))?,
    };
    end(words, USAGE)?;
    let (summary, ticks) = timed(|| crate::stress::run::run(machine, calls, seed));
    let Summary { calls, refused, too_long, workers, accesses, faults, probed, changed } = summary?;
    report!(
        "stress=ok calls={calls} seed={seed:#x} workers={workers} accesses={accesses} faults={faults} \
         probed={probed} refused={refused} too_long={too_long} ticks={ticks} {}",
        Fields(changed)
    );
    Ok(())
}

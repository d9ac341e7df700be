//! Commands that change the linear map. Addresses are physical.

use core::fmt::Display;

use linmap::{Changed, Protection};
use linmap_live::Global;
use linmap_vmsa::{Level, PaRange};

use crate::memory::live::{Fields, LiveMap, timed};
use crate::memory::physical::Memory;
use crate::report;
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::shell::words::Words;

/// The words of `protect`.
pub const PROTECT: &str = "protect ro|rw|nx|invalid|valid START LENGTH";
/// The words of `text`.
pub const TEXT: &str = "text START LENGTH";
/// The words of `split`.
pub const SPLIT: &str = "split LEVEL START LENGTH";
/// The words of `fold`.
pub const FOLD: &str = "fold START LENGTH";
/// The words of `ng`.
pub const NON_GLOBAL: &str = "ng on|off";
/// The words of `memory`.
pub const MEMORY: &str = "memory add|remove START LENGTH";

fn reported<E>(
    name: &str,
    what: impl Display,
    (result, ticks): (Result<Changed, E>, u64),
) -> Result<(), CommandError>
where
    CommandError: From<E>,
{
    report!("change={name} what=\"{what}\" ticks={ticks} {}", Fields(result?));
    Ok(())
}

/// Checks that the user may change the use of `range`, which must be reserved memory. The map
/// itself refuses changes of the image's text and read-only data. The image's other data belong to
/// the kernel, not to the user.
fn check_yours(owners: &Owners, range: PaRange) -> Result<(), CommandError> {
    let image = owners.platform.image.read_only();
    // The map refuses memory that is not mapped, and says why.
    if owners.reservations.covers(range)
        || range.is_empty()
        || range.overlaps(image)
        || !owners.memory.is_mapped(range)
    {
        Ok(())
    } else {
        Err(CommandError::NotYours(range))
    }
}

/// Changes the protection of memory.
pub fn protect(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words =
        Words::new(rest, "protect ro|rw|nx|invalid|valid START LENGTH (`text` makes memory executable)");
    let protection = Protection::from_name(words.word()?).ok_or(words.wrong())?;
    let range = words.range()?;
    words.end()?;
    check_yours(owners, range)?;
    let (map, mut editor, steps) = owners.map.parts(&mut owners.memory.memblock);
    // SAFETY: the user has reserved the memory, so that nothing of the kernel is there. The user
    // accepts what it breaks.
    let changed = timed(|| unsafe { map.protect(&mut editor, steps, range, protection) });
    reported("protect", format_args!("{} {range}", protection.name()), changed)
}

/// Makes memory read-only and executable.
pub fn text(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, TEXT);
    let range = words.range()?;
    words.end()?;
    check_yours(owners, range)?;
    let (map, mut editor, steps) = owners.map.parts(&mut owners.memory.memblock);
    // SAFETY: as for `protect`; the kernel executes nothing there.
    let changed = timed(|| unsafe { map.make_text(&mut editor, steps, range) });
    reported("text", range, changed)
}

/// Splits leaves.
pub fn split(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, "split LEVEL START LENGTH (LEVEL 2 or 3)");
    let level = Some(words.number()?).filter(|level| matches!(level, 2 | 3));
    let level = level.and_then(|level| Level::new(level as i8)).ok_or(words.wrong())?;
    let range = words.range()?;
    words.end()?;
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let changed = timed(|| map.split(&mut editor, steps, range, level));
    reported("split", format_args!("{range} to level {level}"), changed)
}

/// Folds leaves as far as possible.
pub fn fold(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, FOLD);
    let range = words.range()?;
    words.end()?;
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let changed = timed(|| map.fold(&mut editor, steps, range));
    reported("fold", range, changed)
}

/// Makes all translations global or non-global.
pub fn non_global(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let global = match rest {
        "on" => Global::NonGlobal,
        "off" => Global::Global,
        _ => return Err(CommandError::Usage(NON_GLOBAL)),
    };
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let changed = timed(|| map.set_global(&mut editor, steps, global));
    reported("ng", rest, changed)
}

/// Adds memory to the map or removes it.
pub fn memory(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, MEMORY);
    let what = words.word()?;
    let range = words.range()?;
    words.end()?;
    if owners.payloads.crash_kernel.is_some() {
        return Err(CommandError::CrashKernel);
    }
    let is_hardware = owners.memory.hardware.iter().any(|memory| memory.covers(range));
    let (map, mut editor, steps) = owners.map.parts(&mut owners.memory.memblock);
    let changed = match what {
        "add" if !is_hardware => return Err(CommandError::NoHardware(range)),
        // SAFETY: the device tree names the memory.
        "add" => timed(|| unsafe { map.add_memory(&mut editor, steps, range) }),
        // SAFETY: memory that is in use is refused, and nothing accesses free memory.
        "remove" => timed(|| unsafe { map.remove_memory(&mut editor, steps, range) }),
        _ => return Err(CommandError::Usage(MEMORY)),
    };
    reported("memory", format_args!("{what} {range}"), changed)
}

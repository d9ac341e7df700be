//! Commands that change the linear map. Addresses are physical.

use core::fmt::Display;

use linmap::{Changed, MemoryChange, Protection};
use linmap_live::Global;
use linmap_vmsa::{Level, PaRange};

use crate::memory::live::{Fields, LiveMap, timed};
use crate::memory::physical::Memory;
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::shell::words::Words;
use crate::{report, say};

/// The words of `protect`.
pub const PROTECT: &str = "protect ro|rw|nx|invalid|valid START LENGTH";
/// The words of `text`.
pub const TEXT: &str = "text START LENGTH";
/// The words of `split`.
pub const SPLIT: &str = "split 2|3 START LENGTH";
/// The words of `fold`.
pub const FOLD: &str = "fold START LENGTH";
/// The words of `pages`.
pub const PAGES: &str = "pages keep|release START LENGTH";
/// The words of `ng`.
pub const NON_GLOBAL: &str = "ng on|off";
/// The words of `memory`.
pub const MEMORY: &str = "memory add|remove START LENGTH";

/// Makes a change. Returns what it did and the ticks that it took.
fn changed<E>(change: impl FnOnce() -> Result<Changed, E>) -> Result<(Changed, u64), CommandError>
where
    CommandError: From<E>,
{
    let (result, ticks) = timed(change);
    Ok((result?, ticks))
}

fn reported(name: &str, what: impl Display, (changed, ticks): (Changed, u64)) {
    let Changed { entries, invalidations, freed, .. } = changed;
    say!("{name} {what}: {entries} entries stored, {invalidations} TLBIs, {freed} tables freed.");
    report!("change={name} what=\"{what}\" ticks={ticks} {}", Fields(changed));
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
    let Memory { memblock, changed: record, .. } = &mut owners.memory;
    let (map, mut editor, steps) = owners.map.parts(memblock);
    let done = record.record(range, MemoryChange::Protect(protection), || {
        // SAFETY: the user has reserved the memory, so that nothing of the kernel is there. The
        // user accepts what it breaks.
        changed(|| unsafe { map.protect(&mut editor, steps, range, protection) })
    })?;
    reported("protect", format_args!("{} {range}", protection.name()), done);
    Ok(())
}

/// Makes memory read-only and executable.
pub fn text(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, TEXT);
    let range = words.range()?;
    words.end()?;
    check_yours(owners, range)?;
    let Memory { memblock, changed: record, .. } = &mut owners.memory;
    let (map, mut editor, steps) = owners.map.parts(memblock);
    let done = record.record(range, MemoryChange::MakeText, || {
        // SAFETY: as for `protect`; the kernel executes nothing there.
        changed(|| unsafe { map.make_text(&mut editor, steps, range) })
    })?;
    reported("text", range, done);
    Ok(())
}

/// Splits leaves.
pub fn split(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, SPLIT);
    let level = Some(words.number()?).filter(|level| matches!(level, 2 | 3));
    let level = level.and_then(|level| Level::new(level as i8)).ok_or(words.wrong())?;
    let range = words.range()?;
    words.end()?;
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let done = changed(|| map.split(&mut editor, steps, range, level))?;
    reported("split", format_args!("{range} to level {level}"), done);
    Ok(())
}

/// Folds leaves as far as possible.
pub fn fold(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, FOLD);
    let range = words.range()?;
    words.end()?;
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let done = changed(|| map.fold(&mut editor, steps, range))?;
    reported("fold", range, done);
    Ok(())
}

/// Keeps memory in pages, or lets folds make its leaves larger again.
pub fn pages(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, PAGES);
    let what = words.word()?;
    let range = words.range()?;
    words.end()?;
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let done = match what {
        "keep" => changed(|| map.keep_pages(&mut editor, steps, range))?,
        "release" => changed(|| map.allow_blocks(range).map(|()| Changed::default()))?,
        _ => return Err(CommandError::Usage(PAGES)),
    };
    reported("pages", format_args!("{what} {range}"), done);
    Ok(())
}

/// Makes all translations global or non-global.
pub fn non_global(memory: &mut Memory, map: &mut LiveMap, rest: &str) -> Result<(), CommandError> {
    let global = match rest {
        "on" => Global::NonGlobal,
        "off" => Global::Global,
        _ => return Err(CommandError::Usage(NON_GLOBAL)),
    };
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let done = changed(|| map.set_global(&mut editor, steps, global))?;
    reported("ng", rest, done);
    Ok(())
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
    let is_hardware = owners.memory.hardware.as_slice().iter().any(|memory| memory.covers(range));
    let Memory { memblock, changed: record, .. } = &mut owners.memory;
    let (map, mut editor, steps) = owners.map.parts(memblock);
    // Memory that comes is data.
    let done = record.record(range, MemoryChange::MakeData, || match what {
        "add" if !is_hardware => Err(CommandError::NoHardware(range)),
        // SAFETY: the device tree names the memory.
        "add" => changed(|| unsafe { map.add_memory(&mut editor, steps, range) }),
        // SAFETY: memory that is in use is refused, and nothing accesses free memory.
        "remove" => changed(|| unsafe { map.remove_memory(&mut editor, steps, range) }),
        _ => Err(CommandError::Usage(MEMORY)),
    })?;
    reported("memory", format_args!("{what} {range}"), done);
    Ok(())
}

//! Commands on memory that the user reserves. Addresses are physical.

use linmap::listing::Size;
use linmap::{MemoryChange, first_unmappable};
use linmap_relocate::Sha256;
use linmap_vmsa::{Attributes, Pa, PaRange, Va};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::layout::slot;
use crate::memory::live::LiveMap;
use crate::memory::physical::Memory;
use crate::memory::preserved::PreservedMemory;
use crate::memory::reservations::Reservations;
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;
use crate::shell::words::Words;
use crate::stress::random::Random;
use crate::{report, say};

/// The words of `reserve`.
pub const RESERVE: &str = "reserve START LENGTH";
/// The words of `free`.
pub const FREE: &str = "free START LENGTH";
/// The words of `hoard`.
pub const HOARD: &str = "hoard ALL-BUT";
/// The words of `fill`.
pub const FILL: &str = "fill START LENGTH SEED";
/// The words of `digest`.
pub const DIGEST: &str = "digest START LENGTH";
/// The words of `poke`.
pub const POKE: &str = "poke ADDRESS BYTE";
/// The words of `preserve`.
pub const PRESERVE: &str = "preserve START LENGTH LABEL";
/// The words of `release`.
pub const RELEASE: &str = "release LABEL";

/// Reserves free memory for the user.
pub fn reserve(
    memory: &mut Memory,
    map: &LiveMap,
    reservations: &mut Reservations,
    rest: &str,
) -> Result<(), CommandError> {
    let mut words = Words::new(rest, RESERVE);
    let range = words.range()?;
    words.end()?;
    if let Some(used) = memory.memblock.reserved().iter().find(|used| used.overlaps(range)) {
        return Err(CommandError::InUse { range, used: *used });
    }
    map.map.check_mapped(range, |range| first_unmappable(&memory.memblock, range))?;
    reservations.add(range)?;
    memory.memblock.reserve(range).inspect_err(|_| reservations.remove(range))?;
    say!("{range} is reserved for you.");
    Ok(())
}

/// Frees what the user has reserved.
pub fn free(
    memory: &mut Memory,
    map: &mut LiveMap,
    reservations: &mut Reservations,
    rest: &str,
) -> Result<(), CommandError> {
    let mut words = Words::new(rest, FREE);
    let range = words.range()?;
    words.end()?;
    if !reservations.contains(range) {
        return Err(CommandError::NotYours(range));
    }
    // Frees the range once to find out whether memblock can, before the map changes. Reserves it
    // again, so that no table comes from it during the change.
    memory.memblock.free(range)?;
    memory.memblock.reserve(range)?;
    // The next owner of the memory may write to it.
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    memory.changed.record(range, MemoryChange::MakeData, || {
        // SAFETY: the user has reserved the memory and gives it back: nothing else relies on what
        // it is.
        unsafe { map.make_data(&mut editor, steps, range) }.map_err(CommandError::from)
    })?;
    memory.memblock.free(range)?;
    reservations.remove(range);
    say!("{range} is free.");
    Ok(())
}

/// Allocates all free memory for good, except some bytes at its top: to see how the kernel works
/// when memory is short.
pub fn allocate_all_but(memory: &mut Memory, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, HOARD);
    let mut left = words.number()?;
    words.end()?;
    let page = memory.geometry().granule().bytes();
    let everywhere = memory.everywhere();
    let before = memory.memblock.copy()?;
    let mut below = everywhere;
    loop {
        let free = memory.memblock.free_ranges(below).next_back();
        let Some(free) = free else { break };
        let leave = left.min(free.len()) & !(page - 1);
        left -= leave;
        let allocated = PaRange::new(free.start, Pa(free.end.0 - leave));
        if !allocated.is_empty()
            && let Err(error) = memory.memblock.reserve(allocated)
        {
            memory.memblock.restore(&before);
            return Err(error.into());
        }
        below.end = free.start;
    }
    let free: u64 = memory.memblock.free_ranges(everywhere).map(PaRange::len).sum();
    say!("{} are left free.", Size(free));
    report!("hoard=ok free={free}");
    Ok(())
}

/// Preserves reserved memory through hand-overs.
pub fn preserve(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, PRESERVE);
    let range = words.range()?;
    let label = words.word()?;
    words.end()?;
    check_no_payload(owners)?;
    let Owners { memory, reservations, preserved, .. } = owners;
    preserved.preserve(memory, reservations, range, label)?;
    preserved.show(memory);
    say!("{range} is preserved as {label}.");
    Ok(())
}

/// Ends the preservation of memory.
pub fn release(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, RELEASE);
    let label = words.word()?;
    words.end()?;
    check_no_payload(owners)?;
    owners.preserved.release(&mut owners.reservations, label)?;
    say!("The memory of {label} is reserved, and no longer preserved.");
    Ok(())
}

/// Checks that no payload's device tree says what is preserved. A crash kernel's tree never does,
/// because a crash kernel does not use that memory.
fn check_no_payload(owners: &Owners) -> Result<(), CommandError> {
    if owners.payloads.loaded.is_some() { Err(CommandError::PayloadLoaded) } else { Ok(()) }
}

/// Fills reserved memory with a pattern.
pub fn fill(
    memory: &mut Memory,
    map: &LiveMap,
    reservations: &Reservations,
    rest: &str,
) -> Result<(), CommandError> {
    let mut words = Words::new(rest, FILL);
    let range = words.range()?;
    let seed = words.number()?;
    words.end()?;
    map.map.check_mapped(range, |range| first_unmappable(&memory.memblock, range))?;
    if !reservations.covers(range) {
        return Err(CommandError::NotYours(range));
    }
    if let Some(page) = memory.first_unwritable(range) {
        return Err(CommandError::NotWritable(page));
    }
    // SAFETY: the user has reserved the memory, it is writable, and only this refers to it.
    let mut bytes = unsafe { memory.owned_bytes(range) };
    let mut random = Random(seed);
    for word in bytes.as_mut().as_chunks_mut::<8>().0 {
        *word = random.next().to_le_bytes();
    }
    say!("{range} is filled with the pattern of {seed:#x}.");
    Ok(())
}

/// Prints the SHA-256 of reserved or preserved memory, by the CPU's instructions for it and without
/// them.
pub fn digest(
    memory: &Memory,
    map: &LiveMap,
    reservations: &Reservations,
    preserved: &PreservedMemory,
    rest: &str,
) -> Result<(), CommandError> {
    let mut words = Words::new(rest, DIGEST);
    let range = words.range()?;
    words.end()?;
    map.map.check_mapped(range, |range| first_unmappable(&memory.memblock, range))?;
    let mut yours = reservations.ranges().iter().copied().chain(preserved.ranges());
    if !yours.any(|yours| yours.covers(range)) {
        return Err(CommandError::NotYours(range));
    }
    if let Some(page) = memory.first_unreadable(range) {
        return Err(CommandError::NotReadable(page));
    }
    // SAFETY: it is mapped and readable, and only the boot CPU writes to reserved or preserved
    // memory.
    let bytes = unsafe { memory.bytes(range) };
    if let Some(by_instructions) = Sha256::by_instructions() {
        report!("digest={} by=instructions bytes={}", by_instructions.of(bytes), range.len());
    }
    let by_words = Sha256::by_words().of(bytes);
    say!("The SHA-256 of {range} is {by_words}.");
    report!("digest={by_words} by=words bytes={}", range.len());
    Ok(())
}

/// Writes a byte to memory, whoever owns it and however it is protected, like a fault of the
/// memory.
pub fn poke(memory: &mut Memory, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, POKE);
    let (at, value) = (Pa(words.number()?), words.number()?);
    let value = u8::try_from(value).map_err(|_| words.wrong())?;
    words.end()?;
    if !memory.mapped().any(|mapped| mapped.contains(at)) {
        return Err(CommandError::NotMapped(at));
    }
    let page = memory.geometry().granule().bytes();
    let frame = Pa(at.0 & !(page - 1));
    // SAFETY: the frame is memory, which the linear map maps by the same type.
    let _ = unsafe { memory.fixmap.map(&mut ThisCpu, slot::MOMENT, frame, Attributes::KERNEL_DATA) };
    let va = Va(memory.fixmap.address(slot::MOMENT).0 + (at.0 - frame.0));
    // SAFETY: the byte's frame is mapped there, writable. The assembly hides the store from the
    // compiler, as a fault of the memory would. The user accepts what it breaks.
    let was = unsafe { cpu::exchange_byte(va, value) };
    memory.fixmap.clear(&mut ThisCpu, slot::MOMENT);
    say!("{at} held {was:#x} and holds {value:#x}.");
    report!("poke={at} was={was:#x} now={value:#x}");
    Ok(())
}

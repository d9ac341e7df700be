//! The command `flip`, which damages a live table: to see whether `verify` notices.

use linmap::Layout;
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::read;
use linmap_vmsa::{Attributes, Level, Pa, Va};

use crate::arch::cpu::ThisCpu;
use crate::arch::image::Image;
use crate::arch::layout::slot;
use crate::memory::physical::Memory;
use crate::shell::error::CommandError;
use crate::shell::words::Words;
use crate::{report, say};

/// The words of `flip`.
pub const FLIP: &str = "flip VA LEVEL BITS";

/// Flips bits of TTBR1's entry for an address at a level, whatever it is for.
pub fn flip(memory: &mut Memory, image: Image, rest: &str) -> Result<(), CommandError> {
    let mut words = Words::new(rest, FLIP);
    let (va, level, bits) = (Va(words.number()?), words.number()?, words.number()?);
    let geometry = memory.geometry();
    let level = i8::try_from(level).ok().and_then(Level::new).ok_or(words.wrong())?;
    if va < Layout::base(geometry) {
        return Err(words.wrong());
    }
    words.end()?;
    let table = table_on_the_way(memory, image, va, level).ok_or(CommandError::NoTable { va, level })?;
    if !memory.fixmap.is_free(slot::MOMENT) {
        return Err(CommandError::SlotInUse(slot::MOMENT));
    }
    let index = geometry.index(va, level);
    let entries = memory.fixmap.map(&mut ThisCpu, slot::MOMENT, table, Attributes::KERNEL_DATA);
    // SAFETY: the table's frame is mapped there, writable, and an index is below the number of
    // entries. No Rust reference leads to a table. The user accepts what the change breaks.
    let was = unsafe {
        let entry = entries.add(index);
        let was = entry.read_volatile();
        entry.write_volatile(was ^ bits);
        was
    };
    memory.fixmap.clear(&mut ThisCpu, slot::MOMENT);
    ThisCpu.dsb(Dsb::Ishst);
    ThisCpu.tlbi(Tlbi::All);
    ThisCpu.dsb(Dsb::Ish);
    ThisCpu.isb();
    say!("The entry for {va} at level {level} is damaged, or right again.");
    report!("flip={va} level={level} table={table} index={index} was={was:#x} now={:#x}", was ^ bits);
    Ok(())
}

/// The table at `level` on the way to `va`.
fn table_on_the_way(memory: &Memory, image: Image, va: Va, level: Level) -> Option<Pa> {
    let geometry = memory.geometry();
    let (mut at, mut table) = (geometry.start_level(), image.swapper());
    while at < level {
        // SAFETY: an index is below the number of entries at its level.
        let entry = unsafe { read(&mut memory.tables(), at, table, geometry.index(va, at)) };
        (at, table) = (at.next()?, entry.next_table(geometry)?);
    }
    (at == level).then_some(table)
}

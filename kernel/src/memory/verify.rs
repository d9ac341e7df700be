//! Proof of the live map: what memblock says, what the tables say, what the MMU says and what an access does agree.
//!
//! For every range of memory the first and the last page and a stride between: a walk of the tables, `AT` and the
//! expected physical address agree, the attributes are the ones meant, and a load works. Everything else in the linear
//! region's reach, and the guards below the stacks of all CPUs, must fault: in the walk, in `AT`, and in a load that is really taken and
//! recovered through the vectors.

use linmap_live::Global;
use linmap_table::{Walk, walk};
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::probe::{Fault, load_byte};
use crate::boot::entry::guards;
use crate::memory::machine::Machine;
use crate::smp::stacks;

/// Pages probed inside each range, besides its edges.
const STRIDES: u64 = 1024;

/// What was probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Addresses that translate as they should.
    pub mapped: u64,
    /// Addresses that fault as they should.
    pub faults: u64,
    /// Ranges of memory.
    pub ranges: u64,
    /// Holes, no-map ranges and guards.
    pub holes: u64,
}

/// Where two of the witnesses disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Mismatch {
    /// The walk does not end at the right leaf.
    #[error("{va}: the tables say {walk:?}, memblock says {expected}")]
    Tables {
        /// The address.
        va: Va,
        /// What the walk found.
        walk: Walk,
        /// Where it should lead.
        expected: Pa,
    },
    /// The leaf has other attributes than meant.
    #[error("{va}: the leaf has {found:?} instead of {expected:?}")]
    Attributes {
        /// The address.
        va: Va,
        /// What the leaf says; `None` for attributes that linmap never writes.
        found: Option<Attributes>,
        /// What it should say.
        expected: Attributes,
    },
    /// The contiguous bit is set, but not all of the run is there: a TLB may translate more than the tables say.
    #[error("{va}: the contiguous bit is set at level {level}, but the run is not whole")]
    Run {
        /// The address.
        va: Va,
        /// The level of the leaf.
        level: Level,
    },
    /// AT gives another answer.
    #[error("{va}: AT says {found:x?} (fault status on error), memblock says {expected}")]
    Mmu {
        /// The address.
        va: Va,
        /// What AT found.
        found: Result<Pa, u8>,
        /// Where it should lead.
        expected: Pa,
    },
    /// AT says otherwise than the tables whether memory may be written.
    #[error("{va}: the tables say writable={writable}, AT for a write says otherwise")]
    Write {
        /// The address.
        va: Va,
        /// What the tables say.
        writable: bool,
    },
    /// A load from mapped memory faults.
    #[error("{va}: a load faults with ESR {esr:#x}")]
    Load {
        /// The address.
        va: Va,
        /// The syndrome.
        esr: u64,
    },
    /// An address that should fault translates.
    #[error("{va} is in no mapped range, but {by} translates it")]
    Translates {
        /// The address.
        va: Va,
        /// Which witness.
        by: &'static str,
    },
    /// A load from an unmapped address faults, but not with a translation fault.
    #[error("{va}: a load should meet a translation fault, but ESR is {esr:#x}")]
    OtherFault {
        /// The address.
        va: Va,
        /// The syndrome.
        esr: u64,
    },
}

/// Verifies the live map of `machine`.
pub fn verify(machine: &Machine<'_>) -> Result<Verified, Mismatch> {
    let mut verified = Verified::default();
    let page = machine.geometry().entry_bytes(Level::L3);
    let memstart = machine.layout.memstart();
    let mut hole_start = memstart;
    for range in machine.mapped() {
        hole(machine, PaRange::new(hole_start, range.start), &mut verified)?;
        let step = (range.len() / STRIDES / page).max(1) * page;
        let inside = (range.start.0..range.end.0).step_by(step as usize);
        for pa in inside.chain([range.end.0 - page, range.end.0 - 1]) {
            mapped(machine, Pa(pa), &mut verified)?;
        }
        verified.ranges += 1;
        hole_start = range.end;
    }
    // The rest of the linear region.
    let end = Pa(memstart.0 + (1 << (machine.geometry().va_bits() - 1)));
    hole(machine, PaRange::new(hole_start, end), &mut verified)?;
    let secondaries = (1..machine.cpus.with_stacks()).flat_map(stacks::guards);
    for guard in guards().into_iter().chain(secondaries) {
        unmapped(machine, guard, &mut verified)?;
        unmapped(machine, Va(guard.0 + page - 1), &mut verified)?;
        verified.holes += 1;
    }
    // The image's linear alias can't be written, by the MMU's own word.
    let image = machine.image.range();
    for pa in (image.start.0..image.end.0).step_by(page as usize) {
        let va = machine.layout.linear(Pa(pa));
        if cpu::translate_write(va).is_ok() {
            return Err(Mismatch::Translates { va, by: "AT for a write" });
        }
        verified.faults += 1;
    }
    Ok(verified)
}

/// Probes the edges and a stride of a range that has no mapping.
fn hole(machine: &Machine<'_>, range: PaRange, verified: &mut Verified) -> Result<(), Mismatch> {
    if range.is_empty() {
        return Ok(());
    }
    let page = machine.geometry().entry_bytes(Level::L3);
    let step = (range.len() / 16 / page).max(1) * page;
    for pa in (range.start.0..range.end.0).step_by(step as usize).chain([range.end.0 - page, range.end.0 - 1])
    {
        unmapped(machine, machine.layout.linear(Pa(pa)), verified)?;
    }
    verified.holes += 1;
    Ok(())
}

fn mapped(machine: &Machine<'_>, expected: Pa, verified: &mut Verified) -> Result<(), Mismatch> {
    let va = machine.layout.linear(expected);
    let geometry = machine.geometry();
    let found = walk(geometry, machine.image.swapper(), va, &mut machine.tables());
    // What the user has reserved may have been given any protection, what is kept any that lets it be read, and the image's data
    // be made invalid.
    let yours = machine.live.reserved.iter().any(|range| range.contains(expected));
    let kept = machine.kept.iter().any(|kept| kept.range.contains(expected));
    let in_image = machine.image.range().contains(expected);
    if (yours || in_image) && matches!(found, Walk::Fault { .. }) {
        return unmapped(machine, va, verified);
    }
    let Walk::Leaf { pa, level, descriptor } = found else {
        return Err(Mismatch::Tables { va, walk: found, expected });
    };
    if pa != expected {
        return Err(Mismatch::Tables { va, walk: found, expected });
    }
    let found = descriptor.attributes(geometry, level);
    let protected = in_image || machine.crash.loaded.is_some() && machine.crash.range.contains(expected);
    let meant = if protected { Attributes::KERNEL_RODATA } else { Attributes::KERNEL_DATA };
    let global = machine.live.map.global() == Global::Global;
    let is = |meant| {
        found.map(|found| Attributes { contiguous: false, ..found }) == Some(Attributes { global, ..meant })
    };
    let may_be = (yours || kept) && (is(Attributes::KERNEL_RODATA) || is(Attributes::KERNEL_TEXT));
    if !is(meant) && !may_be {
        return Err(Mismatch::Attributes { va, found, expected: meant });
    }
    let writable = found.is_some_and(|found| found.access.writable());
    if cpu::translate_write(va).is_ok() != writable {
        return Err(Mismatch::Write { va, writable });
    }
    if descriptor.is_contiguous() && !whole_run(machine, va, pa, level, descriptor) {
        return Err(Mismatch::Run { va, level });
    }
    let found = cpu::translate(va);
    if found != Ok(expected) {
        return Err(Mismatch::Mmu { va, found, expected });
    }
    load_byte(va).map_err(|Fault { esr }| Mismatch::Load { va, esr })?;
    verified.mapped += 1;
    Ok(())
}

fn unmapped(machine: &Machine<'_>, va: Va, verified: &mut Verified) -> Result<(), Mismatch> {
    if let Walk::Leaf { .. } = walk(machine.geometry(), machine.image.swapper(), va, &mut machine.tables()) {
        return Err(Mismatch::Translates { va, by: "a walk of the tables" });
    }
    if cpu::translate(va).is_ok() {
        return Err(Mismatch::Translates { va, by: "AT" });
    }
    match load_byte(va) {
        Ok(_) => return Err(Mismatch::Translates { va, by: "a load" }),
        Err(fault) if !fault.is_translation() => return Err(Mismatch::OtherFault { va, esr: fault.esr }),
        Err(_) => {}
    }
    verified.faults += 1;
    Ok(())
}

/// Whether every entry of the contiguous run that `va` lies in is a leaf of the same level, with equal attributes, at
/// consecutive addresses from one that is aligned to the run.
fn whole_run(machine: &Machine<'_>, va: Va, pa: Pa, level: Level, leaf: Descriptor) -> bool {
    let geometry = machine.geometry();
    let Some(entries) = geometry.contiguous_entries(level) else { return false };
    let run = entries as u64 * geometry.entry_bytes(level);
    let (first, first_pa) = (va.0 & !(run - 1), pa.0 & !(run - 1));
    (0..run).step_by(geometry.entry_bytes(level) as usize).all(|offset| {
        let found = walk(geometry, machine.image.swapper(), Va(first + offset), &mut machine.tables());
        matches!(found, Walk::Leaf { pa, level: at, descriptor }
            if pa.0 == first_pa + offset
                && at == level
                && descriptor.attributes(geometry, at) == leaf.attributes(geometry, level))
    })
}

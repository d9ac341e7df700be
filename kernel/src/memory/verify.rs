//! Verification of the live map: memblock, the tables, the MMU and real accesses have to agree.
//!
//! In every range of memory, the first and the last page and a stride between them are probed. A
//! walk of the tables and `AT` have to return the expected physical address, the attributes have to
//! be the expected ones, and a load has to work. All other addresses of the linear region, and the
//! guards below the stacks of all CPUs, have to fault: in the walk, in `AT`, and in a load whose
//! fault the vectors recover.

use linmap_live::Global;
use linmap_table::{Walk, walk};
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::image::Image;
use crate::arch::probe::{Fault, load_byte};
use crate::memory::physical::Memory;
use crate::memory::preserved::PreservedMemory;
use crate::memory::reservations::Reservations;

/// How many pages are probed inside each range, in addition to its edges.
const STRIDES: u64 = 1024;

/// The number of addresses and ranges that were probed.
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

/// Where two of the sources disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Mismatch {
    /// The walk ends at another leaf.
    #[error("{va}: the tables say {walk:?}, memblock says {expected}")]
    Tables {
        /// The address.
        va: Va,
        /// What the walk found.
        walk: Walk,
        /// Where it should lead.
        expected: Pa,
    },
    /// The leaf has unexpected attributes.
    #[error("{va}: the leaf has {found:?} instead of {expected:?}")]
    Attributes {
        /// The address.
        va: Va,
        /// What the leaf says; `None` for attributes that linmap never writes.
        found: Option<Attributes>,
        /// What it should say.
        expected: Attributes,
    },
    /// The contiguous bit is set in an incomplete run: a TLB may translate more than the tables
    /// say.
    #[error("{va}: the contiguous bit is set at level {level}, but the run is incomplete")]
    Run {
        /// The address.
        va: Va,
        /// The level of the leaf.
        level: Level,
    },
    /// AT and memblock disagree.
    #[error("{va}: AT says {found:x?} (fault status on error), memblock says {expected}")]
    Mmu {
        /// The address.
        va: Va,
        /// What AT found.
        found: Result<Pa, u8>,
        /// Where it should lead.
        expected: Pa,
    },
    /// AT and the tables disagree on whether memory may be written.
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
        /// What translates it.
        by: &'static str,
    },
    /// A load from an unmapped address takes another fault than a translation fault.
    #[error("{va}: a load should take a translation fault, but ESR is {esr:#x}")]
    OtherFault {
        /// The address.
        va: Va,
        /// The syndrome.
        esr: u64,
    },
}

/// What the user and a crash kernel changed about the map.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'e> {
    /// The running image.
    pub image: Image,
    /// Memory that the user has reserved. It may have any protection.
    pub reservations: &'e Reservations,
    /// Preserved memory. It may have any protection that lets it be read.
    pub preserved: &'e PreservedMemory,
    /// The memory of a crash kernel that is loaded, which is read-only; empty otherwise.
    pub crash_kernel: PaRange,
    /// Whether translations are global.
    pub global: Global,
}

/// Verifies the live map of `memory`, and that `guards`, pages below stacks, are unmapped.
///
/// # Errors
/// [`Mismatch`], the first.
pub fn verify(
    memory: &Memory,
    expected: Expected<'_>,
    guards: impl IntoIterator<Item = Va>,
) -> Result<Verified, Mismatch> {
    let mut verifier = Verifier { memory, expected, verified: Verified::default() };
    verifier.linear_region()?;
    for guard in guards {
        verifier.guard(guard)?;
    }
    verifier.image_alias()?;
    Ok(verifier.verified)
}

struct Verifier<'v> {
    memory: &'v Memory,
    expected: Expected<'v>,
    verified: Verified,
}

impl Verifier<'_> {
    fn page(&self) -> u64 {
        self.memory.geometry().entry_bytes(Level::L3)
    }

    fn walk(&self, va: Va) -> Walk {
        let (geometry, root) = (self.memory.geometry(), self.expected.image.swapper());
        // SAFETY: the live tree, whose tables the window reaches.
        unsafe { walk(geometry, root, va, &mut self.memory.tables()) }
    }

    /// Probes all memory and the holes around it.
    fn linear_region(&mut self) -> Result<(), Mismatch> {
        let memory = self.memory;
        let page = self.page();
        let memstart = memory.layout.memstart();
        let mut hole_start = memstart;
        for range in memory.mapped() {
            self.hole(PaRange::new(hole_start, range.start))?;
            let step = (range.len() / STRIDES / page).max(1) * page;
            let inside = (range.start.0..range.end.0).step_by(step as usize);
            for pa in inside.chain([range.end.0 - page, range.end.0 - 1]) {
                self.mapped(Pa(pa))?;
            }
            self.verified.ranges += 1;
            hole_start = range.end;
        }
        // The rest of the linear region.
        let end = Pa(memstart.0 + (1 << (memory.geometry().va_bits() - 1)));
        self.hole(PaRange::new(hole_start, end))
    }

    fn guard(&mut self, guard: Va) -> Result<(), Mismatch> {
        self.unmapped(guard)?;
        self.unmapped(Va(guard.0 + self.page() - 1))?;
        self.verified.holes += 1;
        Ok(())
    }

    /// Asks the MMU whether the image's linear alias is read-only.
    fn image_alias(&mut self) -> Result<(), Mismatch> {
        let image = self.expected.image.range();
        for pa in (image.start.0..image.end.0).step_by(self.page() as usize) {
            let va = self.memory.layout.linear(Pa(pa));
            if cpu::translate_write(va).is_ok() {
                return Err(Mismatch::Translates { va, by: "AT for a write" });
            }
            self.verified.faults += 1;
        }
        Ok(())
    }

    /// Probes the edges and a stride of a range that has no mapping.
    fn hole(&mut self, range: PaRange) -> Result<(), Mismatch> {
        if range.is_empty() {
            return Ok(());
        }
        let page = self.page();
        let step = (range.len() / 16 / page).max(1) * page;
        let inside = (range.start.0..range.end.0).step_by(step as usize);
        for pa in inside.chain([range.end.0 - page, range.end.0 - 1]) {
            self.unmapped(self.memory.layout.linear(Pa(pa)))?;
        }
        self.verified.holes += 1;
        Ok(())
    }

    /// Probes an address in mapped memory.
    fn mapped(&mut self, pa: Pa) -> Result<(), Mismatch> {
        let va = self.memory.layout.linear(pa);
        let found = self.walk(va);
        let is_reserved = self.expected.reservations.ranges().iter().any(|range| range.contains(pa));
        let in_image = self.expected.image.range().contains(pa);
        // The user may have made reserved memory invalid, and the image's data.
        if (is_reserved || in_image) && matches!(found, Walk::Fault { .. }) {
            return self.unmapped(va);
        }
        let Walk::Leaf { pa: leads_to, level, descriptor } = found else {
            return Err(Mismatch::Tables { va, walk: found, expected: pa });
        };
        if leads_to != pa {
            return Err(Mismatch::Tables { va, walk: found, expected: pa });
        }
        let writable = self.check_attributes(va, pa, descriptor, level)?;
        if cpu::translate_write(va).is_ok() != writable {
            return Err(Mismatch::Write { va, writable });
        }
        if descriptor.is_contiguous() && !self.is_complete_run(va, pa, level, descriptor) {
            return Err(Mismatch::Run { va, level });
        }
        let found = cpu::translate(va);
        if found != Ok(pa) {
            return Err(Mismatch::Mmu { va, found, expected: pa });
        }
        load_byte(va).map_err(|Fault { esr }| Mismatch::Load { va, esr })?;
        self.verified.mapped += 1;
        Ok(())
    }

    /// Checks the attributes of the leaf for `pa`. Returns whether it may be written.
    fn check_attributes(
        &self,
        va: Va,
        pa: Pa,
        descriptor: Descriptor,
        level: Level,
    ) -> Result<bool, Mismatch> {
        let Expected { image, reservations, preserved, crash_kernel, global } = self.expected;
        let found = descriptor.attributes(self.memory.geometry(), level);
        let read_only = image.range().contains(pa) || crash_kernel.contains(pa);
        let expected = if read_only { Attributes::KERNEL_RODATA } else { Attributes::KERNEL_DATA };
        let global = global == Global::Global;
        let is = |expected| {
            found.map(|found| Attributes { contiguous: false, ..found })
                == Some(Attributes { global, ..expected })
        };
        let is_users = reservations.ranges().iter().any(|range| range.contains(pa))
            || preserved.ranges().any(|range| range.contains(pa));
        let is_allowed = is_users && (is(Attributes::KERNEL_RODATA) || is(Attributes::KERNEL_TEXT));
        if !is(expected) && !is_allowed {
            return Err(Mismatch::Attributes { va, found, expected });
        }
        Ok(found.is_some_and(|found| found.access.writable()))
    }

    /// Probes an address that has no mapping.
    fn unmapped(&mut self, va: Va) -> Result<(), Mismatch> {
        if let Walk::Leaf { .. } = self.walk(va) {
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
        self.verified.faults += 1;
        Ok(())
    }

    /// Whether all entries of the contiguous run around `va` are leaves of the same level with
    /// equal attributes, at consecutive addresses from one that is aligned to the run.
    fn is_complete_run(&self, va: Va, pa: Pa, level: Level, leaf: Descriptor) -> bool {
        let geometry = self.memory.geometry();
        let Some(entries) = geometry.contiguous_entries(level) else { return false };
        let run = entries as u64 * geometry.entry_bytes(level);
        let (first, first_pa) = (va.0 & !(run - 1), pa.0 & !(run - 1));
        (0..run).step_by(geometry.entry_bytes(level) as usize).all(|offset| {
            matches!(self.walk(Va(first + offset)), Walk::Leaf { pa, level: at, descriptor }
                if pa.0 == first_pa + offset
                    && at == level
                    && descriptor.attributes(geometry, at) == leaf.attributes(geometry, level))
        })
    }
}

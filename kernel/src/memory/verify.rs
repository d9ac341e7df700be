//! Verification of the live map: memblock, the tables, the MMU and real accesses have to agree.
//!
//! First every entry of all live tables is compared with what memblock, the layout, the image and
//! the record of changes say it must be; nothing else may be mapped. Then the MMU is asked. In
//! every range of memory, the first and the last page and a stride between them are probed: `AT`
//! has to return the expected physical address, and a load has to work. All other addresses of the
//! linear region, and the guards below the stacks of all CPUs, have to fault: in `AT`, and in a
//! load whose fault the vectors recover.

use linmap::{Allowed, Layout};
use linmap_table::verify::{
    AccessFlag, Compared, Expected, Tree, TreeError, Validity, WritableAndExecutable,
    check_writable_or_executable, verify_tree,
};
use linmap_vmsa::{Level, Pa, PaRange, Va};
use thiserror::Error;

use crate::arch::compare::VectorLoop;
use crate::arch::cpu;
use crate::arch::geometry::{geometry, identity};
use crate::arch::image::Image;
use crate::arch::probe::{Fault, load_byte};
use crate::memory::expected::KnownMappings;
use crate::memory::live::LiveMap;
use crate::memory::parking;
use crate::memory::table_memory::{OwnedRanges, TableMemory};
use crate::memory::table_slots::TableSlots;

/// How many pages are probed inside each range, in addition to its edges.
const STRIDES: u64 = 1024;

/// The number of addresses and ranges that were probed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Probed {
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
    /// An entry is wrong.
    #[error("{root}: {error}")]
    Tables {
        /// Which tree the entry is in.
        root: &'static str,
        /// The first difference.
        error: TreeError,
    },
    /// Memory can be written and executed.
    #[error(transparent)]
    Both(#[from] WritableAndExecutable),
    /// A fixmap slot through which tables are read is in use.
    #[error("fixmap slot {slot} should be free, but something is mapped there")]
    Slot {
        /// Its number.
        slot: usize,
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
    /// AT and the record of changes disagree on whether memory may be written.
    #[error("{va}: it should be writable={writable}, AT for a write says otherwise")]
    Write {
        /// The address.
        va: Va,
        /// What the record says.
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

/// Compares all tables that a TTBR holds or will hold with what is known: the live tree, those of
/// TTBR0, and the surgery root. `stacks` yields what the window of stacks must translate, `owned`
/// is reserved memory without tables.
///
/// # Errors
/// [`Mismatch`], the first.
pub fn verify_tables<S: Iterator<Item = Expected>>(
    known: KnownMappings<'_>,
    live: &LiveMap,
    stacks: impl Fn() -> S,
    owned: &OwnedRanges,
    window: &mut TableSlots<'_>,
) -> Result<Compared, Mismatch> {
    let image = known.image;
    let tree = |geometry, root, base| Tree { geometry, root, base, access_flag: AccessFlag::Software };
    let high = |root| tree(geometry(), root, Layout::base(geometry()));
    let low = |root| tree(identity(), root, Va(0));
    let tables = TableMemory::new(image, known.memblock, owned, live.pool.frames());
    let is_live = |va, level, frame| tables.has(va, level, frame);
    let identity_map = parking::identity_map(image);
    let is_identity = |va, level, frame| identity_map.table(va, level) == Some(frame);
    let is_surgery = |_, _, frame| image.surgery_tables().contains(frame);
    let compare = VectorLoop::new();
    let fail = |root| move |error| Mismatch::Tables { root, error };
    // SAFETY: the window reaches all of memory through the fixmap, and the image. Only the boot CPU
    // changes tables, which runs this, and hardware updates are off.
    let compared = unsafe {
        let swapper = verify_tree(&high(image.swapper()), known.live(stacks()), window, is_live, &compare)
            .map_err(fail("TTBR1"))?;
        let identity =
            verify_tree(&low(image.identity_map()), known.identity(), window, is_identity, &compare)
                .map_err(fail("the identity map"))?;
        let nothing = verify_tree(&low(image.reserved_table()), [], window, |_, _, _| false, &compare)
            .map_err(fail("TTBR0"))?;
        let surgery = verify_tree(&high(live.surgery_root()), known.surgery(), window, is_surgery, &compare)
            .map_err(fail("the surgery root"))?;
        swapper.and(identity).and(nothing).and(surgery)
    };
    check_writable_or_executable(|| known.live(stacks()).chain(known.identity()))?;
    Ok(compared)
}

/// Asks the MMU about memory and the holes around it, and about `guards`, pages below stacks.
///
/// # Errors
/// [`Mismatch`], the first.
pub fn probe(known: KnownMappings<'_>, guards: impl IntoIterator<Item = Va>) -> Result<Probed, Mismatch> {
    let mut prober = Prober { known, layout: known.map.layout(), probed: Probed::default() };
    prober.linear_region()?;
    for guard in guards {
        prober.guard(guard)?;
    }
    prober.image_alias()?;
    Ok(prober.probed)
}

struct Prober<'v> {
    known: KnownMappings<'v>,
    layout: Layout,
    probed: Probed,
}

impl Prober<'_> {
    fn page(&self) -> u64 {
        self.layout.geometry().entry_bytes(Level::L3)
    }

    fn image(&self) -> Image {
        self.known.image
    }

    /// Probes all memory and the holes around it.
    fn linear_region(&mut self) -> Result<(), Mismatch> {
        let page = self.page();
        let memstart = self.layout.memstart();
        let mut hole_start = memstart;
        for range in self.known.memblock.mappable(page) {
            self.hole(PaRange::new(hole_start, range.start))?;
            let step = (range.len() / STRIDES / page).max(1) * page;
            let inside = (range.start.0..range.end.0).step_by(step as usize);
            for pa in inside.chain([range.end.0 - page, range.end.0 - 1]) {
                self.mapped(Pa(pa))?;
            }
            self.probed.ranges += 1;
            hole_start = range.end;
        }
        // The rest of the linear region.
        let end = Pa(memstart.0 + Layout::region_len(self.layout.geometry()));
        self.hole(PaRange::new(hole_start, end))
    }

    fn guard(&mut self, guard: Va) -> Result<(), Mismatch> {
        self.unmapped(guard)?;
        self.unmapped(Va(guard.0 + self.page() - 1))?;
        self.probed.holes += 1;
        Ok(())
    }

    /// Asks the MMU whether the alias of the image's text is read-only, and whether its data has
    /// none.
    fn image_alias(&mut self) -> Result<(), Mismatch> {
        let (image, text) = (self.image().range(), self.image().read_only());
        for pa in (image.start.0..image.end.0).step_by(self.page() as usize).map(Pa) {
            let va = self.layout.linear(pa);
            if cpu::translate_write(va).is_ok() {
                return Err(Mismatch::Translates { va, by: "AT for a write" });
            }
            if !text.contains(pa) {
                self.unmapped(va)?;
            }
            self.probed.faults += 1;
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
            self.unmapped(self.layout.linear(Pa(pa)))?;
        }
        self.probed.holes += 1;
        Ok(())
    }

    /// Probes an address in mapped memory.
    fn mapped(&mut self, pa: Pa) -> Result<(), Mismatch> {
        let va = self.layout.linear(pa);
        let image = self.image();
        if image.range().contains(pa) && !image.read_only().contains(pa) {
            return self.unmapped(va);
        }
        let Allowed { access, validity, .. } = self.known.changed.at(pa);
        if validity == Validity::Invalid {
            return self.unmapped(va);
        }
        let writable = access.writable() && !self.image().range().contains(pa);
        if cpu::translate_write(va).is_ok() != writable {
            return Err(Mismatch::Write { va, writable });
        }
        let found = cpu::translate(va);
        if found != Ok(pa) {
            return Err(Mismatch::Mmu { va, found, expected: pa });
        }
        load_byte(va).map_err(|Fault { esr }| Mismatch::Load { va, esr })?;
        self.probed.mapped += 1;
        Ok(())
    }

    /// Probes an address that has no mapping.
    fn unmapped(&mut self, va: Va) -> Result<(), Mismatch> {
        if cpu::translate(va).is_ok() {
            return Err(Mismatch::Translates { va, by: "AT" });
        }
        match load_byte(va) {
            Ok(_) => return Err(Mismatch::Translates { va, by: "a load" }),
            Err(fault) if !fault.is_translation() => return Err(Mismatch::OtherFault { va, esr: fault.esr }),
            Err(_) => {}
        }
        self.probed.faults += 1;
        Ok(())
    }
}

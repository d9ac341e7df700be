//! The early identity map: VA = PA for the code that switches tables, and for what parked CPUs need
//! there. Its tables are in the image. `entry.S` makes those on the way to the code; memory that
//! parking needs may lie in another table of pages, since the image may be longer than one.

use core::ptr::NonNull;

use linmap_table::cpu::store_valid;
use linmap_vmsa::{Descriptor, Level, Pa, Va};

use crate::arch::cpu::ThisCpu;
use crate::arch::geometry::identity;
use crate::arch::image::{Image, frame_after, leads_to};
use crate::arch::layout::IDENTITY;

/// How many tables lead to a page.
const LEVELS: usize = (4 - IDENTITY.start_level().number()) as usize;

/// The early identity map of the image, in which the page at `other` is mapped beside the code.
#[derive(Clone, Copy, Debug)]
pub struct IdentityMap {
    image: Image,
    other: Pa,
}

impl IdentityMap {
    /// The map of `image` with a second page at `other`.
    pub fn new(image: Image, other: Pa) -> Self {
        Self { image, other }
    }

    /// The table at `level` that translates from `va` on: one of those that `entry.S` made, or of
    /// those after them, in which the way to the other page differs.
    pub fn table(self, va: Va, level: Level) -> Option<Pa> {
        let depth = (level.number() - IDENTITY.start_level().number()) as usize;
        let code = Va(self.image.identity_text().0);
        let root = self.image.identity_map();
        if leads_to(IDENTITY, va, level, code) {
            return Some(frame_after(root, depth));
        }
        let own = depth.checked_sub(self.shared_levels())?;
        leads_to(IDENTITY, va, level, Va(self.other.0)).then(|| frame_after(root, LEVELS + own))
    }

    /// How many tables lead to both pages.
    fn shared_levels(self) -> usize {
        let [code, other] = [self.image.identity_text(), self.other].map(|page| Va(page.0));
        let is_shared = |level: &Level| IDENTITY.index(code, *level) == IDENTITY.index(other, *level);
        let above_pages = (IDENTITY.start_level().number()..3).filter_map(Level::new);
        above_pages.take_while(is_shared).count() + 1
    }

    /// Returns the entry for `va`, an address of one of the two pages or in the table of pages of
    /// one, and links the tables on the way to it that are not linked yet.
    ///
    /// # Safety
    /// No other CPU runs, and nothing else has used the tables that `entry.S` left empty.
    pub unsafe fn entry(self, va: Va) -> Option<NonNull<u64>> {
        let mut level = IDENTITY.start_level();
        let mut table = self.table(Va(0), level)?;
        while let Some(below) = level.next() {
            let span = IDENTITY.entry_bytes(level);
            let next = self.table(Va(va.0 & !(span - 1)), below)?;
            let entry = self.entry_of(table, level, va)?;
            let link = Descriptor::table(identity(), next);
            // SAFETY: an entry of a table in the image's data, by the caller's promise invalid or
            // this link already. The table that it leads to was cleared before the MMU was on.
            unsafe {
                if entry.read_volatile() != link.0 {
                    store_valid(&mut ThisCpu, entry, link);
                }
            }
            (level, table) = (below, next);
        }
        self.entry_of(table, level, va)
    }

    /// The entry for `va` in `table`, a table in the image, at `level`.
    fn entry_of(self, table: Pa, level: Level, va: Va) -> Option<NonNull<u64>> {
        let at = self.image.virtual_address(table).0 as usize + 8 * IDENTITY.index(va, level);
        NonNull::new(core::ptr::with_exposed_provenance_mut(at))
    }
}

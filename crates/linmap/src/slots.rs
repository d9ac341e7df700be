//! Which fixmap slots a builder may use.

use core::ops::Range;

use linmap_table::Fixmap;
use thiserror::Error;

use crate::fixmap_build::FixmapStep;

/// The fixmap slots that the caller lets a builder use. The builder leaves all of them free.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuilderSlots {
    /// One slot for each level's open table: that of level 3 first, level −1 last.
    pub tables: [usize; 5],
    /// Slots for leaf tables that are cleared in a batch. Only [`FixmapStep::LazyUnmap`] needs them; the published
    /// step has sixteen.
    pub leaf_tables: Range<usize>,
}

/// Why a builder can't use the slots that it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The fixmap has fewer slots.
    #[error("fixmap slot {slot} does not exist: the fixmap has {count} slots")]
    OutOfRange {
        /// The slot.
        slot: usize,
        /// How many slots the fixmap has.
        count: usize,
    },
    /// Two uses share a slot.
    #[error("fixmap slot {slot} is given for two uses")]
    Repeated {
        /// The slot.
        slot: usize,
    },
    /// Something is mapped in a slot.
    #[error("fixmap slot {slot} is in use: a builder needs it free")]
    InUse {
        /// The slot.
        slot: usize,
    },
    /// The builder clears leaf tables in a batch and was given no slots for them.
    #[error("the builder {} needs at least one fixmap slot for leaf tables", FixmapStep::LazyUnmap.name())]
    NoLeafTables,
}

impl BuilderSlots {
    /// Checks that every slot exists in `fixmap`, is free, and is given once.
    ///
    /// # Errors
    /// [`SlotError`] about the first slot that breaks a rule.
    pub fn check(&self, fixmap: &Fixmap) -> Result<(), SlotError> {
        let count = fixmap.slot_count();
        for (nth, slot) in self.tables.iter().copied().chain(self.leaf_tables.clone()).enumerate() {
            if slot >= count {
                return Err(SlotError::OutOfRange { slot, count });
            }
            if self.tables.iter().take(nth).any(|&earlier| earlier == slot) {
                return Err(SlotError::Repeated { slot });
            }
            if !fixmap.is_free(slot) {
                return Err(SlotError::InUse { slot });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use linmap_vmsa::{Geometry, Va};

    use super::*;

    const CONSOLE: usize = 3;

    /// What is wrong with `slots` in a fixmap whose slot [`CONSOLE`] is in use.
    fn check(tables: [usize; 5], leaf_tables: Range<usize>) -> Result<(), SlotError> {
        let mut ptes = [0u64; 512];
        ptes[CONSOLE] = 3;
        let first = NonNull::from(&mut ptes).cast();
        // SAFETY: the table outlives the value, which only reads it.
        let fixmap = unsafe { Fixmap::new(Geometry::K4_48, first, Va(0xffff_9000_0000_0000)) };
        BuilderSlots { tables, leaf_tables }.check(&fixmap)
    }

    #[test]
    fn slots_must_exist_be_free_and_differ() {
        assert_eq!(check([0, 1, 2, 4, 5], 6..22), Ok(()));
        assert_eq!(check([511, 2, 7, 5, 4], 0..0), Ok(()));
        assert_eq!(check([1, 2, 3, 4, 5], 8..24), Err(SlotError::InUse { slot: CONSOLE }));
        assert_eq!(check([0, 1, 2, 4, 4], 8..24), Err(SlotError::Repeated { slot: 4 }));
        assert_eq!(check([0, 1, 2, 4, 5], 5..9), Err(SlotError::Repeated { slot: 5 }));
        assert_eq!(check([0, 1, 2, 4, 512], 8..24), Err(SlotError::OutOfRange { slot: 512, count: 512 }));
        assert_eq!(check([0, 1, 2, 4, 5], 511..600), Err(SlotError::OutOfRange { slot: 512, count: 512 }));
    }
}

//! Which fixmap slots a builder may use.

use core::ops::Range;

use linmap_table::Fixmap;
use thiserror::Error;

use crate::builder::Builder;
use crate::step::FixmapStep;

/// The fixmap slots that a builder may use. It needs them free and leaves them free.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuilderSlots {
    /// One slot for the open table of each level: the first for level 3, the last for level −1.
    pub tables: [usize; 5],
    /// Slots for leaf tables that are cleared together. [`FixmapStep::LazyUnmap`] alone uses them;
    /// the published step has sixteen.
    pub leaf_tables: Range<usize>,
}

/// Why a builder can't use the slots that it was given.
///
/// ```
/// use linmap::{Builder, BuilderSlots, SlotError};
/// use linmap_table::Fixmap;
///
/// /// Whether the identity builder can use the first five slots.
/// fn check(fixmap: &Fixmap) -> Result<(), SlotError> {
///     BuilderSlots { tables: [0, 1, 2, 3, 4], leaf_tables: 0..0 }.check(Builder::Identity, fixmap)
/// }
/// ```
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
    #[error("fixmap slot {slot} is named twice")]
    Repeated {
        /// The slot.
        slot: usize,
    },
    /// Something is mapped in a slot.
    #[error("fixmap slot {slot} is in use")]
    InUse {
        /// The slot.
        slot: usize,
    },
    /// The builder clears leaf tables together, and no slot is named for them.
    #[error("the builder {} needs at least one fixmap slot for leaf tables", FixmapStep::LazyUnmap.name())]
    NoLeafTables,
}

impl BuilderSlots {
    /// Checks every slot that `builder` uses: it exists in `fixmap`, is free, and is named once.
    ///
    /// # Errors
    /// [`SlotError`] for the first slot that breaks a rule.
    #[inline]
    pub fn check(&self, builder: Builder, fixmap: &Fixmap) -> Result<(), SlotError> {
        let count = fixmap.slot_count();
        for (nth, &slot) in self.tables.iter().enumerate() {
            if slot >= count {
                return Err(SlotError::OutOfRange { slot, count });
            }
            if !fixmap.is_free(slot) {
                return Err(SlotError::InUse { slot });
            }
            if self.tables[..nth].contains(&slot) {
                return Err(SlotError::Repeated { slot });
            }
        }
        match builder {
            Builder::Fixmap(FixmapStep::LazyUnmap) => self.check_leaf_tables(fixmap),
            _ => Ok(()),
        }
    }

    fn check_leaf_tables(&self, fixmap: &Fixmap) -> Result<(), SlotError> {
        let count = fixmap.slot_count();
        if self.leaf_tables.is_empty() {
            return Err(SlotError::NoLeafTables);
        }
        if self.leaf_tables.end > count {
            return Err(SlotError::OutOfRange { slot: self.leaf_tables.start.max(count), count });
        }
        if let Some(&slot) = self.tables.iter().find(|slot| self.leaf_tables.contains(slot)) {
            return Err(SlotError::Repeated { slot });
        }
        match fixmap.first_unusable(self.leaf_tables.clone()) {
            Some(slot) => Err(SlotError::InUse { slot }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use linmap_vmsa::{Geometry, Va};

    use super::*;

    const CONSOLE: usize = 3;
    const LAZY: Builder = Builder::Fixmap(FixmapStep::LazyUnmap);

    /// What is wrong with slots in a fixmap that has something mapped in [`CONSOLE`].
    fn check(builder: Builder, tables: [usize; 5], leaf_tables: Range<usize>) -> Result<(), SlotError> {
        let mut ptes = [0u64; 512];
        ptes[CONSOLE] = 3;
        let first = NonNull::from(&mut ptes).cast();
        // SAFETY: the table outlives the value, which only reads it.
        let fixmap = unsafe { Fixmap::new(Geometry::K4_48, first, Va(0xffff_9000_0000_0000)) };
        BuilderSlots { tables, leaf_tables }.check(builder, &fixmap)
    }

    #[test]
    fn slots_must_exist_be_free_and_differ() {
        let out_of_range = |slot| Err(SlotError::OutOfRange { slot, count: 512 });
        for builder in [Builder::Identity, LAZY] {
            assert_eq!(check(builder, [0, 1, 2, 4, 5], 6..22), Ok(()));
            assert_eq!(check(builder, [511, 2, 7, 5, 4], 8..9), Ok(()));
            assert_eq!(check(builder, [1, 2, 3, 4, 5], 8..24), Err(SlotError::InUse { slot: CONSOLE }));
            assert_eq!(check(builder, [0, 1, 2, 4, 4], 8..24), Err(SlotError::Repeated { slot: 4 }));
            assert_eq!(check(builder, [0, 1, 2, 4, 512], 8..24), out_of_range(512));
        }
        assert_eq!(check(LAZY, [0, 1, 2, 4, 5], 5..9), Err(SlotError::Repeated { slot: 5 }));
        assert_eq!(check(LAZY, [5, 6, 7, 8, 9], 2..5), Err(SlotError::InUse { slot: CONSOLE }));
        assert_eq!(check(LAZY, [0, 1, 2, 4, 5], 511..600), out_of_range(512));
        assert_eq!(check(LAZY, [0, 1, 2, 4, 5], usize::MAX - 1..usize::MAX), out_of_range(usize::MAX - 1));
    }

    #[test]
    fn the_builder_that_clears_leaf_tables_together_alone_needs_slots_for_them() {
        assert_eq!(check(LAZY, [0, 1, 2, 4, 5], 8..8), Err(SlotError::NoLeafTables));
        assert_eq!(check(Builder::Identity, [0, 1, 2, 4, 5], 0..0), Ok(()));
        assert_eq!(check(Builder::Fixmap(FixmapStep::NoAllocRemap), [0, 1, 2, 4, 5], 0..900), Ok(()));
    }
}

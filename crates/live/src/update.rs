//! Atomic updates of entries that hardware updates too: of the access flag and of dirty state.

use core::fmt;

use linmap_vmsa::{Descriptor, HardwareUpdates, Pa, Regime};

use crate::gather::{ACCESSED, DIRTY_MODIFIER, READ_ONLY};

/// An edit of entries that hardware may update at the same time. Each entry changes by an atomic
/// read-modify-write, so nothing that hardware updates before it is lost.
///
/// Plans for a tree with [`HardwareUpdates`] have these edits where
/// other plans have plain stores to leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// In each entry the bits in `clear` are cleared, then those in `set` are set. Other bits keep
    /// the values that hardware gave them.
    Bits {
        /// Bits to clear.
        clear: u64,
        /// Bits to set.
        set: u64,
    },
    /// Each leaf becomes another one: `first`, `first` + `step` and so on (wrapping), with the
    /// access flag of the old one. Where hardware makes leaves dirty, both are tracked and the old
    /// one is dirty, so is the new one.
    Leaf {
        /// The first entry's new value.
        first: Descriptor,
        /// What each next entry adds.
        step: u64,
    },
    /// A new table replaces a block. If hardware has updated the block since the table was written,
    /// the leaves of the table are updated first.
    Link {
        /// The table descriptor.
        table: Descriptor,
        /// The block that the leaves of the table were written for.
        over: Descriptor,
    },
    /// Each of the entries, which were a contiguous run, becomes accessed if one of them is, and
    /// dirty if one of them is: hardware may have updated any of them for all.
    Gather,
    /// The entry, a block that replaced the table `from`, becomes accessed if a leaf of the table
    /// or below is, and dirty if one is: hardware may have updated leaves of the table until its
    /// invalidation was complete.
    Collect {
        /// The table that was removed.
        from: Pa,
    },
}

impl Update {
    /// Returns the new value of entry `nth`, whose value is `old`, if hardware updates nothing.
    #[inline]
    pub const fn of(self, old: Descriptor, nth: usize) -> Descriptor {
        match self {
            Self::Bits { clear, set } => Descriptor(old.0 & !clear | set),
            Self::Leaf { first, step } => Descriptor(first.0.wrapping_add(step.wrapping_mul(nth as u64))),
            Self::Link { table, .. } => table,
            Self::Gather | Self::Collect { .. } => old,
        }
    }
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits { clear, set } => write!(f, "atomic clear {clear:#018x} set {set:#018x}"),
            Self::Leaf { first, step } => write!(f, "atomic {first:?} + {step:#x}"),
            Self::Link { table, over } => write!(f, "atomic {table:?} over {over:?}"),
            Self::Gather => f.write_str("atomic gather"),
            Self::Collect { from } => write!(f, "atomic collect from {:#014x}", from.0),
        }
    }
}

/// Returns whether a leaf may be written as it is, so that hardware marks no write to it.
#[inline(always)]
pub(crate) const fn is_written(regime: Regime, leaf: u64) -> bool {
    (leaf & READ_ONLY != 0) == regime.is_stage_2()
}

/// Returns `leaf` with what hardware has updated in the leaf `other`, for the same memory: the
/// access flag, and dirty state if both are tracked.
#[inline(always)]
pub(crate) const fn carried(regime: Regime, leaf: u64, other: u64) -> u64 {
    let leaf = leaf | other & ACCESSED;
    if leaf & other & DIRTY_MODIFIER == 0 || !is_written(regime, other) {
        leaf
    } else if regime.is_stage_2() {
        leaf | READ_ONLY
    } else {
        leaf & !READ_ONLY
    }
}

/// Returns `leaf`, which replaces `old`, with what hardware has updated in that under `updates`.
///
/// Where hardware makes nothing dirty, whether a leaf is read-only is for software to say.
#[inline(always)]
pub(crate) const fn kept(updates: HardwareUpdates, regime: Regime, leaf: u64, old: u64) -> u64 {
    match updates {
        HardwareUpdates::Off => leaf,
        HardwareUpdates::Accessed => leaf | old & ACCESSED,
        HardwareUpdates::AccessedAndDirty => carried(regime, leaf, old),
    }
}

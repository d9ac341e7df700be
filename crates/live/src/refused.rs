//! Why a plan must not be applied.

use linmap_vmsa::bbm::Requirement;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level, Pa, Va};
use thiserror::Error;

use crate::step::{EveryLeaf, Invalidation};

/// A plan that must not be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("step {step}: {rule}")]
pub struct Refused {
    /// The step that breaks the rule, counted from 0; the number of steps when the plan ends too
    /// early.
    pub step: usize,
    /// The rule.
    pub rule: BrokenRule,
}

/// The rule that a plan breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum BrokenRule {
    /// The store names no entries of a table: too many, none, or an address that they do not
    /// translate.
    #[error("{count} entries from {index} on in a level {level} table do not translate {va}")]
    NoSuchEntries {
        /// The address given.
        va: Va,
        /// The level given.
        level: Level,
        /// The first index.
        index: u16,
        /// How many.
        count: u16,
    },
    /// The walk for the address does not come through the table.
    #[error("the level {level} table for {va} is not at {table}")]
    OtherTable {
        /// The address.
        va: Va,
        /// The level.
        level: Level,
        /// The table that the step names.
        table: Pa,
    },
    /// The change needs more than the store and an invalidation.
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}: {old:?} to {new:?} needs \
         {requirement} at BBM level {}",
        bbm.number()
    )]
    Forbidden {
        /// First address that the entry translates.
        va: Va,
        /// The table.
        table: Pa,
        /// The table's level.
        level: Level,
        /// The entry's index.
        index: usize,
        /// What TLBs may hold of the entry.
        old: Descriptor,
        /// What is stored.
        new: Descriptor,
        /// What the change asks for.
        requirement: Requirement,
        /// The level of the CPUs.
        bbm: BbmLevel,
    },
    /// A leaf in use changes its size below BBM level 3, or is made invalid for a moment.
    #[error(
        "the entry for {va} is in use: {old:?} to {new:?} changes its size, or brings it back, below BBM \
         level 3 (D8.16.2)"
    )]
    InUse {
        /// First address that the entry translates.
        va: Va,
        /// What TLBs may hold of the entry.
        old: Descriptor,
        /// What is stored.
        new: Descriptor,
    },
    /// A table and a block that replace each other do not translate alike.
    #[error("the table at {table} and the block {block:?} for {va} do not translate alike")]
    Differs {
        /// First address.
        va: Va,
        /// The table.
        table: Pa,
        /// The block.
        block: Descriptor,
    },
    /// The entries of a contiguous run are not changed together, or would differ (D8.7.1).
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}: only a part of a contiguous run \
         changes"
    )]
    PartOfRun {
        /// First address that the entry translates.
        va: Va,
        /// The table.
        table: Pa,
        /// The table's level.
        level: Level,
        /// The entry's index.
        index: usize,
    },
    /// An entry changes before every walker sees that the run it was one of is none any more
    /// (D8.7.1).
    #[error("the entry for {va} changes before a DSB orders the stores that unfold its run")]
    RunUnordered {
        /// First address that the entry translates.
        va: Va,
    },
    /// A table is linked before a DSB orders what was written there.
    #[error("the table at {table} for {va} is linked before a DSB orders its entries")]
    TableUnordered {
        /// First address that the table translates.
        va: Va,
        /// The table.
        table: Pa,
    },
    /// A change of all leaves where CPUs may walk the tree.
    #[error("all leaves from {first} on change, which a parked tree alone can do")]
    NotParked {
        /// First address of the range.
        first: Va,
    },
    /// A change of all leaves that names no range of the tree, or bits other than nG.
    #[error("no change of all leaves: {0:?}")]
    NoSuchLeaves(EveryLeaf),
    /// A change of all leaves that begins or ends within a leaf or a contiguous run that it
    /// changes.
    #[error("the leaf or run for {va} reaches over an end of the range in which all leaves change")]
    PartOfLeaf {
        /// An address in the leaf, the first or the last of the range.
        va: Va,
    },
    /// A store behind a change of all leaves, which must be the last.
    #[error("the entries for {va} change behind a change of all leaves, which must be the last")]
    BehindEveryLeaf {
        /// First address that changes.
        va: Va,
    },
    /// An invalidation is not ordered behind the stores it is for.
    #[error("an invalidation before the DSB that orders the stores")]
    InvalidationUnordered,
    /// No instruction can say the invalidation.
    #[error("no instruction of these CPUs does the invalidation {0:?}")]
    NoSuchInvalidation(Invalidation),
    /// A frame is freed that a walk may still reach.
    #[error("the table at {table} for {va} is freed before its removal is invalidated everywhere")]
    FreedEarly {
        /// First address that the table translated.
        va: Va,
        /// The table.
        table: Pa,
    },
    /// A frame is freed that the plan has not removed from the tree, or twice.
    #[error("the table at {table} for {va} is freed, but the plan has not removed it")]
    NotRemoved {
        /// First address that the step names.
        va: Va,
        /// The table.
        table: Pa,
    },
    /// The plan ends with stores that no DSB orders.
    #[error("the plan ends with stores that no DSB orders")]
    StoresUnordered,
    /// The plan ends with translations in TLBs that the tables no longer hold.
    #[error("the plan ends before all that changed is invalidated everywhere; {va} is not")]
    NotInvalidated {
        /// An address of which TLBs may hold an old translation.
        va: Va,
    },
    /// The plan ends without an ISB behind all that it does.
    #[error("the plan ends without an ISB")]
    NoIsb,
}

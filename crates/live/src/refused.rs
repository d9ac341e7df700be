//! Why a plan must not be applied.

use linmap_vmsa::bbm::Requirement;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level, Pa, Va};
use thiserror::Error;

use crate::step::{EveryLeaf, Invalidation};

/// A plan that must not be applied, and the rule that it breaks.
///
/// ```
/// use linmap_live::{BrokenRule, Plan, Refused};
/// use linmap_table::{FrameSource, TableWindow};
///
/// /// Checks a plan of a planner of your own. A plan that was refused gives its new tables back.
/// fn check(
///     plan: Plan<'_>,
///     window: &mut impl TableWindow,
///     frames: &mut impl FrameSource,
/// ) -> Result<(), Refused> {
///     match plan.check(window) {
///         Ok(checked) => checked.abandon(window, frames),
///         Err((plan, refused)) => {
///             let Refused { rule, .. } = refused;
///             let _: BrokenRule = rule;
///             plan.abandon(window, frames);
///             return Err(refused);
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("step {step}: {rule}")]
pub struct Refused {
    /// The step that breaks the rule, from 0. The number of steps when the plan ends too early.
    pub step: usize,
    /// The rule.
    pub rule: BrokenRule,
}

/// The rule that a plan breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum BrokenRule {
    /// The store names entries that do not exist or that do not translate its address.
    #[error(
        "{count} entries from index {index} on of a level {level} table do not exist or do not translate {va}"
    )]
    NoSuchEntries {
        /// The address given.
        va: Va,
        /// The level given.
        level: Level,
        /// The first index.
        index: u16,
        /// The number of them.
        count: u16,
    },
    /// The walk for the address does not reach the table.
    #[error("the level {level} table for {va} is not at {table}")]
    OtherTable {
        /// The address.
        va: Va,
        /// The level.
        level: Level,
        /// The table that the step names.
        table: Pa,
    },
    /// The change needs more than a store and an invalidation.
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
        /// What TLBs may hold for the entry.
        old: Descriptor,
        /// What is stored.
        new: Descriptor,
        /// What the change needs.
        requirement: Requirement,
        /// The level of the CPUs.
        bbm: BbmLevel,
    },
    /// A leaf in use changes its size below BBM level 3, or is made invalid for a moment.
    #[error(
        "the entry for {va} is in use: {old:?} to {new:?} changes its size, or makes it valid again, \
         below BBM level 3 (D8.16.2)"
    )]
    InUse {
        /// First address that the entry translates.
        va: Va,
        /// What TLBs may hold for the entry.
        old: Descriptor,
        /// What is stored.
        new: Descriptor,
    },
    /// A table and a block that replace each other do not translate identically.
    #[error("the table at {table} and the block {block:?} for {va} do not translate identically")]
    Differs {
        /// First address.
        va: Va,
        /// The table.
        table: Pa,
        /// The block.
        block: Descriptor,
    },
    /// A plain store over a leaf that hardware may update, or a link over another block than the
    /// new table was written for.
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}, changes by a store that may lose \
         an update by hardware (D8.5)"
    )]
    UpdateLost {
        /// First address that the entry translates.
        va: Va,
        /// The table.
        table: Pa,
        /// The table's level.
        level: Level,
        /// The entry's index.
        index: usize,
    },
    /// What hardware updates in the entries of a former run is never given to all of them.
    #[error("the run for {va} is split, and what hardware updates in one entry is not given to all (D8.5)")]
    NotGathered {
        /// First address of the entry.
        va: Va,
    },
    /// What hardware updates is gathered while TLBs may hold what was there.
    #[error("updates by hardware are gathered for {va} before the invalidation is complete (D8.5)")]
    GatheredEarly {
        /// First address of the entry.
        va: Va,
    },
    /// A table is freed whose leaves hardware may have updated for the block in its place.
    #[error("the table at {table} for {va} is freed, and the block in its place lacks its updates (D8.5)")]
    NotCollected {
        /// First address.
        va: Va,
        /// The table.
        table: Pa,
    },
    /// The plan makes an entry invalid and never valid again, and is not asked to.
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}, becomes invalid and is never made \
         valid again"
    )]
    LeftInvalid {
        /// First address that the entry translates.
        va: Va,
        /// The table.
        table: Pa,
        /// The table's level.
        level: Level,
        /// The entry's index.
        index: usize,
    },
    /// Only a part of a contiguous run changes, or its entries would differ (D8.7.1).
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}: only a part of a contiguous run \
         changes (D8.7.1)"
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
    /// An entry changes before a DSB orders the stores that take the contiguous bit from its run
    /// (D8.7.1).
    #[error(
        "the entry for {va} changes before a DSB orders the stores that clear its contiguous bit (D8.7.1)"
    )]
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
    #[error("all leaves from {first} on change, which needs a parked tree")]
    NotParked {
        /// First address of the range.
        first: Va,
    },
    /// A change of all leaves whose range is not in the tree, or that changes bits other than nG.
    #[error("not a valid change of all leaves: {0:?}")]
    NoSuchLeaves(EveryLeaf),
    /// A change of all leaves that begins or ends within a leaf or a contiguous run that it
    /// changes.
    #[error("the leaf or run for {va} reaches over an end of the range in which all leaves change")]
    PartOfLeaf {
        /// An address in the leaf, the first or the last of the range.
        va: Va,
    },
    /// A store after a change of all leaves, which must be the last step that stores.
    #[error("the entries for {va} change after a change of all leaves, which must come last")]
    BehindEveryLeaf {
        /// First address that changes.
        va: Va,
    },
    /// An invalidation comes before the DSB that orders its stores.
    #[error("an invalidation comes before the DSB that orders its stores")]
    InvalidationUnordered,
    /// No TLBI instruction can encode the invalidation.
    #[error("no TLBI instruction of these CPUs can encode {0:?}")]
    NoSuchInvalidation(Invalidation),
    /// A table is freed that a walk may still reach.
    #[error("the table at {table} for {va} is freed before it is invalidated on all CPUs")]
    FreedEarly {
        /// First address that the table translated.
        va: Va,
        /// The table.
        table: Pa,
    },
    /// A table is freed that the plan has not removed from the tree, or that it freed before.
    #[error("the table at {table} for {va} is freed, but the plan has not removed it")]
    NotRemoved {
        /// First address that the step names.
        va: Va,
        /// The table.
        table: Pa,
    },
    /// The plan ends before a DSB orders its stores.
    #[error("the plan ends before a DSB orders its stores")]
    StoresUnordered,
    /// The plan ends while TLBs may hold translations that the tables no longer hold.
    #[error("the plan ends before {va}, which changed, is invalidated on all CPUs")]
    NotInvalidated {
        /// An address for which TLBs may hold an old translation.
        va: Va,
    },
    /// The plan ends while TLBs may hold entries of a guest that combine both stages: after the
    /// invalidations by IPA and a DSB ISH, VMALLE1IS and a DSB ISH must follow.
    #[error("the plan ends before what combines both stages for {va} is invalidated (D8.17)")]
    CombinedHeld {
        /// An address for which TLBs may hold an old translation.
        va: Va,
    },
    /// The memory type of a leaf changes, and no cache maintenance of as many bytes comes after it.
    #[error("the plan ends without cache maintenance for {va}, whose memory type changed")]
    NotCleaned {
        /// First address that changed.
        va: Va,
    },
    /// Cache maintenance before the new translation is in force: after the stores a DSB and an ISB.
    #[error("cache maintenance by {va} comes before a DSB and an ISB after the stores")]
    CleanedEarly {
        /// The address that the step names.
        va: Va,
    },
    /// A leaf of a user space would be global, so that TLBs used it in every ASID, and the
    /// invalidation of its ASID left it.
    #[error("the level {level} leaf for {va} is global, in the tree of one ASID")]
    GlobalLeaf {
        /// First address of the store.
        va: Va,
        /// The level of its table.
        level: Level,
    },
    /// The plan ends without an ISB.
    #[error("the plan ends without an ISB")]
    NoIsb,
}

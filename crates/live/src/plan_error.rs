//! Why an edit can't be planned.

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va, VaRange};
use thiserror::Error;

use linmap_table::EntryInUse;
use linmap_table::OutOfFrames;

/// Why an edit can't be planned. The tree is as before, and every frame taken is back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The range is empty or not made of whole pages.
    #[error("{range}: not whole pages of {granule:#x} bytes")]
    Unaligned {
        /// The range asked for.
        range: VaRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The range leaves the half of the address space that the tree translates.
    #[error("{range} leaves the {bits} bits from {base} on that the tree translates")]
    OutsideHalf {
        /// The range asked for.
        range: VaRange,
        /// First address of the half.
        base: Va,
        /// The VA size in bits.
        bits: u8,
    },
    /// The mappings were checked against another geometry.
    #[error("the mappings are for {mappings:?}, the tree has {tree:?}")]
    OtherGeometry {
        /// The geometry of the mappings.
        mappings: Geometry,
        /// The geometry of the tree.
        tree: Geometry,
    },
    /// The plan needs more steps than the caller's list holds. Edit less at once, or give more
    /// room.
    #[error("the plan needs more than the {capacity} steps there is room for")]
    TooLong {
        /// The length of the caller's list.
        capacity: usize,
    },
    /// No frame is left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// Something is mapped already where the edit maps.
    #[error(transparent)]
    EntryInUse(#[from] EntryInUse),
    /// Nothing is mapped at an address whose attributes should change.
    #[error("nothing is mapped at {va}, so its attributes can't change")]
    Hole {
        /// First address without translation.
        va: Va,
    },
    /// An entry that linmap never writes: a reserved encoding, a run whose entries differ, a
    /// contiguous bit where linmap makes no runs, a block that another procedure left with nT.
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}, is {found:?}, which is nothing \
         linmap writes"
    )]
    Foreign {
        /// First address that the entry translates.
        va: Va,
        /// The live table.
        table: Pa,
        /// The table's level.
        level: Level,
        /// The entry's index.
        index: usize,
        /// What stands there.
        found: Descriptor,
    },
    /// The change would let memory be both written and executed.
    #[error("{va} would be writable and executable")]
    WritableAndExecutable {
        /// First such address.
        va: Va,
    },
    /// A contiguous run would have to change while it is in use, one entry after the other.
    #[error(
        "the contiguous run for {va} would change while it is in use, which BBM level 0 can't do \
         (D8.7.1): level 1 can"
    )]
    RunInUse {
        /// First address of the run.
        va: Va,
    },
    /// A leaf would have to change its size while it is in use.
    #[error(
        "the leaf for {va} would change its size while it is in use, which BBM level {} can't do \
         (D8.16.2): level 3 can",
        bbm.number()
    )]
    NeedsLevel3 {
        /// First address of the leaf or run.
        va: Va,
        /// The level that the CPUs have.
        bbm: BbmLevel,
    },
}

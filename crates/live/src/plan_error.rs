//! Why an edit can't be planned.

use linmap_vmsa::bbm::Reason;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{AttributeError, Descriptor, Geometry, Level, Pa, TablePermissions, Va, VaRange};
use thiserror::Error;

use linmap_table::EntryInUse;
use linmap_table::{OutOfFrames, SubtreeError};

/// Why an edit can't be planned. The tree is unchanged, and all frames allocated are freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The range is empty or not made of whole pages.
    #[error("{range} does not consist of whole pages of {granule:#x} bytes")]
    Unaligned {
        /// The range asked for.
        range: VaRange,
        /// The granule in bytes.
        granule: u64,
    },
    /// The range leaves the half of the address space that the tree translates.
    #[error("{range} is not inside the {bits}-bit half from {base} on that the tree translates")]
    OutsideHalf {
        /// The range asked for.
        range: VaRange,
        /// First address of the half.
        base: Va,
        /// The VA size in bits.
        bits: u8,
    },
    /// The range leaves the part of the space that this editor may change.
    #[error("{range} is not inside {part}, the part of the space that this editor may change")]
    OutsidePart {
        /// The range asked for.
        range: VaRange,
        /// The part.
        part: VaRange,
    },
    /// The mappings were checked against another geometry.
    #[error("the mappings are for {mappings:?}, the tree has {tree:?}")]
    OtherGeometry {
        /// The geometry of the mappings.
        mappings: Geometry,
        /// The geometry of the tree.
        tree: Geometry,
    },
    /// The plan needs more steps than the caller's list holds. Edit a smaller range, or pass a
    /// longer list.
    #[error("the plan needs more than {capacity} steps, which is the length of the caller's list")]
    TooLong {
        /// The length of the caller's list.
        capacity: usize,
    },
    /// No frame is left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// No table can be built there.
    #[error(transparent)]
    Subtree(SubtreeError),
    /// Something is mapped already where the edit would map.
    #[error(transparent)]
    EntryInUse(#[from] EntryInUse),
    /// A mapping over a leaf would change more than who may access the memory.
    #[error(
        "the mapping over the leaf for {va} needs break-before-make: {} ({})",
        reason.what(),
        reason.rule()
    )]
    MappedOver {
        /// First address of the leaf.
        va: Va,
        /// What would change.
        reason: Reason,
    },
    /// A mapping over a leaf, or over a contiguous run, has other permissions and covers a part of
    /// it. Split the leaf first.
    #[error("the mapping changes the permissions of a part of the leaf or run for {va}: split it first")]
    PartOfLeaf {
        /// First address of the leaf.
        va: Va,
    },
    /// Nothing is mapped at an address whose attributes were to change.
    #[error("nothing is mapped at {va}, so its attributes can't change")]
    Hole {
        /// First address without translation.
        va: Va,
    },
    /// An entry that this crate never writes: a reserved encoding, a run whose entries differ, a
    /// contiguous bit where no runs are made, a block with nT.
    #[error(
        "entry {index} of the level {level} table at {table}, for {va}, is {found:?}: an encoding that \
         is never written here"
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
        /// Its content.
        found: Descriptor,
    },
    /// The tree's regime can't encode the attributes.
    #[error(transparent)]
    Attributes(#[from] AttributeError),
    /// A leaf of a user space would be global: TLBs would use it in every ASID.
    #[error("the mapping for {va} is global, and the tree is a user space with an ASID of its own")]
    GlobalLeaf {
        /// First address of the mapping.
        va: Va,
    },
    /// The change would make memory writable and executable.
    #[error("{va} would be writable and executable")]
    WritableAndExecutable {
        /// First such address.
        va: Va,
    },
    /// The tree's tables take away what the new leaf allows, or what a leaf to be split allows.
    #[error("{va} can't allow what the tree's tables take away: {tables} (D8.4.1.2.5)")]
    TakenByTables {
        /// First such address.
        va: Va,
        /// What the tables take away.
        tables: TablePermissions,
    },
    /// The change of a leaf in use needs break-before-make.
    #[error("the leaf for {va} is in use and needs break-before-make: {} ({})", reason.what(), reason.rule())]
    NeedsBreak {
        /// First address of the leaf or run.
        va: Va,
        /// What would change.
        reason: Reason,
    },
    /// The value does not fit the four software bits of a leaf.
    #[error("{software:#x} does not fit the four software bits of a leaf (58:55)")]
    NoSuchSoftwareBits {
        /// The value asked for.
        software: u8,
    },
    /// The new memory is not made of whole pages, or lies beyond the PA size.
    #[error(
        "{len:#x} bytes from {to} are not whole pages of {granule:#x} bytes below the PA size of {bits} bits"
    )]
    NoSuchMemory {
        /// First address of the memory.
        to: Pa,
        /// Its length.
        len: u64,
        /// The granule in bytes.
        granule: u64,
        /// The PA size.
        bits: u8,
    },
    /// A contiguous run in use would have to change entry by entry.
    #[error(
        "the contiguous run for {va} would change while it is in use, which needs BBM level 1: the CPUs \
         have level 0 (D8.7.1)"
    )]
    RunInUse {
        /// First address of the run.
        va: Va,
    },
    /// A leaf in use would have to change its size.
    #[error(
        "the leaf for {va} would change its size while it is in use, which needs BBM level 3: the CPUs \
         have level {} (D8.16.2)",
        bbm.number()
    )]
    NeedsLevel3 {
        /// First address of the leaf or run.
        va: Va,
        /// The level that the CPUs have.
        bbm: BbmLevel,
    },
}

impl From<SubtreeError> for PlanError {
    fn from(error: SubtreeError) -> Self {
        match error {
            SubtreeError::OutOfFrames(error) => error.into(),
            error => Self::Subtree(error),
        }
    }
}

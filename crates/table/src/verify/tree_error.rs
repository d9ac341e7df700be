//! Where a tree differs from what it must be.

use core::fmt;

use linmap_vmsa::{Descriptor, Level, Pa, TablePermissions, Va};
use thiserror::Error;

use crate::mapping::MappingError;

/// An entry by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryPlace {
    /// The first address that it translates.
    pub va: Va,
    /// The level of its table.
    pub level: Level,
    /// The frame of its table.
    pub table: Pa,
    /// Its index there.
    pub index: usize,
}

impl fmt::Display for EntryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { va, level, table, index } = self;
        write!(f, "{va}: entry {index} of the level {level} table at {table}")
    }
}

/// What an entry must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WantedEntry {
    /// Unused: nothing is mapped there.
    Unused,
    /// This leaf, with or without the contiguous bit, or a table of smaller leaves.
    Leaf(Descriptor),
    /// A table: what must be mapped there has no leaf of this size.
    Table,
}

impl fmt::Display for WantedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unused => f.write_str("0, since nothing is mapped there"),
            Self::Leaf(leaf) => write!(f, "{leaf:?}"),
            Self::Table => f.write_str("a table"),
        }
    }
}

/// The first difference between a tree and what it must be.
///
/// ```
/// use linmap_table::verify::{
///     AccessFlag, Content, EntryPlace, Expected, PortableLoop, Tree, TreeError, Validity, WantedEntry,
///     verify_tree,
/// };
/// use linmap_table::{BumpFrames, FirstMap, Leaves, OffsetWindow};
/// use linmap_vmsa::{Attributes, Geometry, Level, Pa, PaRange, TablePermissions, Va};
///
/// # let host = vec![0u8; 1 << 16];
/// # let host = Pa(host.as_ptr().expose_provenance() as u64);
/// # let tables = PaRange::from_len(host, 1 << 16).unwrap();
/// let geometry = Geometry::K4_48;
/// let mut map = FirstMap::<4>::new(geometry);
/// map.identity(PaRange::new(Pa(0x4000_0000), Pa(0x4000_2000)), Attributes::KERNEL_DATA)?;
/// // SAFETY: `tables` is free memory, which the CPU reaches at its physical address.
/// let tree = unsafe { map.build(0, &mut BumpFrames::new(tables, geometry)) }?;
///
/// let (root, access_flag) = (tree.root(), AccessFlag::Software);
/// let built = Tree { geometry, root, base: Va(0), access_flag };
/// // One page alone should be mapped.
/// let content = Content::Leaves {
///     pa: Pa(0x4000_0000),
///     attributes: Attributes::KERNEL_DATA,
///     validity: Validity::Valid,
///     leaves: Leaves::Pages,
/// };
/// let tables = TablePermissions::UNRESTRICTED;
/// let expected = Expected { va: Va(0x4000_0000), len: 0x1000, content, tables };
/// // SAFETY: as above.
/// let mut window = unsafe { OffsetWindow::new(0) };
/// // SAFETY: the window reaches all tables, and nothing changes them.
/// let result =
///     unsafe { verify_tree(&built, [expected], &mut window, |_, _, _| true, &PortableLoop) };
/// let Err(TreeError::Entry { place, wanted, .. }) = result else { panic!("{result:?}") };
/// let EntryPlace { va, level, index, .. } = place;
/// assert_eq!((va, level, index, wanted), (Va(0x4000_1000), Level::L3, 1, WantedEntry::Unused));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TreeError {
    /// An entry is wrong.
    #[error("{place} is {found:?} instead of {wanted}")]
    Entry {
        /// The entry.
        place: EntryPlace,
        /// What it is.
        found: Descriptor,
        /// What it must be.
        wanted: WantedEntry,
    },
    /// The contiguous bit is set, but the run is incomplete, crosses a mapping's end or is not
    /// aligned: a TLB may translate more than the tables say (Arm ARM D8.7.1).
    #[error("{place} is {found:?}, but its contiguous run is not complete")]
    Run {
        /// The entry.
        place: EntryPlace,
        /// What it is.
        found: Descriptor,
    },
    /// The descriptor of a table has bits besides the address, the type and what it must take away,
    /// or lacks one of these.
    #[error("{place} is {found:?}, a table descriptor that should be {wanted:?}")]
    TableBits {
        /// The entry.
        place: EntryPlace,
        /// What it is.
        found: Descriptor,
        /// The descriptor of the same table.
        wanted: Descriptor,
    },
    /// The tables on the way to the entry do not take away what this range requires. They match
    /// another range below them.
    #[error("the tables above {place} take away {found}, and for it they must take away {wanted}")]
    Tables {
        /// The entry.
        place: EntryPlace,
        /// What they take away.
        found: TablePermissions,
        /// What they must take away.
        wanted: TablePermissions,
    },
    /// The descriptor of a table leads to a frame that is no table for these addresses.
    #[error("{place} is {found:?}, but {frame} is not a table for these addresses")]
    NotTable {
        /// The entry.
        place: EntryPlace,
        /// What it is.
        found: Descriptor,
        /// Where it leads.
        frame: Pa,
    },
    /// The list breaks a rule, so nothing can be said of the tree.
    #[error("the list of what must be mapped: {0}")]
    List(#[from] MappingError),
}

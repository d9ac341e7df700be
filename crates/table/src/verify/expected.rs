//! What a range of virtual addresses must translate to.

use linmap_vmsa::{Attributes, Pa, TablePermissions, Va};

use crate::mapping::Leaves;

/// Whether leaves translate anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Validity {
    /// They do.
    Valid,
    /// They are *invalidated leaves*: all bits are there but the valid bit.
    Invalid,
}

/// What the entries for a range must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Leaves for consecutive memory.
    Leaves {
        /// The first physical address.
        pa: Pa,
        /// Their attributes, without the contiguous bit.
        attributes: Attributes,
        /// Whether they translate.
        validity: Validity,
        /// The largest leaves that may stand there. Smaller ones are right too.
        leaves: Leaves,
    },
    /// Nothing, in tables of pages that stay though they may be empty: a fixmap's free slots.
    FreeSlots,
}

/// What a range of virtual addresses must translate to. Ranges that no list names must have unused
/// entries: all bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The first virtual address; a multiple of the granule.
    pub va: Va,
    /// The length in bytes; a multiple of the granule, not 0.
    pub len: u64,
    /// The entries.
    pub content: Content,
    /// Exactly what every table below the root that leads there must take away.
    pub tables: TablePermissions,
}

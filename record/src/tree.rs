//! A tree of translation tables.

use crate::regime::Space;

/// A tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tree {
    /// The first byte of its root.
    pub root: u64,
    pub space: Space,
    /// ASID or VMID.
    pub id: u16,
}

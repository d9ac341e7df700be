//! The trees that CPUs walk, or left.

use crate::regime::Space;

/// A tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tree {
    pub space: Space,
    /// The first byte of its root.
    pub root: u64,
    /// ASID or VMID.
    pub id: u16,
}

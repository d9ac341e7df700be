//! The address that cache maintenance uses.

use linmap_vmsa::Va;

/// The address that cache maintenance after a change of memory type uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maintenance {
    /// The range's own address: the editing CPU has the tree in a TTBR.
    ByMapping,
    /// The first address of another mapping of the same memory, which the editing CPU translates:
    /// for a guest, or for a user space that does not run on that CPU.
    ByAlias(Va),
}

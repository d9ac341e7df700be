//! Which address cache maintenance goes by.

use linmap_vmsa::Va;

/// The address by which caches are cleaned and invalidated after a change of memory type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maintenance {
    /// By the new translation itself: the editing CPU has the tree in a TTBR.
    ByMapping,
    /// By another mapping of the same memory from this address on, which the editing CPU
    /// translates: for a guest, or for a user space that does not run there.
    ByAlias(Va),
}

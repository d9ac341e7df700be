//! Whose TLB entries a tree's invalidations name.

/// Whose TLB entries belong to a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// All of the regime: a kernel's half, whose leaves are global or may be cached in every ASID,
    /// and the trees of regimes without ASIDs.
    Every,
    /// One ASID: the half of a user space, whose leaves are non-global.
    Asid(u16),
    /// The current VMID: a tree of stage 2.
    Vmid,
}

//! What a CPU executes before it uses an identifier.

/// What the CPU executes before it writes the identifier to its TTBR or VTTBR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "without it the CPU may translate by what an earlier owner of the identifier left in its TLB"]
pub enum Maintenance {
    /// Execute DSB ISH. The space may have a new identifier. An editor of its tables reads the
    /// identifier after its stores, to invalidate by it. The barrier makes the identifier visible
    /// before this CPU walks the tables, so either the editor reads it, or the walk sees the
    /// stores.
    Barrier,
    /// Invalidate the whole TLB of this CPU, then execute DSB ISH and ISB. The TLB may hold entries
    /// of the last generation. The TLBI is VMALLE1 for ASIDs, and ALLE1 at EL2 for VMIDs:
    /// VMALLS12E1 acts on one VMID only. The DSB is ISH for the same reason as in
    /// [`Barrier`](Self::Barrier).
    Invalidation,
}

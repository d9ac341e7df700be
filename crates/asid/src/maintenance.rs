//! What a CPU executes before it uses an identifier.

/// What the CPU executes before it writes the identifier to its TTBR or VTTBR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "without it the CPU may translate by what an earlier owner of the identifier left in its TLB"]
pub enum Maintenance {
    /// DSB ISH. The space may have a new identifier. Whoever edits its tables reads the identifier
    /// after the stores, to invalidate by it. So the identifier must be visible before this CPU
    /// walks the tables: either the editor sees it, or the walk sees the stores.
    Barrier,
    /// Invalidate the whole TLB of this CPU, then DSB ISH and ISB. The instruction is TLBI VMALLE1
    /// for ASIDs, and TLBI ALLE1 at EL2 for VMIDs: VMALLS12E1 is that of one VMID alone. The TLB
    /// may hold entries of the last generation.
    Invalidation,
}

//! How a payload is loaded.

use crate::kexec::allocations::Pool;

/// The options of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadOptions {
    /// Stages the payload page by page in unrelated frames, as a loader that receives it in pieces
    /// must.
    pub scattered: bool,
    /// Builds no transitional tables: the payload is moved with the MMU off.
    pub mmu_off: bool,
    /// Takes the digests that `kexec exec --verify` compares. A crash kernel always has them.
    pub digests: bool,
    /// The memory to load to. A crash kernel uses no other.
    pub pool: Pool,
}

impl LoadOptions {
    /// Whether the load takes digests.
    pub fn takes_digests(&self) -> bool {
        self.digests || self.pool == Pool::CrashKernel
    }
}

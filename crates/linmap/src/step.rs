//! The published steps of the fixmap builder.

/// A published step. Each has all the improvements of those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FixmapStep {
    /// The starting point: a leaf table is mapped once for every contiguous run of entries, and
    /// once more to be zeroed.
    Base,
    /// A table is mapped once to be written, however many runs it holds.
    NoContRemap,
    /// Page entries are stored without barriers of their own.
    BatchBarriers,
    /// A new table is zeroed and written in one use of its slot.
    NoAllocRemap,
    /// Leaf tables use several slots in turn, which are cleared together.
    LazyUnmap,
}

impl FixmapStep {
    /// Returns the name of the step in publications and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::NoContRemap => "no-cont-remap",
            Self::BatchBarriers => "batch-barriers",
            Self::NoAllocRemap => "no-alloc-remap",
            Self::LazyUnmap => "lazy-unmap",
        }
    }
}

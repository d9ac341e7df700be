//! The counts of a change.

/// What a change did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// Entries of live tables stored.
    pub entries: u64,
    /// TLBI instructions.
    pub invalidations: u64,
    /// Subtrees whose frames were freed.
    pub freed: u64,
    /// How often all CPUs parked.
    pub parked: u64,
    /// How long they were parked, in ticks of the virtual counter.
    pub paused: u64,
}

impl Changed {
    /// Returns the sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            invalidations: self.invalidations + other.invalidations,
            freed: self.freed + other.freed,
            parked: self.parked + other.parked,
            paused: self.paused + other.paused,
        }
    }
}

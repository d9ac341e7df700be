//! Who may access the range during an edit.

use linmap_vmsa::id::BbmLevel;

/// Who may access the range during the edit: a [`Target`](crate::Target) without its addresses.
// Four bytes, so that a plan has no padding, which would be copied byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Exclusivity {
    /// Any CPU, at any time.
    InUse,
    /// Any CPU, at any time. An access that faults in the break is retried.
    Retried,
    /// No CPU accesses the range.
    Quiescent,
    /// No CPU walks the tree.
    Parked,
}

impl Exclusivity {
    /// Returns whether sizes change by break-before-make.
    // nT would only add rounds where no CPU accesses the range, or where a fault is retried.
    #[inline(always)]
    pub const fn breaks_sizes(self, bbm: BbmLevel) -> bool {
        match self {
            // A conflict abort is no fault that a handler retries, so level 2 breaks as well.
            Self::Retried => !matches!(bbm, BbmLevel::L3),
            Self::Quiescent => matches!(bbm, BbmLevel::L0 | BbmLevel::L1),
            Self::InUse | Self::Parked => false,
        }
    }

    /// Returns whether runs change their attributes by break-before-make.
    #[inline(always)]
    pub const fn breaks_runs(self, bbm: BbmLevel) -> bool {
        matches!((self, bbm), (Self::Retried | Self::Quiescent, BbmLevel::L0))
    }

    /// Returns whether an entry may be invalid between two values that translate.
    #[inline(always)]
    pub const fn allows_breaks(self) -> bool {
        !matches!(self, Self::InUse)
    }

    /// Returns whether leaves may change their size below BBM level 3 without a break, where the
    /// level allows that.
    #[inline(always)]
    pub const fn allows_resizes(self) -> bool {
        matches!(self, Self::Quiescent | Self::Parked)
    }
}

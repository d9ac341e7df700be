//! The addresses that an edit is about, and who uses them while it happens.

use linmap_vmsa::VaRange;

use crate::exclusivity::Exclusivity;

/// The caller's word that nobody uses a range of addresses while it is edited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiescent {
    range: VaRange,
}

impl Quiescent {
    /// The word for `range`.
    ///
    /// # Safety
    /// From planning until the plan is applied or abandoned no CPU may access an address in the
    /// range, nor one that shares a block or a contiguous run with an address in the range: no
    /// code, no stack, no vector, no data, and no table window may lie there.
    pub const unsafe fn new(range: VaRange) -> Self {
        Self { range }
    }
}

/// The caller's word that no CPU walks the tree while the plan for a range is applied.
///
/// Planning and checking come before that, while the tree may still be in use by everybody: they
/// write nothing but new tables that nothing leads to. What is parked is only the pause in which
/// the plan is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parked {
    range: VaRange,
}

impl Parked {
    /// The word for `range`.
    ///
    /// # Safety
    /// From the first step applied to the last no CPU may have the tree in a TTBR; and when the
    /// first is applied no TLB may hold anything of it: every CPU has left the root since, by a
    /// write of the TTBR, an ISB, TLBI VMALLE1, DSB NSH and an ISB, or a stronger sequence.
    pub const unsafe fn new(range: VaRange) -> Self {
        Self { range }
    }

    /// The addresses.
    pub const fn range(self) -> VaRange {
        self.range
    }
}

/// The addresses that an edit is about, and who uses them meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// CPUs may access every address that stays mapped at any moment. Leaves change their size at
    /// BBM level 3 alone.
    InUse(VaRange),
    /// No CPU accesses the range meanwhile. Leaves change their size at every BBM level, by the
    /// procedure that it asks for.
    Quiescent(Quiescent),
    /// No CPU walks the tree meanwhile. Everything changes in place at every BBM level, and one
    /// invalidation of everything ends the plan.
    Parked(Parked),
}

impl Target {
    /// The addresses.
    pub const fn range(self) -> VaRange {
        match self {
            Self::InUse(range) => range,
            Self::Quiescent(quiescent) => quiescent.range,
            Self::Parked(parked) => parked.range,
        }
    }

    pub(crate) const fn exclusivity(self) -> Exclusivity {
        match self {
            Self::InUse(_) => Exclusivity::InUse,
            Self::Quiescent(_) => Exclusivity::Quiescent,
            Self::Parked(_) => Exclusivity::Parked,
        }
    }
}

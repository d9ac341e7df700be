//! Translation regimes: whose addresses a tree of tables translates.

use crate::id::{Mmfr1, Mmfr2};

/// A translation regime (Arm ARM D8.1.2), or stage 2 of one: whose addresses the tables translate,
/// and which registers lead to them. It decides what the bits of descriptors mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Regime {
    /// A kernel at EL1 and its user space. Two halves: TTBR0_EL1 and TTBR1_EL1.
    El1And0,
    /// A kernel at EL2 with HCR_EL2.E2H set, and its user space: the same two halves, in the
    /// registers of EL2.
    El2And0,
    /// A hypervisor at EL2 with HCR_EL2.E2H clear. One range, in TTBR0_EL2.
    El2,
    /// Firmware at EL3. One range, in TTBR0_EL3.
    El3,
    /// Stage 2 of EL1&0: a guest's intermediate physical addresses (IPAs). One range, in VTTBR_EL2,
    /// whose root may be several [concatenated tables](crate::Geometry::root_tables).
    Stage2(Stage2),
}

/// The form of stage 2 descriptors, by the features in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage2 {
    /// The guest's memory type and that of stage 2 combine to the weaker cacheability or the
    /// stricter device type, and one bit says whether the guest executes the memory.
    Base,
    /// HCR_EL2.FWB is set (FEAT_S2FWB): normal memory of stage 2 is write-back cacheable whatever
    /// the guest's memory type.
    Fwb,
    /// FEAT_XNX: EL1 and EL0 of the guest execute memory independently.
    Xnx,
    /// HCR_EL2.FWB is set, and the CPU has FEAT_XNX.
    FwbXnx,
}

impl Stage2 {
    /// Returns the form with all features of the CPU. If [`has_fwb`](Self::has_fwb) is true,
    /// HCR_EL2.FWB must be set.
    pub const fn of_cpu(mmfr1: Mmfr1, mmfr2: Mmfr2) -> Self {
        match (mmfr2.fwb(), mmfr1.xnx()) {
            (false, false) => Self::Base,
            (true, false) => Self::Fwb,
            (false, true) => Self::Xnx,
            (true, true) => Self::FwbXnx,
        }
    }

    /// Returns whether MemAttr has the form that HCR_EL2.FWB selects.
    pub const fn has_fwb(self) -> bool {
        matches!(self, Self::Fwb | Self::FwbXnx)
    }

    /// Returns whether XN has two bits: EL1 and EL0 execute memory independently.
    pub const fn has_xnx(self) -> bool {
        matches!(self, Self::Xnx | Self::FwbXnx)
    }
}

impl Regime {
    /// The regime's number, in three bits.
    // Those without user space are the last ones, and stage 2 lies beyond them.
    #[inline(always)]
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::El1And0 => 0,
            Self::El2And0 => 1,
            Self::El2 => 2,
            Self::El3 => 3,
            Self::Stage2(Stage2::Base) => 4,
            Self::Stage2(Stage2::Fwb) => 5,
            Self::Stage2(Stage2::Xnx) => 6,
            Self::Stage2(Stage2::FwbXnx) => 7,
        }
    }

    /// The regime with this number.
    #[inline(always)]
    pub(crate) const fn from_number(number: u64) -> Self {
        match number & 0b111 {
            0 => Self::El1And0,
            1 => Self::El2And0,
            2 => Self::El2,
            3 => Self::El3,
            4 => Self::Stage2(Stage2::Base),
            5 => Self::Stage2(Stage2::Fwb),
            6 => Self::Stage2(Stage2::Xnx),
            _ => Self::Stage2(Stage2::FwbXnx),
        }
    }

    /// Returns whether the regime has a lower exception level, EL0: user space, address space
    /// identifiers, and an upper half. Without it bit 54 of a leaf is XN and not UXN, `AP[1]` is 1
    /// and nG is 0 (Arm ARM D8.3.1.2).
    #[inline]
    pub const fn has_user_space(self) -> bool {
        matches!(self, Self::El1And0 | Self::El2And0)
    }

    /// Returns whether the tables are those of stage 2.
    #[inline]
    pub const fn is_stage_2(self) -> bool {
        matches!(self, Self::Stage2(_))
    }

    /// Returns the name that the architecture uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::El1And0 => "EL1&0",
            Self::El2And0 => "EL2&0",
            Self::El2 => "EL2",
            Self::El3 => "EL3",
            Self::Stage2(_) => "stage 2",
        }
    }
}

impl core::fmt::Display for Regime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

//! Translation regimes: whose addresses a tree of tables translates.

/// A stage 1 translation regime (Arm ARM D8.1.2): whose addresses the tables translate, and which
/// registers lead to them. It decides what the bits of descriptors mean.
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
}

impl Regime {
    /// Returns whether the regime has a lower exception level, EL0: user space, address space
    /// identifiers, and an upper half. Without it bit 54 of a leaf is XN and not UXN, `AP[1]` is 1
    /// and nG is 0 (Arm ARM D8.3.1.2).
    #[inline]
    pub const fn has_user_space(self) -> bool {
        matches!(self, Self::El1And0 | Self::El2And0)
    }

    /// Returns the name that the architecture uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::El1And0 => "EL1&0",
            Self::El2And0 => "EL2&0",
            Self::El2 => "EL2",
            Self::El3 => "EL3",
        }
    }
}

impl core::fmt::Display for Regime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

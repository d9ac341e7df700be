//! Translation regimes at stage 1: what one SCTLR, one TCR and one MAIR are for.

use crate::space::Space;

/// The number of regimes.
pub(crate) const REGIMES: usize = 3;

/// A translation regime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Regime {
    /// EL1&0.
    El1,
    /// EL2, or with HCR_EL2.E2H EL2&0.
    El2,
    /// EL3.
    El3,
}

impl Regime {
    /// The regime of `space`; `None` for stage 2.
    pub const fn of(space: Space) -> Option<Self> {
        match space {
            Space::Low | Space::High => Some(Self::El1),
            Space::El2 | Space::El2High => Some(Self::El2),
            Space::El3 => Some(Self::El3),
            Space::Stage2 => None,
        }
    }

    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its half at the top, if it may have one.
    pub fn upper(self) -> Option<Space> {
        self.spaces().get(1).copied()
    }

    /// Its halves.
    pub const fn spaces(self) -> &'static [Space] {
        match self {
            Self::El1 => &[Space::Low, Space::High],
            Self::El2 => &[Space::El2, Space::El2High],
            Self::El3 => &[Space::El3],
        }
    }
}

/// HCR_EL2.
pub(crate) mod hcr {
    pub const VM: u64 = 1;
    pub const TGE: u64 = 1 << 27;
    pub const E2H: u64 = 1 << 34;
}

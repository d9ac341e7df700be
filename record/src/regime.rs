//! Translation regimes, and the spaces that their base registers translate.

use linmap_trace::Register;

/// The number of regimes.
pub const REGIMES: usize = 3;

/// The number of spaces.
pub const SPACES: usize = 6;

/// The regime of a stage 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Regime {
    /// EL1&0.
    El1,
    /// EL2, or with HCR_EL2.E2H EL2&0.
    El2,
    /// EL3.
    El3,
}

impl Regime {
    pub const ALL: [Self; REGIMES] = [Self::El1, Self::El2, Self::El3];

    /// TCR, MAIR, TTBR0, TTBR1 and SCTLR, in the order in which a trace has them.
    pub const fn registers(self) -> [Option<Register>; 5] {
        use Register as Is;
        match self {
            Self::El1 => [Some(Is::Tcr), Some(Is::Mair), Some(Is::Ttbr0), Some(Is::Ttbr1), Some(Is::Sctlr)],
            Self::El2 => [
                Some(Is::TcrEl2),
                Some(Is::MairEl2),
                Some(Is::Ttbr0El2),
                Some(Is::Ttbr1El2),
                Some(Is::SctlrEl2),
            ],
            Self::El3 => [Some(Is::TcrEl3), Some(Is::MairEl3), Some(Is::Ttbr0El3), None, Some(Is::SctlrEl3)],
        }
    }
}

/// What one base register translates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// A half of stage 1: TTBR1's if `upper`.
    Half { regime: Regime, upper: bool },
    /// VTTBR_EL2's.
    Stage2,
}

impl Space {
    /// The least.
    pub const FIRST: Self = Self::Half { regime: Regime::El1, upper: false };

    pub const fn index(self) -> usize {
        match self {
            Self::Half { regime, upper } => 2 * regime as usize + upper as usize,
            Self::Stage2 => SPACES - 1,
        }
    }
}

/// The bits of HCR_EL2.
pub mod hcr {
    pub const VM: u64 = 1;
    /// Local TLBIs at EL1 are broadcast.
    pub const FB: u64 = 1 << 9;
    /// The least domain of barriers at EL1 is not NSH.
    pub const BSU: u64 = 0b11 << 10;
    /// SMC is trapped at EL1.
    pub const TSC: u64 = 1 << 19;
    /// TLBIs are trapped at EL1.
    pub const TTLB: u64 = 1 << 25;
    /// Writes of the registers of translation are trapped at EL1.
    pub const TVM: u64 = 1 << 26;
    pub const TGE: u64 = 1 << 27;
    pub const E2H: u64 = 1 << 34;
    /// Broadcast TLBIs are trapped at EL1.
    pub const TTLBIS: u64 = 1 << 54;
    /// What decides how tables are read and what a TLBI is for.
    pub const RECORDED: u64 = VM | TGE | E2H;
}

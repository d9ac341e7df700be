//! Translation regimes, and which of them an instruction concerns.

use linmap_trace::Register;

use crate::instruction::{Name, Suffix, System};
use crate::recorder::CurrentCpu;

/// The number of regimes.
pub const REGIMES: usize = 3;

/// The number of spaces.
pub const SPACES: usize = 6;

/// QEMU's names of SCTLR of each regime, of which a CPU has one.
pub const SCTLR: [[&str; 2]; REGIMES] =
    [["SCTLR_EL1", "SCTLR"], ["SCTLR_EL2", "SCTLR_EL2"], ["SCTLR_EL3", "SCTLR_EL3"]];

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

/// Where a CPU executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The exception level.
    pub el: u8,
    /// HCR_EL2; 0 without EL2.
    pub hcr: u64,
    pub has_el2: bool,
}

impl Place {
    pub fn of(own: &dyn CurrentCpu) -> Self {
        let el = own.system("CPSR").map_or(1, |pstate| (pstate >> 2 & 3) as u8);
        let hcr = own.system("HCR_EL2");
        Self { el, hcr: hcr.unwrap_or(0), has_el2: hcr.is_some() }
    }

    fn has(self, bits: u64) -> bool {
        self.hcr & bits == bits
    }

    /// Whether EL1's TLBIs are for EL2&0.
    pub fn is_host(self) -> bool {
        self.has(hcr::E2H | hcr::TGE)
    }

    /// The regime that translates what the CPU accesses.
    pub fn regime(self) -> Regime {
        match self.el {
            3 => Regime::El3,
            2 => Regime::El2,
            0 if self.is_host() => Regime::El2,
            _ => Regime::El1,
        }
    }

    /// The regime whose register an MSR of `system` writes; `None` if it is trapped or UNDEFINED.
    /// Not for HCR_EL2, VTCR_EL2 and VTTBR_EL2.
    pub fn written(self, system: System) -> Option<Regime> {
        match (system.suffix, self.el) {
            (Suffix::El1, 1) if system.name != Name::Vbar && self.has(hcr::TVM) => None,
            (Suffix::El1, 2) if self.has(hcr::E2H) => Some(Regime::El2),
            (Suffix::El1, 1..) => Some(Regime::El1),
            (Suffix::El12, 2 | 3) => self.has(hcr::E2H).then_some(Regime::El1),
            (Suffix::El2, 2 | 3) => Some(Regime::El2),
            (Suffix::El3, 3) => Some(Regime::El3),
            _ => None,
        }
    }

    /// Whether a TLBI is trapped here.
    pub fn traps_tlbi(self, broadcast: bool) -> bool {
        self.el == 1 && (self.has(hcr::TTLB) || broadcast && self.has(hcr::TTLBIS))
    }

    /// Whether a local TLBI is broadcast here.
    pub fn broadcasts(self) -> bool {
        self.el == 1 && self.has(hcr::FB)
    }

    /// Whether a DSB NSH is one of a larger domain here.
    pub fn upgrades_barriers(self) -> bool {
        self.el <= 1 && !self.is_host() && self.hcr & hcr::BSU != 0
    }

    /// Whether an SMC or HVC reaches QEMU's firmware, or EL3.
    pub fn calls_firmware(self, is_smc: bool) -> bool {
        if is_smc { self.el != 1 || !self.has(hcr::TSC) } else { !self.has_el2 }
    }
}

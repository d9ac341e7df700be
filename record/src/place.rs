//! Where a CPU executes, and so which regime an instruction concerns.

use crate::instruction::{Name, Suffix, System};
use crate::readable::Readable;
use crate::recorder::CurrentCpu;
use crate::regime::{Regime, hcr};

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
        let el = own.system(Readable::Pstate).map_or(1, |pstate| (pstate >> 2 & 3) as u8);
        let hcr = own.system(Readable::Hcr);
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

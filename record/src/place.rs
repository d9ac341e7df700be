//! Where a CPU executes, and so which regime an instruction concerns.

use linmap_trace::{Tlbi, TlbiScope};

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

/// The lowest exception level at which a TLBI of `scope` is not UNDEFINED (Arm ARM C5.5).
fn lowest_el(scope: TlbiScope) -> u8 {
    use TlbiScope as Is;
    match scope {
        Is::AllEl1
        | Is::Asid
        | Is::Va
        | Is::VaLast
        | Is::VaAnyAsid
        | Is::VaAnyAsidLast
        | Is::Range
        | Is::RangeLast
        | Is::RangeAnyAsid
        | Is::RangeAnyAsidLast => 1,
        Is::AllEl3 | Is::VaEl3 | Is::VaEl3Last | Is::RangeEl3 | Is::RangeEl3Last => 3,
        Is::AllEl2
        | Is::VaEl2
        | Is::VaEl2Last
        | Is::RangeEl2
        | Is::RangeEl2Last
        | Is::AllStages
        | Is::AllStagesVmid
        | Is::Ipa
        | Is::IpaLast
        | Is::IpaRange
        | Is::IpaRangeLast => 2,
    }
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

    /// Whether a TLBI is executed here: it is neither trapped nor UNDEFINED.
    pub fn executes_tlbi(self, tlbi: Tlbi) -> bool {
        let is_trapped = self.has(hcr::TTLB) || tlbi.broadcast && self.has(hcr::TTLBIS);
        self.el >= lowest_el(tlbi.scope) && !(self.el == 1 && is_trapped)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tlbi_below_its_exception_level_is_not_executed() {
        let executes = |el, hcr, name: &str| {
            let tlbi = Tlbi::named(name.as_bytes()).expect("a TLBI");
            Place { el, hcr, has_el2: true }.executes_tlbi(tlbi)
        };
        for (name, lowest) in
            [("vmalle1is", 1), ("rvale1", 1), ("alle1is", 2), ("ipas2e1", 2), ("vae2is", 2), ("vae3", 3)]
        {
            for el in 0..=3 {
                assert_eq!(executes(el, 0, name), el >= lowest, "{name} at EL{el}");
            }
        }
        assert!(!executes(1, hcr::TTLB, "vmalle1") && executes(2, hcr::TTLB, "vmalle1"));
        assert!(!executes(1, hcr::TTLBIS, "vmalle1is") && executes(1, hcr::TTLBIS, "vmalle1"));
    }
}

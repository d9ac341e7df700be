//! The regimes of a board's CPUs: which instructions mean what.

use linmap_table::cpu::Tlbi;
use linmap_trace::{Register, TlbiScope};
use linmap_vmsa::tlbi::{RangeOperand, VaOperand};

/// The regime that a [`BoardCpu`](crate::BoardCpu) acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BoardRegime {
    /// EL1&0.
    #[default]
    El1And0,
    /// EL2 with one range of addresses.
    El2,
    /// EL3.
    El3,
    /// Stage 2 of the guest whose VMID is in VTTBR.
    Stage2,
}

impl BoardRegime {
    /// The register that holds the root of the lower half.
    pub(crate) const fn root(self) -> Register {
        match self {
            Self::El1And0 => Register::Ttbr0,
            Self::El2 => Register::Ttbr0El2,
            Self::El3 => Register::Ttbr0El3,
            Self::Stage2 => Register::Vttbr,
        }
    }

    /// The instruction that `tlbi` is: what it invalidates, whether on all CPUs, and its operand.
    pub(crate) fn instruction(self, tlbi: Tlbi) -> (TlbiScope, bool, u64) {
        use TlbiScope as Scope;
        let of = |el1, [el2, el3, stage2]: [Scope; 3]| match self {
            Self::El1And0 => el1,
            Self::El2 => el2,
            Self::El3 => el3,
            Self::Stage2 => stage2,
        };
        let every = of(Scope::AllEl1, [Scope::AllEl2, Scope::AllEl3, Scope::AllStagesVmid]);
        let asid_field = if self == Self::El1And0 { u64::MAX } else { u64::MAX >> 16 };
        let va = |operand: VaOperand, el1| {
            let scope = of(el1, [Scope::VaEl2, Scope::VaEl3, Scope::Ipa]);
            (scope, true, operand.0 & asid_field)
        };
        let last = |operand: VaOperand, el1| {
            let scope = of(el1, [Scope::VaEl2Last, Scope::VaEl3Last, Scope::IpaLast]);
            (scope, true, operand.0 & asid_field)
        };
        let range = |operand: RangeOperand, el1| {
            let scope = of(el1, [Scope::RangeEl2, Scope::RangeEl3, Scope::IpaRange]);
            (scope, true, operand.0 & asid_field)
        };
        let last_range = |operand: RangeOperand, el1| {
            let scope = of(el1, [Scope::RangeEl2Last, Scope::RangeEl3Last, Scope::IpaRangeLast]);
            (scope, true, operand.0 & asid_field)
        };
        match tlbi {
            Tlbi::ByVa(operand) => va(operand, Scope::VaAnyAsid),
            Tlbi::LastLevelByVa(operand) => last(operand, Scope::VaAnyAsidLast),
            Tlbi::ByRange(operand) => range(operand, Scope::RangeAnyAsid),
            Tlbi::LastLevelByRange(operand) => last_range(operand, Scope::RangeAnyAsidLast),
            Tlbi::All => (every, true, 0),
            Tlbi::AllLocal => (every, false, 0),
            Tlbi::ByVaInAsid(operand) => va(operand, Scope::Va),
            Tlbi::LastLevelByVaInAsid(operand) => last(operand, Scope::VaLast),
            Tlbi::ByRangeInAsid(operand) => range(operand, Scope::Range),
            Tlbi::LastLevelByRangeInAsid(operand) => last_range(operand, Scope::RangeLast),
            Tlbi::Asid(asid) if self == Self::El1And0 => (Scope::Asid, true, u64::from(asid) << 48),
            Tlbi::Asid(_) => (every, true, 0),
            Tlbi::Stage1 => (of(Scope::AllEl1, [every, every, Scope::AllEl1]), true, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Va;

    fn scope(regime: BoardRegime, tlbi: Tlbi) -> TlbiScope {
        regime.instruction(tlbi).0
    }

    #[test]
    fn one_invalidation_is_another_instruction_in_each_regime() {
        let by_va = Tlbi::ByVa(VaOperand::any_asid(Va(0x4000)));
        assert_eq!(scope(BoardRegime::El1And0, by_va), TlbiScope::VaAnyAsid);
        assert_eq!(scope(BoardRegime::El2, by_va), TlbiScope::VaEl2);
        assert_eq!(scope(BoardRegime::El3, by_va), TlbiScope::VaEl3);
        assert_eq!(scope(BoardRegime::Stage2, by_va), TlbiScope::Ipa);
        assert_eq!(scope(BoardRegime::Stage2, Tlbi::All), TlbiScope::AllStagesVmid);
        assert_eq!(scope(BoardRegime::Stage2, Tlbi::Stage1), TlbiScope::AllEl1);
        assert_eq!(scope(BoardRegime::El1And0, Tlbi::Asid(3)), TlbiScope::Asid);
        assert_eq!(scope(BoardRegime::El2, Tlbi::Asid(3)), TlbiScope::AllEl2, "EL2 has no ASIDs");
    }

    #[test]
    fn the_asid_stands_above_the_address() {
        let operand = VaOperand::in_asid(Va(0x4000), 7);
        let asid = |regime: BoardRegime| regime.instruction(Tlbi::ByVaInAsid(operand)).2 >> 48;
        assert_eq!(asid(BoardRegime::El1And0), 7);
        assert_eq!(asid(BoardRegime::El2), 0, "the field is reserved there");
    }
}

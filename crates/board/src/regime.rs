//! The regimes of a board's CPUs: which instructions mean what.

use linmap_table::cpu::Tlbi;
use linmap_trace::{Register, TlbiScope};
use linmap_vmsa::Va;
use linmap_vmsa::tlbi::{RangeOperand, VaOperand};

/// The regime that a [`BoardCpu`](crate::BoardCpu) acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BoardRegime {
    /// EL1&0.
    #[default]
    El1And0,
    /// EL2 with one range of addresses. It stands for EL3 too, which has the same structure.
    El2,
    /// Stage 2 of the guest whose VMID is in VTTBR.
    Stage2,
}

impl BoardRegime {
    /// The register that holds the root of the lower half.
    pub(crate) const fn root(self) -> Register {
        match self {
            Self::El1And0 => Register::Ttbr0,
            Self::El2 => Register::Ttbr0El2,
            Self::Stage2 => Register::Vttbr,
        }
    }

    /// The instructions that `tlbi` is for the model: what each invalidates, whether on all CPUs,
    /// and its operand. The model has no ranges outside of EL1&0: there a range is one instruction
    /// for each of its pages of `1 << page_shift` bytes.
    pub(crate) fn instructions(self, tlbi: Tlbi, page_shift: u32) -> Vec<(TlbiScope, bool, u64)> {
        use TlbiScope as Scope;
        let of = |el1, el2, stage2| match self {
            Self::El1And0 => el1,
            Self::El2 => el2,
            Self::Stage2 => stage2,
        };
        let every = of(Scope::AllEl1, Scope::AllEl2, Scope::AllStagesVmid);
        let va = |operand: VaOperand, el1, last| {
            let operand = if self == Self::El1And0 { operand } else { operand.without_asid() };
            let el2 = if last { Scope::VaEl2Last } else { Scope::VaEl2 };
            vec![(of(el1, el2, Scope::Ipa), true, operand.0)]
        };
        let range = |operand: RangeOperand, el1, last| {
            if self == Self::El1And0 {
                return vec![(el1, true, operand.0)];
            }
            let (num, scale) = (operand.0 >> 39 & 0x1f, operand.0 >> 44 & 3);
            let first = (operand.0 & 0x1f_ffff_ffff) << page_shift;
            let el2 = if last { Scope::VaEl2Last } else { Scope::VaEl2 };
            let page = |nth| VaOperand::any_asid(Va(first + (nth << page_shift))).0;
            let pages = 0..(num + 1) << (5 * scale + 1);
            pages.map(|nth| (of(el1, el2, Scope::Ipa), true, page(nth))).collect()
        };
        match tlbi {
            Tlbi::ByVa(operand) => va(operand, Scope::VaAnyAsid, false),
            Tlbi::LastLevelByVa(operand) => va(operand, Scope::VaAnyAsidLast, true),
            Tlbi::ByRange(operand) => range(operand, Scope::RangeAnyAsid, false),
            Tlbi::LastLevelByRange(operand) => range(operand, Scope::RangeAnyAsidLast, true),
            Tlbi::All => vec![(every, true, 0)],
            Tlbi::AllLocal => vec![(every, false, 0)],
            Tlbi::ByVaInAsid(operand) => va(operand, Scope::Va, false),
            Tlbi::LastLevelByVaInAsid(operand) => va(operand, Scope::VaLast, true),
            Tlbi::ByRangeInAsid(operand) => range(operand, Scope::Range, false),
            Tlbi::LastLevelByRangeInAsid(operand) => range(operand, Scope::RangeLast, true),
            Tlbi::Asid(asid) if self == Self::El1And0 => vec![(Scope::Asid, true, u64::from(asid) << 48)],
            Tlbi::Asid(_) => vec![(every, true, 0)],
            Tlbi::Stage1 => vec![(of(Scope::AllEl1, Scope::AllEl2, Scope::AllEl1), true, 0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Geometry;

    fn scopes(regime: BoardRegime, tlbi: Tlbi) -> Vec<TlbiScope> {
        regime.instructions(tlbi, 12).into_iter().map(|(scope, ..)| scope).collect()
    }

    #[test]
    fn one_invalidation_is_another_instruction_in_each_regime() {
        let by_va = Tlbi::ByVa(VaOperand::any_asid(Va(0x4000)));
        assert_eq!(scopes(BoardRegime::El1And0, by_va), [TlbiScope::VaAnyAsid]);
        assert_eq!(scopes(BoardRegime::El2, by_va), [TlbiScope::VaEl2]);
        assert_eq!(scopes(BoardRegime::Stage2, by_va), [TlbiScope::Ipa]);
        assert_eq!(scopes(BoardRegime::Stage2, Tlbi::All), [TlbiScope::AllStagesVmid]);
        assert_eq!(scopes(BoardRegime::Stage2, Tlbi::Stage1), [TlbiScope::AllEl1]);
        assert_eq!(scopes(BoardRegime::El1And0, Tlbi::Asid(3)), [TlbiScope::Asid]);
        assert_eq!(scopes(BoardRegime::El2, Tlbi::Asid(3)), [TlbiScope::AllEl2], "EL2 has no ASIDs");
    }

    #[test]
    fn the_asid_stands_above_the_address() {
        let operand = VaOperand::in_asid(Va(0x4000), 7);
        let asid = |regime: BoardRegime| regime.instructions(Tlbi::ByVaInAsid(operand), 12)[0].2 >> 48;
        assert_eq!(asid(BoardRegime::El1And0), 7);
        assert_eq!(asid(BoardRegime::El2), 0, "the field is reserved there");
    }

    #[test]
    fn a_range_names_every_page_where_the_model_has_no_ranges() {
        let (operand, pages) = RangeOperand::any_asid(Geometry::K4_48, Va(0x4000), 6).unwrap();
        let named = BoardRegime::El2.instructions(Tlbi::ByRange(operand), 12);
        let addresses: Vec<u64> = named.iter().map(|(_, _, operand)| operand << 12).collect();
        assert_eq!(addresses, (0..pages).map(|nth| 0x4000 + (nth << 12)).collect::<Vec<_>>());
    }
}

//! The registers that the recorder reads of the CPU that executes.

use crate::regime::{REGIMES, Regime};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readable {
    Pstate,
    Sp,
    Hcr,
    Dczid,
    Mmfr0,
    Mmfr2,
    Sctlr(Regime),
    Elr(Regime),
    Spsr(Regime),
}

impl Readable {
    /// How many there are.
    pub const COUNT: usize = 15;

    /// All of them, by number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Pstate,
        Self::Sp,
        Self::Hcr,
        Self::Dczid,
        Self::Mmfr0,
        Self::Mmfr2,
        Self::Sctlr(Regime::El1),
        Self::Sctlr(Regime::El2),
        Self::Sctlr(Regime::El3),
        Self::Elr(Regime::El1),
        Self::Elr(Regime::El2),
        Self::Elr(Regime::El3),
        Self::Spsr(Regime::El1),
        Self::Spsr(Regime::El2),
        Self::Spsr(Regime::El3),
    ];

    /// A number for each, from 0.
    pub const fn number(self) -> usize {
        match self {
            Self::Pstate => 0,
            Self::Sp => 1,
            Self::Hcr => 2,
            Self::Dczid => 3,
            Self::Mmfr0 => 4,
            Self::Mmfr2 => 5,
            Self::Sctlr(regime) => 6 + regime as usize,
            Self::Elr(regime) => 6 + REGIMES + regime as usize,
            Self::Spsr(regime) => 6 + 2 * REGIMES + regime as usize,
        }
    }

    /// QEMU's names of it, of which a CPU has one.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Pstate => &["CPSR"],
            Self::Sp => &["SP"],
            Self::Hcr => &["HCR_EL2"],
            Self::Dczid => &["DCZID_EL0"],
            Self::Mmfr0 => &["ID_AA64MMFR0_EL1"],
            Self::Mmfr2 => &["ID_AA64MMFR2_EL1"],
            Self::Sctlr(Regime::El1) => &["SCTLR_EL1", "SCTLR"],
            Self::Sctlr(Regime::El2) => &["SCTLR_EL2"],
            Self::Sctlr(Regime::El3) => &["SCTLR_EL3"],
            Self::Elr(Regime::El1) => &["ELR_EL1"],
            Self::Elr(Regime::El2) => &["ELR_EL2"],
            Self::Elr(Regime::El3) => &["ELR_EL3"],
            Self::Spsr(Regime::El1) => &["SPSR_EL1"],
            Self::Spsr(Regime::El2) => &["SPSR_EL2"],
            Self::Spsr(Regime::El3) => &["SPSR_EL3"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_has_its_own_number() {
        assert!(Readable::ALL.iter().enumerate().all(|(number, of)| of.number() == number));
    }
}

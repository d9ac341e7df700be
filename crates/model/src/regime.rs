//! Translation regimes at stage 1: what one SCTLR, one TCR and one MAIR are for.

use crate::machine::Machine;
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

impl Machine {
    /// Whether EL1's TLBIs of `cpu` are for EL2&0: under HCR_EL2.{E2H, TGE} = {1, 1}.
    pub(crate) fn is_host(&self, cpu: usize) -> bool {
        const BOTH: u64 = hcr::E2H | hcr::TGE;
        self.cpus.get(cpu).and_then(|cpu| cpu.hcr).is_some_and(|hcr| hcr & BOTH == BOTH)
    }

    /// Whether the MMU of `cpu` is off for `space`: stage 1 by SCTLR.M, stage 2 by HCR_EL2.VM.
    /// What was never written counts as on.
    pub(crate) fn is_off(&self, cpu: usize, space: Space) -> bool {
        let cpu = &self.cpus[cpu];
        match Regime::of(space) {
            Some(regime) => cpu.mmu_off[regime.index()],
            None => cpu.hcr.is_some_and(|hcr| hcr & hcr::VM == 0),
        }
    }

    /// Whether `cpu` can use nothing of `space`, whatever it holds: its MMU is off there, and its
    /// context was synchronized since.
    pub(crate) fn is_asleep(&self, cpu: usize, space: Space) -> bool {
        let walks = &self.cpus[cpu].walks[space.index()];
        space != Space::Stage2
            && self.is_off(cpu, space)
            && walks.iter().all(|root| self.roots[*root as usize].table == crate::machine::NO_TABLE)
    }
}

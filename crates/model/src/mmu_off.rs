//! What HCR_EL2 and SCTLR of a CPU say of its regimes.

use crate::machine::{Machine, NO_TABLE};
use crate::regime::{Regime, hcr};
use crate::space::Space;

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
            && walks.iter().all(|root| self.roots[*root as usize].table == NO_TABLE)
    }
}

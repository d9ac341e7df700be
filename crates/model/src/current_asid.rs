//! The ASIDs that CPUs use trees of the upper half with.

use crate::machine::{Check, Machine};
use crate::regime::Regime;
use crate::tcr::Tcr;

impl Machine {
    /// Whether what is not global in the trees of both roots may be used with one identifier.
    pub(crate) fn share_id(&self, one: u32, other: u32) -> bool {
        let [first, second] = [one, other].map(|root| self.roots[root as usize]);
        if one != other && first.space == second.space && first.space.is_upper() {
            return self.upper_asids.are_common(one, other);
        }
        first.id == second.id
    }

    /// The ASID that `cpu` uses the trees of `regime` with; `None` if a register that says so is
    /// not known.
    fn current_asid(&self, cpu: usize, regime: Regime) -> Option<u16> {
        let state = &self.cpus[cpu];
        let tcr = state.tcr[regime.index()]?;
        let named = regime.spaces().get(usize::from(tcr.names_by_ttbr1()))?;
        let asid = (state.bases[named.index()]? >> 48) as u16;
        Some(if tcr.has_wide_ids() { asid } else { asid & 0xff })
    }

    /// Notes that `cpu` may use the upper tree of `root` with its ASID as it is now, and checks the
    /// tree against those that may have the ASID as well.
    pub(crate) fn use_with_asid(&mut self, cpu: usize, root: u32) -> Check {
        let space = self.roots[root as usize].space;
        let asid = Regime::of(space).and_then(|regime| self.current_asid(cpu, regime));
        if self.upper_asids.add(root, asid) && !self.is_off(cpu, space) {
            for other in self.beside(cpu, space, root) {
                self.check_roots(other, root).map_err(|violation| violation.on_cpu(cpu))?;
            }
        }
        Ok(())
    }

    /// `cpu` uses its upper trees with another ASID, that of TTBR0.
    pub(crate) fn rename_upper(&mut self, cpu: usize, regime: Regime) -> Check {
        let Some(upper) = regime.upper() else { return Ok(()) };
        if self.cpus[cpu].tcr[regime.index()].is_none_or(Tcr::names_by_ttbr1) {
            return Ok(());
        }
        let walks = self.cpus[cpu].walks[upper.index()].clone();
        walks.into_iter().try_for_each(|root| self.use_with_asid(cpu, root))
    }

    /// All of `regime` was invalidated on the CPUs `reached`. Trees that no other CPU holds, and
    /// that none of these left since, have no ASIDs but the current ones.
    pub(crate) fn forget_asids(&mut self, regime: Regime, reached: u64) {
        let Some(upper) = regime.upper() else { return };
        let at = upper.index();
        let is_kept = |root: u32| {
            self.roots[root as usize].space != upper
                || self.roots[root as usize].cpus & !reached != 0
                || self.cpus.iter().any(|cpu| {
                    let before = cpu.walks[at].split_last().map_or(&[][..], |(_, before)| before);
                    before.contains(&root) || cpu.left[at].iter().any(|left| left.root == root)
                })
        };
        self.upper_asids.retain(is_kept);
        for cpu in 0..self.cpus.len() {
            if let Some(&root) = self.cpus[cpu].walks[at].last() {
                let asid = self.current_asid(cpu, regime);
                self.upper_asids.add(root, asid);
            }
        }
    }
}

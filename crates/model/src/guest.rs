//! The VMID of EL1's translations.
//!
//! TLB entries of EL1&0 have the VMID that was current. The model records none with them, so all
//! CPUs with tables of EL1 have one VMID, or no stage 2 at all.

use crate::machine::{Check, Machine};
use crate::rules::Rule;
use crate::scope::Scope;
use crate::space::Space;
use crate::violation::Violation;

impl Machine {
    /// Whether `cpu` walks or may hold anything of EL1.
    pub(crate) fn has_el1(&self, cpu: usize) -> bool {
        [Space::Low, Space::High].iter().any(|space| !self.has_nothing_in(cpu, *space))
    }

    /// The VMIDs that may be current on `cpu`.
    fn vmids(&self, cpu: usize) -> impl Iterator<Item = u16> {
        self.cpus[cpu].walks[Space::Stage2.index()].iter().map(|root| self.roots[*root as usize].id)
    }

    /// Whether any CPU has stage 2.
    fn has_guests(&self) -> bool {
        self.cpus.iter().any(|cpu| !cpu.walks[Space::Stage2.index()].is_empty())
    }

    /// Checks that all CPUs with tables of EL1 have one VMID.
    pub(crate) fn check_one_guest(&self) -> Check {
        if !self.has_guests() {
            return Ok(());
        }
        let mut guest = None;
        for cpu in (0..self.cpus.len()).filter(|cpu| self.has_el1(*cpu)) {
            let mut vmids = self.vmids(cpu).map(Some).chain(self.vmids(cpu).next().is_none().then_some(None));
            if !vmids.all(|vmid| *guest.get_or_insert(vmid) == vmid) {
                return Err(Violation::new(Rule::Unmodelled).on_cpu(cpu));
            }
        }
        Ok(())
    }

    /// Whether EL1's entries have the VMID that `scope` reaches.
    pub(crate) fn is_of_guest(&self, scope: &Scope) -> bool {
        let of = |cpu: usize| !self.has_el1(cpu) || self.vmids(cpu).all(|vmid| Some(vmid) == scope.vmid);
        scope.all_vmids || !self.has_guests() || (0..self.cpus.len()).all(of)
    }
}

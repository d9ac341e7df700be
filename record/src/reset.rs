//! A guest that is reset: what it had is forgotten.

use linmap_trace::{Access, Domain, Event, Tlbi, TlbiScope};

use crate::cpu::Registers;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, Recorder};
use crate::regime::Regime;

/// Whether all of a CPU's MMUs are off.
pub(crate) fn has_no_mmu(own: &dyn CurrentCpu) -> bool {
    let is_off = |regime| own.system(Readable::Sctlr(regime)).is_none_or(|now| now & 1 == 0);
    Regime::ALL.into_iter().all(is_off)
}

impl Recorder {
    /// A CPU asks its firmware to reset the machine. Until anything is executed behind that,
    /// nothing has changed: QEMU may end instead.
    pub(crate) fn asks_for_reset(&mut self, pc: u64) {
        self.compare_all();
        self.asked_for_reset = Some(pc);
    }

    /// Whether `cpu` was reset: its MMU is off, and no instruction turned it off.
    pub(crate) fn is_reset(&self, cpu: usize, own: &dyn CurrentCpu) -> bool {
        let is_off = |regime| {
            self.cpus[cpu].registers.of(regime).has_mmu()
                && own.system(Readable::Sctlr(regime)).is_some_and(|now| now & 1 == 0)
        };
        self.started.is_some() && Regime::ALL.into_iter().any(is_off)
    }

    /// The machine was reset, as `cpu` shows before it executes the instruction at `pc`. Every MMU
    /// is off, TLBs hold nothing, and no table is one any more.
    pub(crate) fn reset(&mut self, cpu: usize, pc: u64) {
        self.note("the guest was reset: its tables are read anew when it turns an MMU on");
        self.unseen = None;
        self.touched.clear();
        self.log.clear();
        self.released.clear();
        self.editing.clear();
        self.give_up_all();
        for other in 0..self.cpus.len() {
            self.left(other, pc);
            let state = &mut self.cpus[other];
            state.registers = Registers::default();
            state.roots = Default::default();
            state.exceptions = Default::default();
            state.is_aarch32 = false;
            state.zeroed = None;
            state.has_stores = false;
            state.has_stores_since_dmb = false;
            state.has_tlbis = false;
            state.has_edits = false;
            state.has_broadcast_tlbis = false;
            state.has_full_tlbis = false;
            state.broken.clear();
            state.loaded.clear();
            // Should it execute with its MMU on after all, it was not reset.
            state.is_leaving = true;
            state.dsbs += 1;
            state.releases.dsb();
            self.is_privileged(other);
        }
        for scope in [TlbiScope::AllStages, TlbiScope::AllEl2, TlbiScope::AllEl3] {
            self.put(Event::Tlbi { cpu, tlbi: Tlbi { scope, broadcast: true }, operand: 0 }, None);
        }
        self.put(Event::Dsb { cpu, domain: Domain::Sy, access: Access::All }, None);
        self.put(Event::Isb { cpu }, None);
        self.leave_unlinked(self.events);
    }
}

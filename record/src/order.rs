//! What orders stores without a DSB: DMB, and locks, which pass order on from CPU to CPU.

use std::sync::atomic::{AtomicU64, Ordering};

use linmap_trace::{Access, Domain, Event};

use crate::recorder::{CurrentCpu, Recorder};
use crate::waiting::Released;

/// The CPUs of the first 64 that execute at EL0, by an ERET, until something shows that they don't.
pub static AT_EL0: AtomicU64 = AtomicU64::new(0);

/// The bit of a CPU in [`AT_EL0`].
pub fn bit(cpu: usize) -> u64 {
    1_u64.checked_shl(cpu as u32).unwrap_or(0)
}

/// The most words of which is known who released them.
const MOST_RELEASED: usize = 1 << 16;

impl Recorder {
    /// A DMB. It is recorded if it orders recorded stores.
    pub(crate) fn dmb(&mut self, cpu: usize, pc: u64, domain: Domain, access: Access) {
        // One for the CPU itself orders nothing for another, so the next still has to.
        let is_alone = domain == Domain::Nsh && self.cpus.len() > 1;
        if self.started.is_none() || access == Access::Loads || is_alone {
            return;
        }
        self.settle_unseen(None);
        self.log.dmb(cpu);
        if std::mem::take(&mut self.cpus[cpu].has_stores_since_dmb) {
            self.put(Event::Dmb { cpu, domain, access }, Some(pc));
        }
    }

    /// `cpu` stores to a word with release.
    pub fn release(&mut self, cpu: usize, pa: u64) {
        if self.released.len() >= MOST_RELEASED {
            let cpus = &self.cpus;
            self.released.retain(|_, of| of.dsbs == cpus[of.cpu].dsbs);
            if self.released.len() >= MOST_RELEASED / 2 {
                self.released.clear();
            }
        }
        self.settle_unseen(None);
        self.released.insert(pa & !7, Released { cpu, dsbs: self.cpus[cpu].dsbs });
    }

    /// `cpu` loads from a word with acquire. If another CPU released it and has stores that no DSB
    /// has ordered, both are recorded, the release as late as this.
    pub fn acquire(&mut self, cpu: usize, pc: u64, pa: u64) {
        let pa = pa & !7;
        let Some(Released { cpu: from, dsbs }) = self.released.get(&pa).copied() else { return };
        if from == cpu || dsbs != self.cpus[from].dsbs {
            return;
        }
        self.log.pass(from, cpu);
        let stores = self.cpus[from].stores;
        if self.cpus[from].has_stores && self.cpus[cpu].known.insert(from, stores) != Some(stores) {
            self.put(Event::Release { cpu: from, pa }, None);
            self.put(Event::Acquire { cpu, pa }, Some(pc));
            // What it passes on and what its DSB orders has grown.
            self.has_stored(cpu);
        }
    }

    /// An ERET is about to be executed at exception level `el`.
    pub(crate) fn returns(&self, cpu: usize, el: u8, own: &dyn CurrentCpu) {
        let name = match el {
            2 => "SPSR_EL2",
            3 => "SPSR_EL3",
            _ => "SPSR_EL1",
        };
        if own.system(name).is_some_and(|spsr| spsr & 0xf == 0) {
            AT_EL0.fetch_or(bit(cpu), Ordering::Relaxed);
        } else {
            self.is_privileged(cpu);
        }
    }

    /// `cpu` executes what EL0 can't.
    pub(crate) fn is_privileged(&self, cpu: usize) {
        AT_EL0.fetch_and(!bit(cpu), Ordering::Relaxed);
    }
}

//! DMB, store-release and load-acquire, and what a DSB orders of other CPUs' stores.

use linmap_trace::{Access, Domain};

use crate::config::Leniency;
use crate::machine::Machine;

impl Machine {
    /// What a DMB orders, or a DSB besides what it completes.
    pub(crate) fn dmb(&mut self, cpu: usize, domain: Domain, access: Access) {
        if domain == Domain::Nsh && self.cpus.len() > 1 {
            return;
        }
        if access != Access::Loads {
            self.passed.known[cpu][cpu] = self.memory.end_epoch(cpu);
        }
    }

    /// A store-release: what the CPU did or knows of is ordered before it.
    pub(crate) fn store_release(&mut self, cpu: usize, pa: u64) {
        self.passed.any = true;
        let epoch = self.memory.end_epoch(cpu);
        self.passed.release(cpu, epoch, pa);
    }

    /// A load-acquire: what was released to the word is ordered before what follows.
    pub(crate) fn load_acquire(&mut self, cpu: usize, pa: u64) {
        self.passed.acquire(cpu, pa);
    }

    /// The stores of other CPUs that a DSB of `cpu` orders: by whom, and before which epoch.
    pub(crate) fn ordered_for_others(&mut self, cpu: usize, access: Access) -> Vec<(usize, u32)> {
        // DSB ST waits for the CPU's own stores. What it acquired was complete before.
        if !self.passed.any || (access == Access::Stores && self.config.leniency == Leniency::Strict) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for other in (0..self.cpus.len()).filter(|other| *other != cpu) {
            let until = self.passed.known[cpu][other];
            if until > self.passed.done[other] {
                self.passed.done[other] = until;
                found.push((other, until));
            }
        }
        found
    }
}

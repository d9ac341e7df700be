//! What a CPU itself needs mapped while it edits: the code that it executes, and its stack.
//!
//! No software says so, but a CPU that has made an entry invalid fetches its next instruction, and
//! an exception at any moment stores to its stack. So where a DSB has ordered a break, and the
//! broken entry is on the walk for PC or SP, the trace has an access, which the model refuses. A
//! switch to an identity map, or of the base register, takes the entries off those walks.

use linmap_trace::{Event, Use};

use crate::place::Place;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, Recorder};
use crate::regime::{Regime, Space};

/// The most broken entries that are remembered until the next DSB: the last ones.
const MOST: usize = 64;

impl Recorder {
    /// `cpu` has made the entry at `pa` invalid.
    pub(crate) fn note_broken(&mut self, cpu: usize, pa: u64) {
        if let Some(cpu) = self.cpus.get_mut(cpu) {
            if cpu.broken.len() == MOST {
                cpu.broken.remove(0);
            }
            cpu.broken.push(pa);
        }
    }

    /// A DSB of `cpu` at `pc` has ordered what it broke.
    pub(crate) fn rely_on_own(&mut self, cpu: usize, pc: u64, own: &dyn CurrentCpu) {
        let broken = std::mem::take(&mut self.cpus[cpu].broken);
        if broken.is_empty() {
            return;
        }
        let el = Place::of(own).el;
        let Some(&regime) = Regime::ALL.get(usize::from(el).wrapping_sub(1)) else { return };
        let needs = [(Some(pc), Use::Execute), (own.system(Readable::Sp), Use::Write)];
        for (va, kind) in needs.into_iter().filter_map(|(va, kind)| Some((va?, kind))) {
            if self.invalid_entry(cpu, va, regime).is_some_and(|pa| broken.contains(&pa)) {
                self.put(Event::Access { cpu, va, kind, pa: 0 }, Some(pc));
            }
        }
    }

    /// The invalid entry that ends a walk for `va`.
    fn invalid_entry(&self, cpu: usize, va: u64, regime: Regime) -> Option<u64> {
        let registers = self.cpus[cpu].registers;
        if !registers.of(regime).has_mmu() {
            return None;
        }
        let upper = registers.has_halves(regime) && va >> 55 & 1 == 1;
        let space = Space::Half { regime, upper };
        let shape = registers.shape(space)?;
        let mut table = shape.root(registers.base(space));
        let mut entries = shape.root_entries() as u64;
        for level in shape.start..=3 {
            let pa = table + 8 * (va >> shape.shift(level) & (entries - 1));
            let descriptor = self.word(pa)?;
            if descriptor & 1 == 0 {
                return Some(pa);
            }
            (table, entries) = (shape.table(level, descriptor)?, shape.entries() as u64);
        }
        None
    }
}

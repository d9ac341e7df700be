//! Addresses by the tables in memory: for instructions that raise no callback for what they store,
//! and for accesses of which QEMU can't be asked.

use crate::place::Place;
use crate::recorder::{CurrentCpu, Recorder};
use crate::regime::{Regime, Space};

impl Recorder {
    /// Whether `va` leads to something that is not RAM.
    pub fn leaves_ram(&self, cpu: usize, va: u64, own: &dyn CurrentCpu) -> bool {
        let Some(started) = &self.started else { return false };
        let page = self.translate(cpu, va, Place::of(own).regime());
        page.is_some_and(|page| !started.memory.holds(page, 0x1000))
    }

    /// The page of 4 KiB that `va` is on. `None` if no walk leads to one.
    pub(crate) fn translate(&self, cpu: usize, va: u64, regime: Regime) -> Option<u64> {
        let registers = &self.cpus[cpu].registers;
        let ipa = if registers.of(regime).has_mmu() {
            let upper = registers.has_halves(regime) && va >> 55 & 1 == 1;
            let is_nested = regime == Regime::El1;
            self.walked(cpu, Space::Half { regime, upper }, va, is_nested)?
        } else {
            va
        };
        let page = if regime == Regime::El1 { self.behind_stage2(cpu, ipa)? } else { ipa };
        Some(page & !0xfff)
    }

    /// What stage 2 makes of an address, if it is on.
    fn behind_stage2(&self, cpu: usize, ipa: u64) -> Option<u64> {
        match self.cpus[cpu].registers.shape(Space::Stage2) {
            Some(_) => self.walked(cpu, Space::Stage2, ipa, false),
            None => Some(ipa),
        }
    }

    /// What the tables of `space` make of `va`. If it `is_nested`, they lie behind stage 2.
    fn walked(&self, cpu: usize, space: Space, va: u64, is_nested: bool) -> Option<u64> {
        let registers = &self.cpus[cpu].registers;
        let shape = registers.shape(space)?;
        let mut table = shape.root(registers.base(space));
        let mut entries = shape.root_entries() as u64;
        for level in shape.start..=3 {
            let shift = shape.shift(level);
            let entry = table + 8 * (va >> shift & (entries - 1));
            let entry = if is_nested { self.behind_stage2(cpu, entry)? } else { entry };
            let descriptor = self.word(entry)?;
            match shape.table(level, descriptor) {
                Some(next) => (table, entries) = (next, shape.entries() as u64),
                None if descriptor & 1 == 0 => return None,
                None => {
                    let below = (1 << shift) - 1;
                    return Some(shape.address(descriptor) & !below | va & below);
                }
            }
        }
        None
    }
}

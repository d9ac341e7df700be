//! Updates by hardware of leaves that can be walked (Arm ARM D8.5).
//!
//! With TCR.HA a walker may set the access flag of a leaf at any time, and with HD make a leaf with
//! DBM writable. So such a leaf is walked and held as updated. An atomic read-modify-write learns
//! of the update; a plain store would lose it. The model takes the update as done when the entry is
//! overwritten: an older TLB entry that says so is the one that may be held. A compare-exchange
//! that found the leaf as it was proves that no TLB holds it as updated.

use crate::descriptor::{CONTIGUOUS, Entry, updated};
use crate::machine::{Check, Machine, Root};
use crate::rules::Rule;
use crate::violation::Violation;

impl Machine {
    /// What hardware may have made of the entry at `pa`, after the address it translates, if it may
    /// have updated it. An entry of two regimes that disagree about updates is not modelled.
    fn hardware_updated(&self, pa: u64) -> Check<Option<(u64, u64)>> {
        let Some(value) = self.memory.newest(pa) else { return Ok(None) };
        let (mut found, mut differ) = (None, false);
        self.each_place(pa, |place| {
            let Root { shape, space, .. } = self.roots[place.root as usize];
            if let Entry::Leaf(_) = self.entry(place, value) {
                let updated = (place.va, updated(shape, space, value));
                differ |= found.is_some_and(|(_, other)| other != updated.1);
                found = Some(updated);
            }
        });
        match found {
            Some((va, _)) if differ => Err(Violation::new(Rule::Unmodelled).at_va(va).at_pa(pa)),
            found => Ok(found.filter(|(_, updated)| *updated != value)),
        }
    }

    /// Checks that a plain store to `pa` loses no update.
    pub(crate) fn check_no_update_lost(&self, pa: u64) -> Check {
        match self.hardware_updated(pa)? {
            Some((va, updated)) => {
                let value = self.memory.newest(pa).unwrap_or(0);
                Err(Violation::new(Rule::LostUpdate).at_va(va).at_pa(pa).with_values(value, updated))
            }
            None => Ok(()),
        }
    }

    /// Notes that hardware has made `value` of the entry at `pa`: it has set the access flag, has
    /// made the leaf dirty, or both. It is no event, since the machine assumes all the time that
    /// hardware may have done so. Returns `false` and notes nothing if hardware does not do this.
    pub fn note_update(&mut self, pa: u64, value: u64) -> bool {
        const ACCESSED: u64 = 1 << 10;
        const WRITABLE: u64 = 1 << 7;
        const DBM: u64 = 1 << 51;
        let Some(old) = self.memory.newest(pa) else { return false };
        let dirty = if value & DBM == 0 { 0 } else { WRITABLE };
        if (old ^ value) & !(ACCESSED | dirty) != 0 || old & !value & ACCESSED != 0 {
            return false;
        }
        self.memory.update(pa, value);
        true
    }

    /// Takes the update of the entry at `pa` as done, before software changes it. If software found
    /// `old` there, hardware has made that of it and no more: a TLB holds a leaf as updated only
    /// once its entry in memory is. In a contiguous run another entry may have been updated.
    pub(crate) fn hardware_updates(&mut self, pa: u64, old: Option<u64>) -> Check {
        let found = if self.updates { self.hardware_updated(pa)? } else { None };
        let updated = found.map(|(_, updated)| updated);
        let newest = self.memory.newest(pa);
        if let (Some(old), Some(newest)) = (old, newest) {
            // Every bit is as it was, or as hardware makes it.
            if (old ^ newest) & !(updated.unwrap_or(newest) ^ newest) != 0 {
                return Err(Violation::new(Rule::OtherValue).at_pa(pa).with_values(newest, old));
            }
        }
        match (old, updated) {
            (Some(old), _) if old & CONTIGUOUS == 0 => self.memory.update(pa, old),
            (_, Some(updated)) => self.memory.update(pa, updated),
            _ => {}
        }
        Ok(())
    }
}

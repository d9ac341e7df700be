//! Updates by hardware of leaves that can be walked (Arm ARM D8.5).
//!
//! With TCR.HA a walker may set the access flag of a leaf at any time, and with HD make a leaf with
//! DBM writable. So such a leaf is walked and held as updated. An atomic read-modify-write learns
//! of the update; a plain store would lose it. The model takes the update as done when the entry is
//! overwritten: an older TLB entry that says so is the one that may be held.

use crate::descriptor::{Entry, updated};
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

    /// Takes the update of the entry at `pa` as done.
    pub(crate) fn hardware_updates(&mut self, pa: u64) -> Check {
        if self.updates
            && let Some((_, updated)) = self.hardware_updated(pa)?
        {
            self.memory.update(pa, updated);
        }
        Ok(())
    }
}

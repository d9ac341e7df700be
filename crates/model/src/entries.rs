//! Entries that are impossible by themselves.

use crate::descriptor::Entry;
use crate::limits::Limits;
use crate::machine::{Check, EntryPlace, Machine, Root};
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

/// Bits of a table descriptor that are not modelled: NSTable, and what is RES0 in a regime without
/// EL0 (APTable[0], PXNTable) and at stage 2 (all of 63:59).
fn reserved_in_table(root: Root) -> u64 {
    match root.space {
        Space::Stage2 => 0x1f << 59,
        _ if root.shape.has_el0 => 1 << 63,
        _ => 1 << 63 | 1 << 61 | 1 << 59,
    }
}

impl Machine {
    /// Refuses a descriptor that is not valid at its place or not modelled.
    pub(crate) fn check_well_formed(&mut self, place: EntryPlace, entry: Entry, value: u64) -> Check {
        let violation = |rule| Violation::new(rule).at_va(place.va).at_pa(place.pa);
        match entry {
            Entry::Invalid => Ok(()),
            Entry::Table(_) if value & reserved_in_table(self.roots[place.root as usize]) != 0 => {
                Err(violation(Rule::Unmodelled))
            }
            Entry::Table(table) if !self.memory.holds(table, self.config.granule) => {
                Err(violation(Rule::NotMemory).with_values(value, table))
            }
            Entry::Table(table) if table >> self.roots[place.root as usize].shape.out_bits != 0 => {
                Err(violation(Rule::AddressSize).with_values(value, table))
            }
            Entry::Table(_) => {
                self.hierarchical |= Limits::of(self.roots[place.root as usize].shape, value) != 0;
                Ok(())
            }
            Entry::Leaf(leaf) => {
                if leaf.no_translation && self.config.bbm == 0 {
                    return Err(violation(Rule::NoTranslation));
                }
                let Root { shape, .. } = self.roots[place.root as usize];
                if leaf.pa >> shape.out_bits != 0 {
                    return Err(violation(Rule::AddressSize).with_values(value, leaf.pa));
                }
                let entries = shape.run(place.level);
                let run = (entries as u64) << leaf.shift;
                // A root may be shorter than a run.
                let fits = entries <= shape.entries(place.level);
                let first = place.pa & !(8 * entries.max(1) as u64 - 1);
                let excused = self.is_excused_run(place.root, place.level, first);
                if leaf.contiguous && run > 0 && !excused && (!fits || (leaf.pa ^ place.va) & (run - 1) != 0)
                {
                    return Err(violation(Rule::MisalignedRun));
                }
                Ok(())
            }
        }
    }
}

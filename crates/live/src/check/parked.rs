//! The check of what only a parked tree allows.

use linmap_vmsa::Level;

use super::checker::Checker;
use crate::entry::{Entry, entry};
use crate::every_leaf::NOT_GLOBAL;
use crate::exclusivity::Exclusivity;
use crate::refused::BrokenRule;
use crate::run::Run;
use crate::step::{Edit, EveryLeaf, Store};
use crate::update::Update;
use linmap_table::TableWindow;

impl<W: TableWindow> Checker<'_, '_, W> {
    /// Checks a store to a parked tree. No TLB holds anything of it and no CPU walks it, so only
    /// the new content of the tables matters.
    pub fn parked(&mut self, at: usize, store: &Store) -> Result<(), BrokenRule> {
        let Store { va, table, level, edit, .. } = *store;
        let shift = self.context.shift(level);
        let touched = self.history.touches(at, store);
        if store.count > 1 && self.keeps_runs(at, store) {
            return Ok(());
        }
        let mut run = Run::default();
        for nth in 0..usize::from(store.count) {
            let index = usize::from(store.index) + nth;
            let va = va.0 + ((nth as u64) << shift);
            let mut now = self.context.read(self.window, level, table, index);
            if touched {
                now = self.history.values(at, (table, index, va), now, |_, _| {});
            }
            let new = edit.of(now, nth);
            self.check_update(at, (va, index, store), now, new)?;
            if !matches!(edit, Edit::Update(Update::Gather | Update::Collect { .. })) {
                run.check(self.context, store, index, now, new)
                    .ok_or_else(|| self.part_of_run(store, index))?;
            }
            if self.compares {
                self.check_identical(va, level, now, new)?;
            }
        }
        Ok(())
    }

    /// Checks a change of all leaves of a range.
    pub fn every_leaf(&mut self, at: usize, leaves: &EveryLeaf) -> Result<(), BrokenRule> {
        let EveryLeaf { first, last, clear, set } = *leaves;
        if self.exclusivity != Exclusivity::Parked {
            return Err(BrokenRule::NotParked { first });
        }
        if self.every_leaf {
            return Err(BrokenRule::BehindEveryLeaf { va: first });
        }
        let page = (1 << self.context.page_shift) - 1;
        let is_range = first <= last && first.0 & page == 0 && last.0 & page == page;
        let in_half = self.context.holds(first.0) && self.context.holds(last.0);
        // The one attribute that may change this way: it decides neither output address nor
        // permissions.
        let is_attribute = clear & set == 0 && clear | set == NOT_GLOBAL;
        if !is_range || !in_half || !is_attribute {
            return Err(BrokenRule::NoSuchLeaves(*leaves));
        }
        for va in [first, last] {
            let node = self.walk(at, self.context.root(va.0), va.0, Level::L3);
            let index = self.context.geometry.index(va, node.level);
            let memory = self.context.read(self.window, node.level, node.table, index);
            let found = self.history.values(at, (node.table, index, va.0), memory, |_, _| {});
            if !matches!(entry(self.context.geometry, node.level, found), Entry::Leaf(_))
                || leaves.of(found.0) == found.0
            {
                continue;
            }
            let count = if found.is_contiguous() { self.context.run(node.level).unwrap_or(1) } else { 1 };
            let start = index & !(count - 1);
            if node.va(start) < first.0 || node.last(start + count - 1) > last.0 {
                return Err(BrokenRule::PartOfLeaf { va });
            }
        }
        self.every_leaf = true;
        self.outdates(first);
        self.unordered = true;
        self.unsynchronised = true;
        Ok(())
    }
}

//! What TLBs and walk caches may hold of a table that was removed.
//!
//! Of the tables below an entry, a TLB may hold every valid leaf, and a walk cache every entry that
//! leads to a table. An invalidation by address of all levels removes all that the walk for its
//! address uses: of each table that lies above the address, in one go.

use linmap_table::TableWindow;
use linmap_vmsa::{Descriptor, Level, Va};

use super::checker::Checker;
use crate::invalidate::Span;
use crate::node::Node;
use crate::step::{Step, Store};
use crate::tlbi_coverage::{covers, reaches};

impl<W: TableWindow> Checker<'_, '_, W> {
    /// Returns an address that the `invalidations` leave in TLBs or walk caches after entry `nth`
    /// of `store`, step `at`, led to a table and does not any more.
    #[inline(never)]
    pub fn first_held_below(
        &mut self,
        at: usize,
        store: &Store,
        nth: usize,
        invalidations: &[Step],
    ) -> Option<Va> {
        let index = usize::from(store.index) + nth;
        let shift = self.context.shift(store.level);
        let base = store.va.0.wrapping_sub(u64::from(store.index) << shift);
        let node = Node { table: store.table, base, shift, level: store.level };
        let va = node.va(index);
        let memory = self.context.read(self.window, node.level, node.table, index);
        // Only a table that is in memory is removed: one that the plan linked itself would be
        // another change of the same entry, whose old value is not in memory.
        let entry = (node.table, index, va);
        let linked = self.history.value(at, node.level, entry, memory);
        let Some(table) = self.context.next_table(memory).filter(|_| linked == memory) else {
            return Some(Va(va));
        };
        let below = self.context.below(node, index, table);
        // What a store of the plan has changed below is not looked at again.
        if self.history.changes_below(at, node.level, va, node.last(index)) {
            return Some(Va(va));
        }
        self.held_below(below, invalidations)
    }

    fn held_below(&mut self, node: Node, invalidations: &[Step]) -> Option<Va> {
        let page_shift = self.context.page_shift;
        let last = self.context.entries(node.level) - 1;
        if !reaches(page_shift, invalidations, node.base, node.last(last)) {
            return Some(Va(node.base));
        }
        let mut from = 0;
        while from <= last {
            let found = self.context.read(self.window, node.level, node.table, from);
            let table = if node.level.next().is_some() { self.context.next_table(found) } else { None };
            let held = match table {
                Some(table) => {
                    let below = self.context.below(node, from, table);
                    self.held_below(below, invalidations)
                }
                None if found.is_valid() => {
                    // Leaves side by side are covered together, or one by one.
                    let pages = node.level == Level::L3;
                    let is_leaf = |bits: &u64| {
                        let found = Descriptor(*bits);
                        found.is_valid() && (pages || !found.may_be_table())
                    };
                    let count = self.context.look(self.window, node, from, last, |entries| {
                        entries.iter().position(|bits| !is_leaf(bits)).unwrap_or(entries.len())
                    });
                    let all = Span::leaves(node.va(from), count, node.shift);
                    let held = if covers(page_shift, invalidations, all) {
                        None
                    } else {
                        let leaf = |index| Span::leaves(node.va(index), 1, node.shift);
                        let mut leaves = (from..from + count).map(leaf);
                        leaves.find(|leaf| !covers(page_shift, invalidations, *leaf))
                    };
                    from += count - 1;
                    held.map(|span| Va(span.first))
                }
                None => None,
            };
            if held.is_some() {
                return held;
            }
            from += 1;
        }
        None
    }
}

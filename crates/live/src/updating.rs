//! Plans for trees that hardware updates: stores to leaves become atomic updates.
//!
//! A leaf may change between two reads of it. So a planner decides once what an entry becomes, and
//! later rounds ask the plan so far what was decided: a second decision may differ from the first,
//! and leave an entry that was made invalid as it is.

use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::{Descriptor, Level, Pa};

use crate::entry::{Entry, VALID_BIT, entry};
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::script::store_of;
use crate::split::{Cut, Phase};
use crate::step::{Edit, Step, Store};
use crate::tree_context::TreeContext;
use crate::update::Update;

/// Whether one of the entries of `store` is a leaf in memory, valid or not. Hardware makes nothing
/// else of a leaf.
fn is_over_leaf<W: TableWindow>(context: &TreeContext, store: &Store, window: &mut W) -> bool {
    (0..usize::from(store.count)).any(|nth| {
        let found = context.read(window, store.level, store.table, usize::from(store.index) + nth);
        found.0 != 0 && (store.level == Level::L3 || context.next_table(found).is_none())
    })
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Where hardware updates leaves, makes atomic updates of all stores to leaves. Others stay: a
    /// store to an empty entry, and to one that leads to a table, loses no update.
    pub fn update_atomically(&mut self) {
        if !self.context.updates.is_on() {
            return;
        }
        for step in self.script.steps_mut() {
            let Step::Store(store) = step else { continue };
            store.edit = match store.edit {
                Edit::Bits { clear, set } => Edit::Update(Update::Bits { clear, set }),
                Edit::Write { first: Descriptor::INVALID, .. } => {
                    Edit::Update(Update::Bits { clear: u64::MAX, set: 0 })
                }
                Edit::Write { first, step } if is_over_leaf(self.context, store, self.window) => {
                    Edit::Update(Update::Leaf { first, step })
                }
                edit => edit,
            };
        }
    }

    /// Plans to split what `cut` cuts where hardware updates leaves. It may update any entry of a
    /// run for all, until no TLB holds the run: so runs lose their contiguous bits, or become
    /// invalid, and what hardware has updated is gathered after the invalidation. Only then does an
    /// entry of the run change in another way.
    #[cold]
    #[inline(never)]
    pub fn split_updated(&mut self, top: Node, cut: Cut) -> Result<(), PlanError> {
        let breaks = self.exclusivity.breaks_sizes(self.context.bbm);
        let [first, last] =
            if breaks { [Phase::Break, Phase::Make] } else { [Phase::Unfold, Phase::InPlace] };
        self.walk_splits(top, cut, first)?;
        self.settle()?;
        self.walk_splits(top, cut, Phase::Gather)?;
        self.walk_splits(top, cut, last)
    }

    /// Plans to give all of the `count` entries from `index` on, once a run, what hardware updated
    /// in any.
    pub fn gather_run(&mut self, node: Node, index: usize, count: usize) -> Result<(), PlanError> {
        self.push_update(node, index, count, Update::Gather)
    }

    /// Plans to link a new table over the block `over`, for which its leaves were written.
    #[cold]
    #[inline(never)]
    pub fn link_updated(
        &mut self,
        node: Node,
        index: usize,
        table: Pa,
        over: Descriptor,
    ) -> Result<(), PlanError> {
        let table = Descriptor::table(self.context.geometry, table);
        self.order_tables()?;
        self.push_update(node, index, 1, Update::Link { table, over })
    }

    /// Plans to collect what hardware updated in the tables that blocks have replaced, from those
    /// of this root table on. First all of it is invalidated.
    pub fn collect_removed(&mut self) -> Result<(), PlanError> {
        if !self.context.updates.is_on() {
            return Ok(());
        }
        self.settle()?;
        let planned = self.script.len();
        for at in self.root_start..planned {
            let Some(Step::Store(store)) = self.script.steps().get(at).copied() else { continue };
            let Edit::Write { first, .. } = store.edit else { continue };
            if first == Descriptor::INVALID || store.level == Level::L3 || first.may_be_table() {
                continue;
            }
            for nth in 0..usize::from(store.count) {
                let index = usize::from(store.index) + nth;
                let found = self.context.read(self.window, store.level, store.table, index);
                if let Some(from) = self.context.next_table(found) {
                    let va = store.va.0.wrapping_add((nth as u64) << self.context.shift(store.level));
                    let base = va.wrapping_sub((index as u64) << self.context.shift(store.level));
                    let shift = self.context.shift(store.level);
                    let node = Node { table: store.table, base, shift, level: store.level };
                    self.push_update(node, index, 1, Update::Collect { from })?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether the plan, from this root table on, makes entry `index` of `node` invalid.
    pub fn is_broken(&self, node: Node, index: usize) -> bool {
        let steps = self.script.steps().get(self.root_start..).unwrap_or_default();
        steps.iter().any(|step| match step {
            Step::Store(store) => {
                let breaks = matches!(
                    store.edit,
                    Edit::Bits { clear: VALID_BIT, set: 0 } | Edit::Write { first: Descriptor::INVALID, .. }
                );
                breaks
                    && store.table == node.table
                    && index.wrapping_sub(store.index.into()) < store.count.into()
            }
            _ => false,
        })
    }

    /// Returns entry `index` of `node` as the plan, from this root table on, leaves it.
    pub fn planned(&mut self, node: Node, index: usize) -> Descriptor {
        let mut value = self.read(node, index);
        for step in self.script.steps().get(self.root_start..).unwrap_or_default() {
            if let Step::Store(store) = step
                && store.table == node.table
                && let nth = index.wrapping_sub(store.index.into())
                && nth < store.count.into()
            {
                value = store.edit.of(value, nth);
            }
        }
        value
    }

    /// Returns `first..=last` without the leaves or runs that reach over its ends and that `wanted`
    /// changes nothing of: all bits of its first mask are clear, all bits of its second are set.
    /// `None` if nothing is left.
    pub fn without_spared(
        &mut self,
        first: u64,
        last: u64,
        wanted: (u64, u64),
    ) -> Result<Option<(u64, u64)>, PlanError> {
        let cut = Cut::Ends { first, last, wanted: Some(wanted) };
        let mut rest = (first, last);
        if let Some((_, end)) = self.spared(first, cut)? {
            if end >= last {
                return Ok(None);
            }
            rest.0 = end.wrapping_add(1);
        }
        if let Some((start, _)) = self.spared(last, cut)? {
            if start <= rest.0 {
                return Ok(None);
            }
            rest.1 = start.wrapping_sub(1);
        }
        Ok(Some(rest))
    }

    /// Returns the first and the last address of the leaf or run for `va`, if `cut` would cut it
    /// but spares it.
    fn spared(&mut self, va: u64, cut: Cut) -> Result<Option<(u64, u64)>, PlanError> {
        let node = self.context.lowest(self.window, va);
        let index = node.index(va);
        let found = self.read(node, index);
        if !matches!(entry(self.context.geometry, node.level, found), Entry::Leaf(_)) {
            return Ok(None);
        }
        let (start, count, leaf) = self.leaf_around(node, index, found)?;
        let (start, end) = (node.va(start), node.last(start + count - 1));
        Ok((cut.cuts(node.level, count > 1, start, end) && cut.spares(leaf)).then_some((start, end)))
    }

    fn push_update(
        &mut self,
        node: Node,
        index: usize,
        count: usize,
        update: Update,
    ) -> Result<(), PlanError> {
        self.stored();
        self.script.push(Step::Store(store_of(node, index, count, Edit::Update(update))))
    }
}

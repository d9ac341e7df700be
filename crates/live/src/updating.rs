//! Plans for trees that hardware updates: stores to leaves become atomic updates.

use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::{Descriptor, Level, Pa};

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

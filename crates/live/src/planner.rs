//! What all planners share: reads of entries, stores, barriers and invalidations.

use linmap_vmsa::{Descriptor, Level, Pa, Va};

use crate::entry::CONTIGUOUS;
use crate::exclusivity::Exclusivity;
use crate::invalidate::{Span, Spans};
use crate::node::Node;
use crate::plan::Outcome;
use crate::plan_error::PlanError;
use crate::scope::Scope;
use crate::script::{Script, store_of};
use crate::step::{Edit, Invalidation, Step};
use crate::tree_context::TreeContext;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;

/// One edit being planned.
pub(crate) struct Planner<'p, 'b, W, F> {
    pub context: &'p TreeContext,
    pub exclusivity: Exclusivity,
    pub script: &'p mut Script<'b>,
    pub spans: Spans,
    pub window: &'p mut W,
    pub frames: &'p mut F,
    /// Whether a DSB orders the entries of new tables before the next step.
    tables_ordered: bool,
    /// Whether a store was pushed since the last DSB.
    unordered: bool,
    /// Whether there is a step that needs an ISB at the end.
    pub unsynchronised: bool,
    /// Whether one of the stores since the last DSB took the contiguous bit from a run.
    unfolded: bool,
    /// The end of the steps that change sizes. Later steps are planned on the result of these.
    split_end: usize,
    /// The number of steps before the edit of the present root table.
    pub root_start: usize,
    /// The lowest table known to translate the whole range of the edit.
    pub top: Node,
    /// Whether leaves in the range of the edit may become larger when their attributes have
    /// changed.
    pub may_fold: bool,
    /// What the plan leaves of what its range translates.
    pub outcome: Outcome,
}

impl<'p, 'b, W: TableWindow, F: FrameSource> Planner<'p, 'b, W, F> {
    #[inline(always)]
    pub fn new(
        context: &'p TreeContext,
        exclusivity: Exclusivity,
        script: &'p mut Script<'b>,
        window: &'p mut W,
        frames: &'p mut F,
    ) -> Self {
        Self {
            context,
            exclusivity,
            script,
            spans: Spans::new(),
            window,
            frames,
            tables_ordered: false,
            unordered: false,
            unsynchronised: false,
            unfolded: false,
            split_end: 0,
            root_start: 0,
            top: context.top,
            may_fold: false,
            outcome: Outcome::Mapped,
        }
    }

    /// Returns the lowest table in memory that translates all of `first..=last`. If one entry
    /// translates exactly this range, it is the table of that entry.
    #[inline(always)]
    pub fn lowest(&mut self, first: u64, last: u64) -> Node {
        // The number of low bits in which the addresses may differ. An entry of that size may be
        // the whole range.
        let bits = u64::BITS - (first ^ last).leading_zeros();
        let is_whole = (first | !last).trailing_zeros() >= bits;
        let to = if is_whole { bits } else { bits.wrapping_sub(1) };
        let to = to.max(self.context.page_shift);
        self.context.descend_to(self.context.root(first), self.window, first, to, |_, _, _, memory| memory)
    }

    /// The entries of `node` that translate anything in `first..=last`, a range that reaches into
    /// the table.
    #[inline]
    pub fn indices(&self, node: Node, first: u64, last: u64) -> (usize, usize) {
        self.context.indices(node, first, last)
    }

    /// The entry as it is in memory.
    #[inline(always)]
    pub fn read(&mut self, node: Node, index: usize) -> Descriptor {
        self.context.read(self.window, node.level, node.table, index)
    }

    /// Returns the entry as it will be after the splits of this plan. Asked only for the two
    /// entries at the ends of a range.
    pub fn after_split(&mut self, node: Node, index: usize) -> Descriptor {
        let mut descriptor = self.read(node, index);
        for step in self.script.steps().get(..self.split_end).unwrap_or_default() {
            if let Step::Store(store) = step
                && store.table == node.table
                && let Some(nth) = index.checked_sub(usize::from(store.index))
                && nth < usize::from(store.count)
            {
                descriptor = store.edit.of(descriptor, nth);
            }
        }
        descriptor
    }

    /// Runs `look` on the entries `from..=to` of `node` as they are in memory.
    pub fn look<T>(&mut self, node: Node, from: usize, to: usize, look: impl FnOnce(&[u64]) -> T) -> T {
        self.context.look(self.window, node, from, to, look)
    }

    /// Pushes stores to the entries from `index` on.
    #[inline(always)]
    pub fn store(&mut self, node: Node, index: usize, count: usize, edit: Edit) -> Result<(), PlanError> {
        // The steps of splits are read again, so they stay as they are.
        if self.script.len() > self.split_end && self.script.join(&store_of(node, index, count, edit)) {
            self.unordered = true;
            return Ok(());
        }
        self.push_store(node, index, count, edit)
    }

    /// Notes that a store was pushed.
    #[inline(always)]
    pub fn stored(&mut self) {
        self.unordered = true;
        self.unsynchronised = true;
    }

    /// Pushes stores to the entries from `index` on as a step of their own.
    #[inline(always)]
    fn push_store(&mut self, node: Node, index: usize, count: usize, edit: Edit) -> Result<(), PlanError> {
        self.unordered = true;
        self.unsynchronised = true;
        self.script.push(Step::Store(store_of(node, index, count, edit)))
    }

    /// Pushes the store that links a new table, after the DSB that orders the table's entries.
    #[inline(always)]
    pub fn link(&mut self, node: Node, index: usize, table: Pa) -> Result<(), PlanError> {
        let first = Descriptor::table(self.context.geometry, table);
        let edit = Edit::Write { first, step: 0 };
        // No walker follows a link of a parked tree before the plan ends.
        if self.exclusivity != Exclusivity::Parked && (!self.tables_ordered || self.unfolded) {
            self.order()?;
            return self.push_store(node, index, 1, edit);
        }
        self.store(node, index, 1, edit)
    }

    /// Orders the entries of new tables, and stores that cleared contiguous bits, before a link.
    pub fn order_tables(&mut self) -> Result<(), PlanError> {
        let is_ordered = self.tables_ordered && !self.unfolded;
        if self.exclusivity == Exclusivity::Parked || is_ordered { Ok(()) } else { self.order() }
    }

    /// Notes that `count` leaves of `node` from `index` on have to be invalidated.
    #[inline]
    pub fn invalidate_leaves(&mut self, node: Node, index: usize, count: usize) {
        if self.exclusivity == Exclusivity::Parked {
            // The plan of a parked edit ends with an invalidation of everything.
            return;
        }
        let shift = node.shift;
        self.spans.push(Span::leaves(node.va(index), count, shift));
    }

    /// Notes that no entry leads to the table `node` any more. Its valid leaves have to be
    /// invalidated, and what walk caches hold of it and of the tables below: an invalidation of all
    /// levels for any address of the lowest table does that for all tables above it.
    pub fn invalidate_table(&mut self, node: Node) {
        if self.exclusivity != Exclusivity::Parked {
            self.invalidate_below(node);
        }
    }

    fn invalidate_below(&mut self, node: Node) {
        if self.spans.is_everything() {
            return;
        }
        let last = self.context.entries(node.level) - 1;
        if node.level == Level::L3 {
            let valid = |bits: &u64| Descriptor(*bits).is_valid();
            let ends = self.look(node, 0, last, |entries| {
                entries.iter().position(valid).zip(entries.iter().rposition(valid))
            });
            let (first, last) = ends.unwrap_or((0, 0));
            self.spans.push(Span::all_levels(node.va(first), last - first + 1, node.shift));
            return;
        }
        let mut reached = false;
        for index in 0..=last {
            let found = self.read(node, index);
            match self.context.next_table(found) {
                Some(table) => self.invalidate_below(self.context.below(node, index, table)),
                None if found.is_valid() => self.spans.push(Span::all_levels(node.va(index), 1, node.shift)),
                None => continue,
            }
            reached = true;
        }
        if !reached {
            self.spans.push(Span::all_levels(node.base, 1, self.context.page_shift));
        }
    }

    /// Clears the contiguous bit of the run of `count` entries from `index` on, and gives all of
    /// them the `updates` that hardware made to some: the bits to clear and to set. Every walker
    /// must see all of these stores before an entry changes in another way (Arm ARM D8.7.1).
    #[inline(always)]
    pub fn unfold(
        &mut self,
        node: Node,
        index: usize,
        count: usize,
        (clear, set): (u64, u64),
    ) -> Result<(), PlanError> {
        self.store(node, index, count, Edit::Bits { clear: CONTIGUOUS | clear, set })?;
        // Walkers ignore the bit in invalidated leaves, and no CPU walks a parked tree. All entries
        // of a run are valid or none.
        self.unfolded |= self.exclusivity != Exclusivity::Parked && self.read(node, index).is_valid();
        Ok(())
    }

    /// Orders the stores so far.
    #[inline(always)]
    fn order(&mut self) -> Result<(), PlanError> {
        self.unordered = false;
        self.unfolded = false;
        self.tables_ordered = true;
        self.script.push(Step::Dsb(Dsb::Ishst))
    }

    /// Orders the stores so far and completes the invalidations that they need.
    #[inline]
    pub fn settle(&mut self) -> Result<(), PlanError> {
        if self.unordered {
            self.order()?;
        }
        if !self.spans.is_empty() {
            let TreeContext { geometry, range_invalidation, .. } = *self.context;
            self.spans.drain(geometry, range_invalidation, self.script)?;
            self.script.push(Step::Dsb(Dsb::Ish))?;
            if self.context.scope == Scope::Vmid {
                return self.invalidate_combined();
            }
        }
        Ok(())
    }

    /// Removes from TLBs what combines both stages, after invalidations by IPA.
    #[cold]
    #[inline(never)]
    fn invalidate_combined(&mut self) -> Result<(), PlanError> {
        let everything = Step::Invalidate(Invalidation::All);
        if self.script.steps().iter().rev().nth(1) == Some(&everything) {
            return Ok(());
        }
        self.script.push(Step::Invalidate(Invalidation::Stage1))?;
        self.script.push(Step::Dsb(Dsb::Ish))
    }

    /// Later steps are planned on the result of the splits so far.
    pub fn splits_end(&mut self) {
        self.split_end = self.script.len();
    }

    /// Orders the stores that cleared contiguous bits before the next step.
    pub fn order_runs(&mut self) -> Result<(), PlanError> {
        if self.unfolded { self.order() } else { Ok(()) }
    }

    /// Plans to free the tables that the stores among the first `count` steps remove, from those of
    /// this root table on.
    pub fn free_tables(&mut self, count: usize) -> Result<(), PlanError> {
        let geometry = self.context.geometry;
        for at in self.root_start..count {
            let Some(Step::Store(store)) = self.script.steps().get(at).copied() else { continue };
            let (Edit::Write { .. }, Some(level)) = (store.edit, store.level.next()) else { continue };
            for nth in 0..usize::from(store.count) {
                let found =
                    self.context.read(self.window, store.level, store.table, usize::from(store.index) + nth);
                if let Some(table) = found.next_table(geometry) {
                    let va = Va(store.va.0 + ((nth as u64) << geometry.shift(store.level)));
                    self.script.push(Step::Free { va, table, level })?;
                }
            }
        }
        Ok(())
    }

    /// Ends the plan: everything is ordered, invalidated, and in force on this CPU.
    #[inline(always)]
    pub fn finish(&mut self) -> Result<(), PlanError> {
        if !self.unsynchronised {
            return Ok(());
        }
        self.unsynchronised = false;
        if self.exclusivity == Exclusivity::Parked {
            return self.finish_parked();
        }
        // As after most edits.
        if let Some(invalidation) = self.spans.single()
            && self.unordered
            && self.context.scope != Scope::Vmid
        {
            self.unordered = false;
            let [order, invalidate, complete, isb] = self.script.room()?;
            *order = Step::Dsb(Dsb::Ishst);
            *invalidate = Step::Invalidate(invalidation);
            *complete = Step::Dsb(Dsb::Ish);
            *isb = Step::Isb;
            return Ok(());
        }
        self.settle()?;
        self.script.push(Step::Isb)
    }

    #[cold]
    #[inline(never)]
    fn finish_parked(&mut self) -> Result<(), PlanError> {
        self.order()?;
        self.script.push(Step::Invalidate(Invalidation::All))?;
        self.script.push(Step::Dsb(Dsb::Ish))?;
        self.script.push(Step::Isb)
    }
}

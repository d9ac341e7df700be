//! What all planners share: the list of steps, reading entries as they will be, barriers and invalidations.

use core::slice;

use linmap_vmsa::{Descriptor, Pa, Va};

use super::PlanError;
use super::entry::CONTIGUOUS;
use super::invalidate::{Span, Spans, by_va, push_one};
use super::regime::{Node, Regime};
use super::step::{Edit, Invalidation, Step, Store};
use super::target::Meanwhile;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;
use linmap_table::read;

/// Steps being written to the caller's list.
#[derive(Debug)]
pub(super) struct Script<'b> {
    steps: &'b mut [Step],
    len: usize,
}

impl<'b> Script<'b> {
    pub fn new(steps: &'b mut [Step]) -> Self {
        Self { steps, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn steps(&self) -> &[Step] {
        self.steps.get(..self.len).unwrap_or_default()
    }

    // A step is larger than what is copied without a call: built where it stays, it is not copied at all.
    #[inline(always)]
    pub fn push(&mut self, step: Step) -> Result<(), PlanError> {
        let [slot] = self.room()?;
        *slot = step;
        Ok(())
    }

    /// The next `N` steps, for the caller to write.
    #[inline(always)]
    pub fn room<const N: usize>(&mut self) -> Result<&mut [Step; N], PlanError> {
        let capacity = self.steps.len();
        let rest = self.steps.get_mut(self.len..).unwrap_or_default();
        let Some(slots) = rest.first_chunk_mut() else { return Err(too_long(capacity)) };
        self.len = self.len.wrapping_add(N);
        Ok(slots)
    }

    /// Ends a plan of which the last store asks for `span` to be invalidated.
    #[inline(always)]
    pub fn finish_one(&mut self, regime: &Regime, span: Option<Span>) -> Result<(), PlanError> {
        // As after the change of one page.
        if let Some(span) = span
            && span.entries() == 1
        {
            let [order, invalidate, complete, isb] = self.room()?;
            *order = Step::Dsb(Dsb::Ishst);
            *invalidate = Step::Invalidate(by_va(span));
            *complete = Step::Dsb(Dsb::Ish);
            *isb = Step::Isb;
            return Ok(());
        }
        self.finish_span(regime, span)
    }

    #[inline(never)]
    fn finish_span(&mut self, regime: &Regime, span: Option<Span>) -> Result<(), PlanError> {
        self.push(Step::Dsb(Dsb::Ishst))?;
        if let Some(span) = span {
            push_one(regime.geometry, regime.range_invalidation, span, self)?;
            self.push(Step::Dsb(Dsb::Ish))?;
        }
        self.push(Step::Isb)
    }

    /// Makes `store` a part of the store that was pushed last, where both are one run. Returns whether it is.
    #[inline(never)]
    fn join(&mut self, store: &Store) -> bool {
        if let Some(Step::Store(last)) = self.len.checked_sub(1).and_then(|last| self.steps.get_mut(last))
            && last.table == store.table
            && last.level == store.level
            && usize::from(last.index) + usize::from(last.count) == usize::from(store.index)
            && let Some(edit) = joined(last, store)
        {
            last.edit = edit;
            last.count += store.count;
            return true;
        }
        false
    }
}

#[cold]
#[inline(never)]
const fn too_long(capacity: usize) -> PlanError {
    PlanError::TooLong { capacity }
}

/// The stores of `edit` to the `count` entries of `node` from `index` on.
#[inline(always)]
pub(super) const fn store_of(node: Node, index: usize, count: usize, edit: Edit) -> Store {
    // A table has at most 8192 entries.
    let (va, index, count) = (Va(node.va(index)), index as u16, count as u16);
    Store { va, table: node.table, level: node.level, index, count, edit }
}

/// Bits of descriptors in which the entries of one run may differ.
const ADDRESS: u64 = 0xffff_ffff_f000;

/// The edit that does what the stores `last` and, right behind it, `next` do.
fn joined(last: &Store, next: &Store) -> Option<Edit> {
    match (last.edit, next.edit) {
        (Edit::Bits { .. }, Edit::Bits { .. }) => (last.edit == next.edit).then_some(last.edit),
        (Edit::Write { first, step }, Edit::Write { first: next_first, step: next_step })
            if (first.0 ^ next_first.0) & !ADDRESS == 0 =>
        {
            // A single value has no step yet, so that any will do.
            let step = if last.count == 1 { next_first.0.wrapping_sub(first.0) } else { step };
            let behind = first.0.wrapping_add(step.wrapping_mul(u64::from(last.count)));
            let fits = next_first.0 == behind && (next.count == 1 || next_step == step);
            fits.then_some(Edit::Write { first, step })
        }
        _ => None,
    }
}

/// One edit being planned.
pub(super) struct Planner<'p, 'b, W, F> {
    pub regime: &'p Regime,
    pub meanwhile: Meanwhile,
    pub script: &'p mut Script<'b>,
    pub spans: Spans,
    pub window: &'p mut W,
    pub frames: &'p mut F,
    /// Whether the stores that wrote new tables are ordered before what is pushed next.
    tables_ordered: bool,
    /// Whether a store was pushed since the last DSB.
    unordered: bool,
    /// Whether one of those took the contiguous bit from a run.
    unfolded: bool,
    /// Where the steps end that change sizes; later ones are planned on what these make.
    split_end: usize,
    /// The lowest table known to translate all that the edit is about.
    pub top: Node,
}

impl<'p, 'b, W: TableWindow, F: FrameSource> Planner<'p, 'b, W, F> {
    pub fn new(
        regime: &'p Regime,
        meanwhile: Meanwhile,
        script: &'p mut Script<'b>,
        window: &'p mut W,
        frames: &'p mut F,
    ) -> Self {
        Self {
            regime,
            meanwhile,
            script,
            spans: Spans::new(),
            window,
            frames,
            tables_ordered: false,
            unordered: false,
            unfolded: false,
            split_end: 0,
            top: regime.top,
        }
    }

    /// The lowest table in memory that translates all of `first..=last`, a part of what the root does. It does not lie
    /// below an entry that translates just that.
    #[inline(always)]
    pub fn lowest(&mut self, first: u64, last: u64) -> Node {
        // As many low bits as the addresses differ in; an entry of just so many may be the whole range.
        let bits = u64::BITS - (first ^ last).leading_zeros();
        let is_whole = (first | !last).trailing_zeros() >= bits;
        let to = if is_whole { bits } else { bits.wrapping_sub(1) };
        let to = to.max(self.regime.page_shift);
        self.regime.descend_to(self.regime.top, self.window, first, to, |_, _, memory| memory)
    }

    /// The entries of `node` that translate anything in `first..=last`, a range that reaches into the table.
    #[inline]
    pub fn indices(&self, node: Node, first: u64, last: u64) -> (usize, usize) {
        self.regime.indices(node, first, last)
    }

    /// The entry as it is in memory.
    #[inline(always)]
    pub fn read(&mut self, node: Node, index: usize) -> Descriptor {
        read(self.window, node.level, node.table, index)
    }

    /// The entry as it will be when the splits of this plan are done. Only few entries are ever in question: the two at the
    /// ends of a range.
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
        let pointer = self.window.open(node.level, node.table);
        // SAFETY: an open table is valid for reads of a whole granule, and `from..=to` are some of its entries, initialised
        // by whoever built the tree. Nothing writes to them meanwhile: the tree is changed by its one `LiveTree` alone,
        // which is borrowed, and hardware updates are off.
        let entries = unsafe { slice::from_raw_parts(pointer.as_ptr().add(from), to - from + 1) };
        let result = look(entries);
        self.window.close(node.level);
        result
    }

    /// Pushes stores to the entries from `index` on.
    #[inline(always)]
    pub fn store(&mut self, node: Node, index: usize, count: usize, edit: Edit) -> Result<(), PlanError> {
        // The steps of the splits are read again and stay as they are.
        if self.script.len() > self.split_end && self.script.join(&store_of(node, index, count, edit)) {
            self.unordered = true;
            return Ok(());
        }
        self.push_store(node, index, count, edit)
    }

    /// Pushes stores to the entries from `index` on as a step of their own.
    #[inline(always)]
    fn push_store(&mut self, node: Node, index: usize, count: usize, edit: Edit) -> Result<(), PlanError> {
        self.unordered = true;
        self.script.push(Step::Store(store_of(node, index, count, edit)))
    }

    /// Pushes the store of one descriptor that leads to a new table, behind the DSB that orders what was written there.
    #[inline(always)]
    pub fn link(&mut self, node: Node, index: usize, table: Pa) -> Result<(), PlanError> {
        // Nobody follows a link of a parked tree before the end of the plan.
        let first = Descriptor::table(self.regime.geometry, table);
        let edit = Edit::Write { first, step: 0 };
        if self.meanwhile != Meanwhile::Parked && (!self.tables_ordered || self.unfolded) {
            self.order()?;
            return self.push_store(node, index, 1, edit);
        }
        self.store(node, index, 1, edit)
    }

    /// `count` leaves at the level of `node` from `index` on changed in a way that TLBs have to hear of.
    #[inline]
    pub fn invalidate_leaves(&mut self, node: Node, index: usize, count: usize) {
        if self.meanwhile == Meanwhile::Parked {
            // The end of the plan invalidates everything.
            return;
        }
        let shift = node.shift;
        self.spans.push(Span::leaves(node.va(index), count, shift));
    }

    /// The entry no longer leads to a table.
    pub fn invalidate_table(&mut self, node: Node, index: usize) {
        if self.meanwhile == Meanwhile::Parked {
            return;
        }
        self.spans.push(Span::table(self.regime.geometry, node.level, node.va(index)));
    }

    /// Takes the contiguous bit from the run of `count` entries from `index` on. All of them must have lost it, for every
    /// walker, before one of them changes in another way (Arm ARM D8.7.1).
    pub fn unfold(&mut self, node: Node, index: usize, count: usize) -> Result<(), PlanError> {
        self.store(node, index, count, Edit::Bits { clear: CONTIGUOUS, set: 0 })?;
        // Walkers make nothing of a run of invalidated leaves, and nobody walks a parked tree. The entries of a run are alike.
        self.unfolded |= self.meanwhile != Meanwhile::Parked && self.read(node, index).is_valid();
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

    /// Orders the stores so far and completes the invalidations they ask for.
    #[inline]
    pub fn settle(&mut self) -> Result<(), PlanError> {
        if self.unordered {
            self.order()?;
        }
        if !self.spans.is_empty() {
            let Regime { geometry, range_invalidation, .. } = *self.regime;
            self.spans.drain(geometry, range_invalidation, self.script)?;
            self.script.push(Step::Dsb(Dsb::Ish))?;
        }
        Ok(())
    }

    /// What follows is planned on the splits so far.
    pub fn splits_end(&mut self) {
        self.split_end = self.script.len();
    }

    /// Orders runs that were unfolded before what follows.
    pub fn order_runs(&mut self) -> Result<(), PlanError> {
        if self.unfolded { self.order() } else { Ok(()) }
    }

    /// Frees the tables that the stores among the first `count` steps remove.
    pub fn free_tables(&mut self, count: usize) -> Result<(), PlanError> {
        let geometry = self.regime.geometry;
        for at in 0..count {
            let Some(Step::Store(store)) = self.script.steps().get(at).copied() else { continue };
            let (Edit::Write { .. }, Some(level)) = (store.edit, store.level.next()) else { continue };
            for nth in 0..usize::from(store.count) {
                let found = read(self.window, store.level, store.table, usize::from(store.index) + nth);
                if let Some(table) = found.next_table(geometry) {
                    let va = Va(store.va.0 + ((nth as u64) << geometry.shift(store.level)));
                    self.script.push(Step::Free { va, table, level })?;
                }
            }
        }
        Ok(())
    }

    /// Ends the plan: everything ordered, invalidated, and in force on this CPU.
    #[inline]
    pub fn finish(&mut self) -> Result<(), PlanError> {
        if matches!(self.script.steps().last(), None | Some(Step::Isb | Step::Free { .. })) {
            return Ok(());
        }
        // As after the split of one block.
        if self.spans.is_empty() && self.unordered && self.meanwhile != Meanwhile::Parked {
            self.unordered = false;
            let [order, isb] = self.script.room()?;
            *order = Step::Dsb(Dsb::Ishst);
            *isb = Step::Isb;
            return Ok(());
        }
        self.end()
    }

    #[inline(never)]
    fn end(&mut self) -> Result<(), PlanError> {
        if self.meanwhile == Meanwhile::Parked {
            self.order()?;
            self.script.push(Step::Invalidate(Invalidation::All))?;
            self.script.push(Step::Dsb(Dsb::Ish))?;
        } else {
            self.settle()?;
        }
        self.script.push(Step::Isb)
    }
}

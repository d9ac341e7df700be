//! Changes of a leaf that always need break-before-make: another frame, another memory type.

use linmap_table::cpu::Dsb;
use linmap_table::{FrameSource, TableWindow};
use linmap_vmsa::bbm::Reason;
use linmap_vmsa::{Descriptor, Execute, Level, Pa, Va};

use crate::entry::{CONTIGUOUS, Entry, PAGE_BIT, VALID_BIT, attributes_beside, entry, leaf};
use crate::exclusivity::Exclusivity;
use crate::gather::{gather, is_writable};
use crate::invalidate::{Span, by_va};
use crate::node::Node;
use crate::plan::Outcome;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::scope::Scope;
use crate::script::store_of;
use crate::step::{Edit, Step};

/// What all leaves of a range become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    /// First address of the range.
    pub first: u64,
    /// What that address translates to. `None` keeps the memory.
    pub to: Option<Pa>,
    /// Attribute bits to clear.
    pub clear: u64,
    /// Attribute bits to set.
    pub set: u64,
    /// Why it needs break-before-make.
    pub reason: Reason,
}

/// What a walk does with the leaves that it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Break,
    Make,
}

/// A leaf, or a whole contiguous run.
#[derive(Clone, Copy, Debug)]
struct Whole {
    index: usize,
    count: usize,
    lead: Descriptor,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to rewrite all leaves in `first..=last`: first all of them become invalid, then, after
    /// their invalidation, the new ones are stored.
    #[inline(never)]
    pub fn rewrite(&mut self, first: u64, last: u64, rewrite: &Rewrite) -> Result<(), PlanError> {
        if rewrite.clear & VALID_BIT != 0 {
            self.outcome = Outcome::Unmapped;
        }
        let top = self.lowest(first, last);
        if let Some(to) = rewrite.to
            && top.level == Level::L3
            && first ^ last == (1 << self.context.page_shift) - 1
            && self.context.scope != Scope::Vmid
            && matches!(self.exclusivity, Exclusivity::Retried | Exclusivity::Quiescent)
        {
            let index = top.index(first);
            let lead = self.read(top, index);
            if lead.0 & (CONTIGUOUS | PAGE_BIT | VALID_BIT) == PAGE_BIT | VALID_BIT {
                return self.rewrite_page(top, index, lead, to, rewrite);
            }
        }
        if self.exclusivity != Exclusivity::Parked {
            self.rewrite_below(top, first, last, rewrite, Phase::Break)?;
            self.settle()?;
        }
        self.rewrite_below(top, first, last, rewrite, Phase::Make)
    }

    /// Plans to have one page, valid and outside of runs, translate to `to`. The plan is the one
    /// that [`rewrite`](Self::rewrite) makes of it otherwise.
    // The reason is the cost of copy-on-write.
    #[inline(always)]
    fn rewrite_page(
        &mut self,
        node: Node,
        index: usize,
        lead: Descriptor,
        to: Pa,
        rewrite: &Rewrite,
    ) -> Result<(), PlanError> {
        let attributes = attributes_beside(self.context.address_bits, lead) & !rewrite.clear | rewrite.set;
        let new = leaf(self.context.geometry, Level::L3, attributes, to);
        if new == lead {
            return Ok(());
        }
        if is_writable(new.0) && self.is_executable(new) {
            return Err(PlanError::WritableAndExecutable { va: Va(node.va(index)) });
        }
        let broken = Edit::Bits { clear: VALID_BIT, set: 0 };
        let made = Edit::Write { first: new, step: 1 << node.shift };
        let span = Span::leaves(node.va(index), 1, node.shift);
        let [first, order, invalidate, complete, second] = self.script.room()?;
        *first = Step::Store(store_of(node, index, 1, broken));
        *order = Step::Dsb(Dsb::Ishst);
        *invalidate = Step::Invalidate(by_va(span));
        *complete = Step::Dsb(Dsb::Ish);
        *second = Step::Store(store_of(node, index, 1, made));
        self.stored();
        Ok(())
    }

    /// Whether anybody executes a leaf of stage 1.
    fn is_executable(&self, leaf: Descriptor) -> bool {
        let never = Execute::Never.bits_in(self.context.geometry.regime());
        leaf.0 & never != never
    }

    /// Plans to clean and invalidate caches for `len` bytes, by the address `va`, once all stores
    /// so far are in force.
    pub fn maintain(&mut self, va: Va, len: u64) -> Result<(), PlanError> {
        if !self.unsynchronised {
            return Ok(());
        }
        self.finish()?;
        self.script.push(Step::CleanInvalidate { va, len })
    }

    fn rewrite_below(
        &mut self,
        node: Node,
        first: u64,
        last: u64,
        rewrite: &Rewrite,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let (mut index, to) = self.indices(node, first, last);
        while index <= to {
            let found = self.read(node, index);
            match (entry(self.context.geometry, node.level, found), node.level.next()) {
                (Entry::Table(table), Some(_)) => {
                    let below = self.context.below(node, index, table);
                    self.rewrite_below(below, first, last, rewrite, phase)?;
                    index += 1;
                }
                (Entry::Leaf(_), _) => {
                    let whole = self.whole(node, index, found)?;
                    let (start, end) = (node.va(whole.index), node.last(whole.index + whole.count - 1));
                    if start < first || end > last {
                        return Err(PlanError::PartOfLeaf { va: Va(start) });
                    }
                    self.rewrite_leaf(node, whole, rewrite, phase)?;
                    index = whole.index + whole.count;
                }
                (Entry::Empty, _) => return Err(PlanError::Hole { va: Va(node.va(index).max(first)) }),
                _ => return Err(self.foreign(node, index, found)),
            }
        }
        Ok(())
    }

    /// Returns the leaf at `index`, or the run that it is part of.
    #[inline(always)]
    fn whole(&mut self, node: Node, index: usize, found: Descriptor) -> Result<Whole, PlanError> {
        if !found.is_contiguous() {
            return Ok(Whole { index, count: 1, lead: found });
        }
        let Some(count) = self.context.run(node.level) else {
            return Err(self.foreign(node, index, found));
        };
        let start = index & !(count - 1);
        let (shift, regime) = (node.shift, self.context.geometry.regime());
        match self.look(node, start, start + count - 1, |entries| gather(entries, shift, regime)) {
            Ok(gathered) => Ok(Whole { index: start, count, lead: gathered.lead }),
            Err(nth) => {
                let found = self.read(node, start + nth);
                Err(self.foreign(node, start + nth, found))
            }
        }
    }

    fn rewrite_leaf(
        &mut self,
        node: Node,
        whole: Whole,
        rewrite: &Rewrite,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let Whole { index, count, lead } = whole;
        let Some(first) = self.rewritten(node, whole, rewrite)? else { return Ok(()) };
        match phase {
            Phase::Break if !lead.is_valid() => Ok(()),
            Phase::Break if self.exclusivity == Exclusivity::InUse => {
                Err(PlanError::NeedsBreak { va: Va(node.va(index)), reason: rewrite.reason })
            }
            Phase::Break => {
                self.store(node, index, count, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                self.invalidate_leaves(node, index, count);
                Ok(())
            }
            Phase::Make => {
                let step = if node.level == Level::L3 || count > 1 { 1 << node.shift } else { 0 };
                self.store(node, index, count, Edit::Write { first, step })
            }
        }
    }

    /// Returns what the leaf, or the first of the run, becomes; `None` if it stays.
    #[inline(always)]
    fn rewritten(
        &self,
        node: Node,
        whole: Whole,
        rewrite: &Rewrite,
    ) -> Result<Option<Descriptor>, PlanError> {
        let geometry = self.context.geometry;
        let Whole { index, count, lead } = whole;
        let va = node.va(index);
        let Entry::Leaf(old) = entry(geometry, node.level, lead) else {
            return Err(self.foreign(node, index, lead));
        };
        if rewrite.to.is_none() && !lead.is_valid() {
            return Err(PlanError::Hole { va: Va(va) });
        }
        let pa = rewrite.to.map_or(old, |to| Pa(to.0.wrapping_add(va.wrapping_sub(rewrite.first))));
        if pa.0 & ((count as u64).wrapping_shl(node.shift).wrapping_sub(1)) != 0 {
            return Err(PlanError::PartOfLeaf { va: Va(va) });
        }
        let attributes = attributes_beside(self.context.address_bits, lead) & !rewrite.clear | rewrite.set;
        let new = leaf(geometry, node.level, attributes, pa).0 | lead.0 & CONTIGUOUS;
        // The decision must be the same in both rounds, whatever hardware updates between them.
        let is_updated = (rewrite.clear | rewrite.set) & self.context.updatable(lead) != 0;
        if new == lead.0 && !is_updated {
            return Ok(None);
        }
        if self.context.scope != Scope::Vmid && is_writable(new) && self.is_executable(Descriptor(new)) {
            return Err(PlanError::WritableAndExecutable { va: Va(va) });
        }
        Ok(Some(Descriptor(new)))
    }
}

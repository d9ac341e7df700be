//! Making leaves smaller: contiguous runs lose the bit, tables that translate identically replace
//! blocks.

use core::mem::MaybeUninit;
use core::ops::Range;
use core::slice;

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level, Pa, Va};

use crate::entry::{CONTIGUOUS, Entry, VALID_BIT, attributes_beside, entry, leaf};
use crate::exclusivity::Exclusivity;
use crate::gather::{Gathered, gather};
use crate::hierarchy::allows;
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::step::Edit;
use linmap_table::TableWindow;
use linmap_table::fill;
use linmap_table::release_below;
use linmap_table::{FrameSource, OutOfFrames};

/// Which leaves are too large.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// Leaves that reach over an end of the range `first..=last`, unless they have the attributes
    /// in `wanted` already: all bits of its first mask are clear, all bits of its second are set.
    Ends { first: u64, last: u64, wanted: Option<(u64, u64)> },
    /// Leaves in the range that are larger than an entry at `to`.
    Down { first: u64, last: u64, to: Level },
}

impl Cut {
    /// Whether a leaf at `level`, or a run of them, for `start..=end` is cut.
    #[inline(always)]
    pub(crate) fn cuts(self, level: Level, is_run: bool, start: u64, end: u64) -> bool {
        match self {
            Self::Ends { first, last, .. } => {
                (start < first && first <= end) || (start <= last && last < end)
            }
            Self::Down { first, last, to } => {
                start <= last && first <= end && (level < to || (is_run && level == to))
            }
        }
    }

    /// Returns whether every run is cut in a table at `level` that translates `bytes` + 1 bytes
    /// from `base` on.
    fn leaves_no_run(self, level: Level, base: u64, bytes: u64) -> bool {
        matches!(self, Self::Down { first, last, to } if level <= to && first <= base && base + bytes <= last)
    }

    /// Returns the entries that may have to be cut in a table of `count` entries of `1 << shift`
    /// bytes each, from `base` on.
    #[inline(always)]
    fn candidates(self, base: u64, count: usize, shift: u32) -> [Range<usize>; 2] {
        let reach = (count as u64) << shift;
        let index =
            |va: u64| Some(va.wrapping_sub(base)).filter(|at| *at < reach).map(|at| (at >> shift) as usize);
        match self {
            Self::Ends { first, last, .. } => {
                let at = |index: Option<usize>| index.map_or(0..0, |index| index..index + 1);
                let (from, to) = (index(first), index(last));
                [at(from), if from == to { 0..0 } else { at(to) }]
            }
            Self::Down { first, last, .. } => {
                let from = if first <= base { Some(0) } else { index(first) };
                let to = if last - base >= reach { Some(count - 1) } else { index(last) };
                [from.zip(to).map_or(0..0, |(from, to)| from..to + 1), 0..0]
            }
        }
    }

    /// Returns whether a leaf needs no cut because it has the attributes already.
    #[inline(always)]
    pub(crate) fn spares(self, descriptor: Descriptor) -> bool {
        match self {
            Self::Ends { wanted: Some((clear, set)), .. } => {
                descriptor.0 & clear == 0 && descriptor.0 & set == set
            }
            Self::Ends { wanted: None, .. } | Self::Down { .. } => false,
        }
    }
}

/// What a walk of a split does with the leaves that it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Stores the new entry over the old one.
    InPlace,
    /// Makes entries invalid that can't change in place.
    Break,
    /// Stores the new entry where the old one was made invalid.
    Make,
    /// Clears the contiguous bits of runs, where hardware updates leaves.
    Unfold,
    /// Gathers what hardware has updated in runs, which no TLB holds any more.
    Gather,
}

/// A contiguous run in a table.
#[derive(Clone, Copy, Debug)]
struct Run {
    node: Node,
    index: usize,
    count: usize,
    gathered: Gathered,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to make smaller all leaves that `cut` cuts.
    #[inline(always)]
    pub fn split(&mut self, cut: Cut) -> Result<(), PlanError> {
        let (Cut::Ends { first, last, .. } | Cut::Down { first, last, .. }) = cut;
        self.top = self.lowest(first, last);
        if self.top.level == Level::L3 && matches!(cut, Cut::Ends { .. }) && !self.has_runs(first, last) {
            return Ok(());
        }
        self.split_all(self.top, cut)
    }

    /// Returns whether the page for `first` or that for `last`, both in the table `top`, is part of
    /// a run.
    #[inline(always)]
    fn has_runs(&mut self, first: u64, last: u64) -> bool {
        let top = self.top;
        [first, last].into_iter().any(|va| self.read(top, top.index(va)).is_contiguous())
    }

    /// Plans to make smaller all leaves in the table `top` and below that `cut` cuts.
    #[inline(never)]
    fn split_all(&mut self, top: Node, cut: Cut) -> Result<(), PlanError> {
        if self.context.updates.is_on() {
            self.split_updated(top, cut)?;
        } else if self.exclusivity.breaks_sizes(self.context.bbm) {
            self.walk_splits(top, cut, Phase::Break)?;
            self.settle()?;
            self.walk_splits(top, cut, Phase::Make)?;
        } else {
            self.walk_splits(top, cut, Phase::InPlace)?;
        }
        self.splits_end();
        Ok(())
    }

    pub(crate) fn walk_splits(&mut self, top: Node, cut: Cut, phase: Phase) -> Result<(), PlanError> {
        match cut {
            Cut::Ends { first, last, .. } => {
                let handled = self.split_at(top, first, cut, phase)?;
                if handled < last {
                    self.split_at(top, last, cut, phase)?;
                }
                Ok(())
            }
            Cut::Down { first, last, .. } => self.split_below(top, first, last, cut, phase),
        }
    }

    /// Splits the leaf for `va`, if there is one and `cut` cuts it. Returns the last address of the
    /// entry or run.
    fn split_at(&mut self, top: Node, va: u64, cut: Cut, phase: Phase) -> Result<u64, PlanError> {
        let mut node = top;
        loop {
            let index = self.context.geometry.index(Va(va), node.level);
            let descriptor = self.read(node, index);
            match (entry(self.context.geometry, node.level, descriptor), node.level.next()) {
                (Entry::Empty, _) => return Ok(node.last(index)),
                (Entry::Table(table), Some(_)) => {
                    node = self.context.below(node, index, table);
                }
                // A page can't be split.
                (Entry::Leaf(_), None) if !descriptor.is_contiguous() => return Ok(node.last(index)),
                (Entry::Leaf(_), _) if !descriptor.is_contiguous() => {
                    self.split_leaf(node, index, descriptor, cut, phase)?;
                    return Ok(node.last(index));
                }
                (Entry::Leaf(_), _) => {
                    let run = self.run_around(node, index, descriptor)?;
                    self.split_run(&run, cut, phase)?;
                    return Ok(node.last(run.index + run.count - 1));
                }
                _ => return Err(self.foreign(node, index, descriptor)),
            }
        }
    }

    /// Splits what `cut` cuts of the leaves in `first..=last` below `node`.
    fn split_below(
        &mut self,
        node: Node,
        first: u64,
        last: u64,
        cut: Cut,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let (mut index, to) = self.indices(node, first, last);
        while index <= to {
            let descriptor = self.read(node, index);
            match (entry(self.context.geometry, node.level, descriptor), node.level.next()) {
                (Entry::Empty, _) => {}
                (Entry::Table(table), Some(_)) => {
                    let below = self.context.below(node, index, table);
                    self.split_below(below, first, last, cut, phase)?;
                }
                (Entry::Leaf(_), _) if !descriptor.is_contiguous() => {
                    self.split_leaf(node, index, descriptor, cut, phase)?;
                }
                (Entry::Leaf(_), _) => {
                    let run = self.run_around(node, index, descriptor)?;
                    self.split_run(&run, cut, phase)?;
                    index = run.index + run.count - 1;
                }
                _ => return Err(self.foreign(node, index, descriptor)),
            }
            index += 1;
        }
        Ok(())
    }

    pub(crate) fn foreign(&self, node: Node, index: usize, found: Descriptor) -> PlanError {
        let Node { table, level, .. } = node;
        PlanError::Foreign { va: Va(node.va(index)), table, level, index, found }
    }

    /// Returns the first entry and the number of entries of the leaf `found` at `index`, or of the
    /// run that it is part of, and what they are together.
    pub(crate) fn leaf_around(
        &mut self,
        node: Node,
        index: usize,
        found: Descriptor,
    ) -> Result<(usize, usize, Descriptor), PlanError> {
        if !found.is_contiguous() {
            return Ok((index, 1, found));
        }
        let run = self.run_around(node, index, found)?;
        Ok((run.index, run.count, run.gathered.lead))
    }

    /// Returns the run that the leaf at `index` is part of, whose entries must be consecutive.
    fn run_around(&mut self, node: Node, index: usize, descriptor: Descriptor) -> Result<Run, PlanError> {
        let Some(count) = self.context.run(node.level) else {
            return Err(self.foreign(node, index, descriptor));
        };
        let start = index & !(count - 1);
        let (shift, regime) = (node.shift, self.context.geometry.regime());
        match self.look(node, start, start + count - 1, |entries| gather(entries, shift, regime)) {
            Ok(gathered) => Ok(Run { node, index: start, count, gathered }),
            Err(nth) => {
                let found = self.read(node, start + nth);
                Err(self.foreign(node, start + nth, found))
            }
        }
    }

    /// Refuses to change the size of a valid leaf in use below BBM level 3.
    #[inline(always)]
    fn may_split(&self, valid: bool, va: u64) -> Result<(), PlanError> {
        let bbm = self.context.bbm;
        if valid && self.exclusivity == Exclusivity::InUse && bbm != BbmLevel::L3 {
            return Err(PlanError::NeedsLevel3 { va: Va(va), bbm });
        }
        Ok(())
    }

    /// Splits the leaf `whole`, not one of a run, if `cut` cuts it.
    #[inline(always)]
    fn split_leaf(
        &mut self,
        node: Node,
        index: usize,
        whole: Descriptor,
        cut: Cut,
        phase: Phase,
    ) -> Result<(), PlanError> {
        let va = node.va(index);
        if !cut.cuts(node.level, false, va, node.last(index)) || cut.spares(whole) {
            return Ok(());
        }
        let valid = whole.is_valid();
        self.may_split(valid, va)?;
        if matches!(phase, Phase::Unfold | Phase::Gather) {
            return Ok(());
        }
        if phase == Phase::Break {
            if valid {
                self.store(node, index, 1, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                self.invalidate_leaves(node, index, 1);
            }
            return Ok(());
        }
        // At level 3 a TLB may keep the larger entry, which translates identically.
        if phase == Phase::InPlace && valid && self.context.bbm != BbmLevel::L3 {
            self.invalidate_leaves(node, index, 1);
        }
        self.replace(node, index, whole, cut)?;
        Ok(())
    }

    /// Splits a run to its entries if `cut` cuts it, and those that it cuts further.
    fn split_run(&mut self, run: &Run, cut: Cut, phase: Phase) -> Result<(), PlanError> {
        let Run { node, index, count, gathered: Gathered { lead, clear, set } } = *run;
        let (start, end) = (node.va(index), node.last(index + count - 1));
        if !cut.cuts(node.level, true, start, end) || cut.spares(lead) {
            return Ok(());
        }
        let valid = lead.is_valid();
        self.may_split(valid, start)?;
        match phase {
            Phase::Break => {
                if valid {
                    self.store(node, index, count, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                    self.invalidate_leaves(node, index, count);
                }
                return Ok(());
            }
            Phase::Gather => return self.gather_run(node, index, count),
            Phase::Unfold => return self.unfold_updated(run),
            Phase::InPlace if self.context.updates.is_on() => {}
            Phase::InPlace => {
                // At level 3 a TLB may keep the run, which translates identically, unless hardware
                // has updated some of its entries.
                if valid && (self.context.bbm != BbmLevel::L3 || clear | set != 0) {
                    self.invalidate_leaves(node, index, count);
                }
                self.unfold(node, index, count, (clear, set))?;
            }
            Phase::Make => {}
        }
        let remade = Edit::Bits { clear: CONTIGUOUS | clear, set: set | if valid { VALID_BIT } else { 0 } };
        // A page has nothing smaller.
        if node.level == Level::L3 {
            return if phase == Phase::Make { self.store(node, index, count, remade) } else { Ok(()) };
        }
        for nth in index..index + count {
            if cut.cuts(node.level, false, node.va(nth), node.last(nth)) {
                // Without hardware updates the whole run is invalidated already.
                let unfolded = self.context.updates.is_on() && phase == Phase::InPlace;
                if unfolded && valid && self.context.bbm != BbmLevel::L3 {
                    self.invalidate_leaves(node, nth, 1);
                }
                let whole = Descriptor(self.read(node, nth).0 & !clear | set);
                self.replace(node, nth, whole, cut)?;
            } else if phase == Phase::Make {
                self.store(node, nth, 1, remade)?;
            }
        }
        Ok(())
    }

    /// Plans to clear the contiguous bits of `run`, and to invalidate it: a TLB that kept it would
    /// let a CPU write to an entry that says it is clean.
    #[cold]
    #[inline(never)]
    fn unfold_updated(&mut self, run: &Run) -> Result<(), PlanError> {
        let Run { node, index, count, gathered: Gathered { lead, clear, set } } = *run;
        if lead.is_valid() {
            self.invalidate_leaves(node, index, count);
        }
        self.unfold(node, index, count, (clear, set))
    }

    /// Plans to link a new table over the block `whole`.
    #[inline(always)]
    fn replace(&mut self, node: Node, index: usize, whole: Descriptor, cut: Cut) -> Result<Pa, PlanError> {
        let geometry = self.context.geometry;
        let (Entry::Leaf(pa), Some(next)) = (entry(geometry, node.level, whole), node.level.next()) else {
            return Err(self.foreign(node, index, whole));
        };
        let attributes = attributes_beside(self.context.address_bits, whole);
        let base = node.va(index);
        let tables = geometry.table_permissions();
        if !tables.is_all() && !allows(geometry, tables, attributes) {
            return Err(PlanError::TakenByTables { va: Va(base), tables });
        }
        let table = self.table_of_leaves(next, base, attributes, pa, cut)?;
        let linked = if self.context.updates.is_on() {
            self.link_updated(node, index, table, whole)
        } else {
            self.link(node, index, table)
        };
        if let Err(error) = linked {
            self.release(table, next);
            return Err(error);
        }
        Ok(table)
    }

    /// Frees a new table at `level` and those below.
    #[cold]
    #[inline(never)]
    fn release(&mut self, table: Pa, level: Level) {
        // SAFETY: the planner allocated the frames from this source and wrote the tables, and
        // nothing leads to them yet. By the promise of `LiveTree::new` the window reaches them.
        unsafe {
            release_below(self.context.geometry, table, level, self.window, self.frames);
            self.frames.free(table);
        }
    }

    /// Writes a new table at `level` for `base` that translates to the memory from `pa` on, with
    /// the largest leaves that `cut` allows. On an error all frames are freed.
    fn table_of_leaves(
        &mut self,
        level: Level,
        base: u64,
        attributes: u64,
        pa: Pa,
        cut: Cut,
    ) -> Result<Pa, OutOfFrames> {
        let geometry = self.context.geometry;
        let shift = self.context.shift(level);
        let count = self.context.entries(level);
        let table = self.frames.alloc()?;
        // SAFETY: by the promise of `LiveTree::new` the window reaches every frame of the source.
        let pointer = unsafe { self.window.open(level, table) };
        // SAFETY: an open table is valid for writes of a whole granule, nothing else has the frame,
        // and the slice is not used any more when the loop below opens tables of deeper levels and
        // writes through the pointer.
        let entries =
            unsafe { slice::from_raw_parts_mut(pointer.cast::<MaybeUninit<u64>>().as_ptr(), count) };
        let single = leaf(geometry, level, attributes, pa);
        // The memory of one block does not cross a multiple of 2^48, where descriptors of
        // consecutive addresses are no longer consecutive.
        let candidates = cut.candidates(base, count, shift);
        let whole = (count as u64).wrapping_shl(shift).wrapping_sub(1);
        let run = self.context.new_run(level).filter(|_| !cut.leaves_no_run(level, base, whole));
        fill(entries, single.0 | if run.is_some() { CONTIGUOUS } else { 0 }, 1 << shift);
        if let Some(run) = run {
            let bytes = (run as u64).wrapping_shl(shift);
            for part in candidates.iter().filter(|part| !part.is_empty()) {
                let from = part.start & !(run - 1);
                let rest = entries.get_mut(from..).unwrap_or_default();
                for (nth, entries) in rest.chunks_exact_mut(run).enumerate() {
                    if from + nth * run >= part.end {
                        break;
                    }
                    let start =
                        (from as u64).wrapping_shl(shift).wrapping_add(bytes.wrapping_mul(nth as u64));
                    let va = base.wrapping_add(start);
                    if cut.cuts(level, true, va, va.wrapping_add(bytes.wrapping_sub(1))) {
                        fill(entries, single.0.wrapping_add(start), 1 << shift);
                    }
                }
            }
        }
        let mut result = Ok(());
        let Some(next) = level.next() else {
            self.window.close(level);
            return Ok(table);
        };
        for index in candidates.into_iter().flatten() {
            let va = base + ((index as u64) << shift);
            if !cut.cuts(level, false, va, va + ((1u64 << shift) - 1)) {
                continue;
            }
            let part = Pa(pa.0 + ((index as u64) << shift));
            match self.table_of_leaves(next, va, attributes, part, cut) {
                // SAFETY: the table is still open and has more than `index` entries.
                Ok(below) => unsafe { pointer.add(index).write(Descriptor::table(geometry, below).0) },
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.window.close(level);
        match result {
            Ok(()) => Ok(table),
            Err(error) => {
                // Every entry is written, so the tables linked so far are found.
                self.release(table, level);
                Err(error)
            }
        }
    }
}

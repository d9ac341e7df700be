//! Making leaves larger: blocks replace tables that translate identically, neighbouring leaves
//! become contiguous runs.

use core::ops::RangeInclusive;

use arrayvec::ArrayVec;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Level, Va};

use crate::entry::{CONTIGUOUS, Entry, VALID_BIT, entry, leaf};
use crate::exclusivity::Exclusivity;
use crate::gather::are_consecutive;
use crate::invalidate::Span;
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::step::{Edit, Step};
use crate::uniform::uniform_below;
use crate::uniform_updated::uniform_or_updated;
use linmap_table::FrameSource;
use linmap_table::TableWindow;

/// What a walk of a fold does with the entries that it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Stores blocks over tables.
    Blocks,
    /// Sets the contiguous bit of runs, when TLBs hold nothing but the blocks in them.
    Runs,
    /// Makes entries invalid that will become larger leaves.
    Break,
    /// Stores the larger leaves where the smaller ones are invalid, or on a parked tree.
    Make,
    /// As `Make`, where hardware may have updated the smaller leaves since they were looked at.
    Remake,
}

/// The longest contiguous run above the level of pages: 32 blocks of 32 or 512 MiB.
const LONGEST_RUN: usize = 32;

/// The entries of a possible run that lie in the range, at least one of them a table.
#[derive(Debug)]
struct Group {
    index: usize,
    /// Each entry after tables became blocks, without the contiguous bit; 0 if it is not a leaf
    /// then.
    folded: ArrayVec<u64, LONGEST_RUN>,
    /// Whether the entries become a contiguous run that they are not yet.
    becomes_run: bool,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to fold what lies in `first..=last`.
    // Inlined into the one caller that every kernel has.
    #[inline(always)]
    pub fn fold(&mut self, first: u64, last: u64) -> Result<(), PlanError> {
        let top = self.lowest(first, last);
        let index = top.index(first);
        if self.context.bbm == BbmLevel::L3
            && self.exclusivity != Exclusivity::Parked
            && (top.va(index), top.last(index)) == (first, last)
            && let Some(level) = top.level.next()
        {
            return self.fold_one(top, index, level);
        }
        self.fold_inside(top, first, last)
    }

    /// [`fold`](Self::fold) without a short way for one table.
    pub fn fold_any(&mut self, first: u64, last: u64) -> Result<(), PlanError> {
        let top = self.lowest(first, last);
        self.fold_inside(top, first, last)
    }

    /// Plans to fold what lies in `first..=last`, in the table `top` and below.
    fn fold_inside(&mut self, top: Node, first: u64, last: u64) -> Result<(), PlanError> {
        if self.exclusivity == Exclusivity::Parked {
            self.fold_below(top, first, last, Phase::Make)?;
            let removed = self.script.len();
            self.collect_removed()?;
            self.finish()?;
            return self.free_tables(removed);
        }
        let breaks = self.exclusivity.breaks_sizes(self.context.bbm);
        // The new blocks are in use by all CPUs before the second phase makes them runs.
        let phases = match (breaks, self.context.updates.is_on()) {
            (true, false) => [Phase::Break, Phase::Make],
            (true, true) => [Phase::Break, Phase::Remake],
            (false, _) => [Phase::Blocks, Phase::Runs],
        };
        let mut runs = self.fold_below(top, first, last, phases[0])?;
        let removed = self.script.len();
        self.settle()?;
        runs |= breaks;
        if runs {
            self.fold_below(top, first, last, phases[1])?;
        }
        self.collect_removed()?;
        self.finish()?;
        self.free_tables(removed)
    }

    /// Plans to fold the table at `level` that one entry leads to, if it leads to one. A range of
    /// one entry holds no run of blocks.
    fn fold_one(&mut self, node: Node, index: usize, level: Level) -> Result<(), PlanError> {
        let geometry = self.context.geometry;
        let found = self.read(node, index);
        let Some(table) = self.context.next_table(found) else { return Ok(()) };
        let below = self.context.below(node, index, table);
        let whole = if geometry.has_leaf(node.level) {
            uniform_below(self.context, self.window, found, table, level)
        } else {
            None
        };
        let Some((attributes, pa)) = whole else {
            return self.fold_inside(below, node.va(index), node.last(index));
        };
        let first = leaf(geometry, node.level, attributes, pa);
        self.store(node, index, 1, Edit::Write { first, step: 0 })?;
        if level == Level::L3 && first.is_valid() {
            self.spans.push(Span::all_levels(below.base, self.context.entries(level), below.shift));
        } else {
            self.invalidate_table(below);
        }
        self.finish()?;
        self.script.push(Step::Free { va: Va(below.base), table, level })
    }

    /// Returns whether the second phase may find runs to fold.
    fn fold_below(&mut self, node: Node, first: u64, last: u64, phase: Phase) -> Result<bool, PlanError> {
        let (from, to) = self.indices(node, first, last);
        let run = self.context.new_run(node.level);
        if node.level == Level::L3 {
            return match run {
                Some(run) if phase != Phase::Blocks => self.fold_pages(node, from..=to, run, phase),
                run => Ok(run.is_some()),
            };
        }
        let step = run.unwrap_or(1);
        let mut start = from & !(step - 1);
        let mut runs = false;
        let mut group = Group { index: 0, folded: ArrayVec::new_const(), becomes_run: false };
        while start <= to {
            let entries = start.max(from)..=(start + step - 1).min(to);
            if self.look(node, *entries.start(), *entries.end(), |entries| entries.iter().all(no_table)) {
                // Most entries of a large map are blocks.
                if run.is_some() && first <= node.va(start) && node.last(start + step - 1) <= last {
                    runs |= self.fold_leaves(node, start, step, phase)?;
                }
            } else {
                self.look_at_group(node, step, entries.clone(), &mut group, (first, last), phase);
                self.fold_group(node, &group, phase)?;
                runs |= group.becomes_run;
                for index in entries {
                    runs |= self.fold_child(node, index, &group, first, last, phase)?;
                }
            }
            start += step;
        }
        Ok(runs)
    }

    /// Folds the pages `entries` of a table to runs of `run` pages.
    fn fold_pages(
        &mut self,
        node: Node,
        entries: RangeInclusive<usize>,
        run: usize,
        phase: Phase,
    ) -> Result<bool, PlanError> {
        let mut runs = false;
        let mut start = entries.start().next_multiple_of(run);
        while start + run <= entries.end() + 1 {
            runs |= self.fold_leaves(node, start, run, phase)?;
            start += run;
        }
        Ok(runs)
    }

    /// Folds `run` entries from `start` on, none of them a table, to a contiguous run, if they can
    /// be one and are not. Returns whether they can.
    #[inline(always)]
    fn fold_leaves(&mut self, node: Node, start: usize, run: usize, phase: Phase) -> Result<bool, PlanError> {
        if phase == Phase::Remake && self.read(node, start).is_valid() {
            return self.remake_leaves(node, start, run);
        }
        let shift = node.shift;
        let lead = self.look(node, start, start + run - 1, |entries| {
            let first = *entries.first()?;
            // Hardware may have updated the entries of a run, which is one already.
            (first != 0 && first & CONTIGUOUS == 0 && are_consecutive(entries, shift)).then_some(first)
        });
        let Some(lead) = lead.map(Descriptor) else { return Ok(false) };
        let Entry::Leaf(pa) = entry(self.context.geometry, node.level, lead) else { return Ok(false) };
        if pa.0 & (((run as u64) << shift) - 1) != 0 {
            return Ok(false);
        }
        match phase {
            Phase::Blocks => {}
            Phase::Runs => self.fold_run(node, start, run, lead)?,
            Phase::Break if lead.is_valid() => {
                self.store(node, start, run, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                self.invalidate_leaves(node, start, run);
            }
            Phase::Break => {}
            // No hardware updates an invalidated leaf.
            Phase::Make | Phase::Remake => {
                let set = CONTIGUOUS | lead.0 & VALID_BIT;
                self.store(node, start, run, Edit::Bits { clear: 0, set })?;
            }
        }
        Ok(true)
    }

    /// Makes a run of leaves that are valid in memory, if the plan makes them invalid before.
    #[cold]
    #[inline(never)]
    fn remake_leaves(&mut self, node: Node, start: usize, run: usize) -> Result<bool, PlanError> {
        let broken = self.is_broken(node, start);
        if broken {
            self.store(node, start, run, Edit::Bits { clear: 0, set: CONTIGUOUS | VALID_BIT })?;
        }
        Ok(broken)
    }

    /// Folds below a table that stays.
    fn fold_child(
        &mut self,
        node: Node,
        index: usize,
        group: &Group,
        first: u64,
        last: u64,
        phase: Phase,
    ) -> Result<bool, PlanError> {
        let folded = index.checked_sub(group.index).and_then(|nth| group.folded.get(nth));
        if folded.is_some_and(|folded| *folded != 0) {
            return Ok(false);
        }
        let found = self.read(node, index);
        if let (Entry::Table(table), Some(_)) =
            (entry(self.context.geometry, node.level, found), node.level.next())
        {
            let below = self.context.below(node, index, table);
            return self.fold_below(below, first, last, phase);
        }
        Ok(false)
    }

    /// Finds out what becomes of those of `entries` that lie in `first..=last`. They belong to one
    /// possible run of `run` entries.
    fn look_at_group(
        &mut self,
        node: Node,
        run: usize,
        entries: RangeInclusive<usize>,
        group: &mut Group,
        (first, last): (u64, u64),
        phase: Phase,
    ) {
        let geometry = self.context.geometry;
        group.folded.clear();
        group.becomes_run = false;
        let mut leaves_broken = None;
        for index in entries {
            if node.va(index) < first || node.last(index) > last {
                continue;
            }
            if group.folded.is_empty() {
                group.index = index;
            }
            let is_second = phase == Phase::Runs && self.context.updates.is_on();
            let found = if is_second { self.planned(node, index) } else { self.read(node, index) };
            group.folded.push(match (entry(geometry, node.level, found), node.level.next()) {
                (Entry::Leaf(_), _) => {
                    if phase == Phase::Remake && found.is_valid() {
                        leaves_broken = Some(self.is_broken(node, index));
                    }
                    found.0 & !CONTIGUOUS
                }
                (Entry::Table(table), Some(next)) if geometry.has_leaf(node.level) => {
                    let whole = match phase {
                        Phase::Remake if self.is_broken(node, index) => {
                            uniform_or_updated(self.context, self.window, table, next)
                        }
                        Phase::Remake => None,
                        // The first round found leaves in it that differ.
                        Phase::Runs if is_second => None,
                        _ => uniform_below(self.context, self.window, found, table, next),
                    };
                    whole.map_or(0, |(attributes, pa)| leaf(geometry, node.level, attributes, pa).0)
                }
                _ => 0,
            });
        }
        if run == 1 || group.folded.len() < run {
            return;
        }
        let lead = Descriptor(group.folded[0]);
        if let Entry::Leaf(pa) = entry(geometry, node.level, lead) {
            let aligned = pa.0 & (((run as u64) << node.shift) - 1) == 0;
            // Valid leaves of the group are broken if it becomes a run, and only then.
            group.becomes_run =
                leaves_broken.unwrap_or_else(|| aligned && are_consecutive(&group.folded, node.shift));
        }
    }

    fn fold_group(&mut self, node: Node, group: &Group, phase: Phase) -> Result<(), PlanError> {
        if phase == Phase::Runs {
            return match group.folded.first() {
                Some(lead) if group.becomes_run => {
                    self.fold_run(node, group.index, group.folded.len(), Descriptor(*lead))
                }
                _ => Ok(()),
            };
        }
        let geometry = self.context.geometry;
        if phase == Phase::Remake
            && group.becomes_run
            && let Some(lead) = group.folded.first()
        {
            // As one store: hardware may have updated single entries.
            let first = Descriptor(lead | CONTIGUOUS);
            let write = Edit::Write { first, step: 1 << node.shift };
            return self.store(node, group.index, group.folded.len(), write);
        }
        for (nth, folded) in group.folded.iter().enumerate() {
            let (index, folded) = (group.index + nth, Descriptor(*folded));
            if folded.0 == 0 {
                continue;
            }
            let found = self.read(node, index);
            let table = found.next_table(geometry);
            if table.is_none() && !group.becomes_run {
                continue;
            }
            let common = if group.becomes_run { CONTIGUOUS } else { 0 };
            match (phase, table) {
                (Phase::Blocks, Some(table)) => {
                    self.may_resize(node, index, folded)?;
                    self.store(node, index, 1, Edit::Write { first: folded, step: 0 })?;
                    self.invalidate_table(self.context.below(node, index, table));
                }
                (Phase::Break, Some(table)) => {
                    self.store(node, index, 1, Edit::Write { first: Descriptor::INVALID, step: 0 })?;
                    self.invalidate_table(self.context.below(node, index, table));
                }
                (Phase::Break, None) if found.is_valid() => {
                    self.store(node, index, 1, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                    self.invalidate_leaves(node, index, 1);
                }
                (Phase::Make | Phase::Remake, _) => {
                    let first = Descriptor(folded.0 | common);
                    self.store(node, index, 1, Edit::Write { first, step: 0 })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets the contiguous bit of the `count` entries from `index` on, the first of which is `lead`
    /// by then.
    fn fold_run(
        &mut self,
        node: Node,
        index: usize,
        count: usize,
        lead: Descriptor,
    ) -> Result<(), PlanError> {
        self.may_resize(node, index, lead)?;
        self.store(node, index, count, Edit::Bits { clear: 0, set: CONTIGUOUS })?;
        if lead.is_valid() && self.context.bbm != BbmLevel::L3 {
            self.invalidate_leaves(node, index, count);
        }
        Ok(())
    }

    /// Refuses to change the size of leaves in use below BBM level 3.
    fn may_resize(&self, node: Node, index: usize, folded: Descriptor) -> Result<(), PlanError> {
        let bbm = self.context.bbm;
        if folded.is_valid() && self.exclusivity == Exclusivity::InUse && bbm != BbmLevel::L3 {
            return Err(PlanError::NeedsLevel3 { va: Va(node.va(index)), bbm });
        }
        Ok(())
    }
}

/// Whether an entry above the level of pages does not lead to a table.
const fn no_table(bits: &u64) -> bool {
    !Descriptor(*bits).may_be_table()
}

//! Making leaves larger: blocks replace tables that translate identically, neighbouring leaves
//! become contiguous runs.

use core::ops::RangeInclusive;
use core::slice;

use arrayvec::ArrayVec;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va};

use crate::entry::{CONTIGUOUS, Entry, VALID_BIT, attributes_of, entry, leaf};
use crate::exclusivity::Exclusivity;
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::step::{Edit, Step};
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::read;

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
}

/// Entries that one turn of a loop compares: a divisor of the number of entries of every table
/// below a root.
const CHUNK: usize = 32;

/// The shortest contiguous run there is, or a part of a longer one.
const RUN: usize = 16;

/// Chunks that are compared before a difference ends the comparison.
const CHUNKS: usize = 4;

/// The longest contiguous run there is: 128 pages of 16 KiB.
const LONGEST_RUN: usize = 128;

/// The entries of a possible run that lie in the range.
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

    /// Plans to fold what lies in `first..=last`, in the table `top` and below.
    fn fold_inside(&mut self, top: Node, first: u64, last: u64) -> Result<(), PlanError> {
        if self.exclusivity == Exclusivity::Parked {
            self.fold_below(top, first, last, Phase::Make)?;
            let removed = self.script.len();
            self.finish()?;
            return self.free_tables(removed);
        }
        let breaks = self.exclusivity == Exclusivity::Quiescent
            && matches!(self.context.bbm, BbmLevel::L0 | BbmLevel::L1);
        // The new blocks are in use by all CPUs before the second phase makes them runs.
        let phases = if breaks { [Phase::Break, Phase::Make] } else { [Phase::Blocks, Phase::Runs] };
        let mut runs = self.fold_below(top, first, last, phases[0])?;
        let removed = self.script.len();
        self.settle()?;
        runs |= breaks;
        if runs {
            self.fold_below(top, first, last, phases[1])?;
        }
        self.finish()?;
        self.free_tables(removed)
    }

    /// Plans to fold the table at `level` that one entry leads to, if it leads to one. A range of
    /// one entry holds no run of blocks.
    fn fold_one(&mut self, node: Node, index: usize, level: Level) -> Result<(), PlanError> {
        let geometry = self.context.geometry;
        let found = self.read(node, index);
        let Some(table) = self.context.next_table(found) else { return Ok(()) };
        let whole =
            if geometry.has_leaf(node.level) { uniform(geometry, self.window, table, level) } else { None };
        let Some((attributes, pa)) = whole else {
            let below = self.context.below(node, index, table);
            return self.fold_inside(below, node.va(index), node.last(index));
        };
        let first = leaf(geometry, node.level, attributes, pa);
        self.store(node, index, 1, Edit::Write { first, step: 0 })?;
        self.invalidate_table(node, index);
        self.finish()?;
        self.script.push(Step::Free { va: Va(node.va(index)), table, level })
    }

    /// Returns whether the second phase may find runs to fold.
    fn fold_below(&mut self, node: Node, first: u64, last: u64, phase: Phase) -> Result<bool, PlanError> {
        if node.level == Level::L3 && phase == Phase::Blocks {
            return Ok(true);
        }
        let (from, to) = self.indices(node, first, last);
        let run = self.context.run(node.level).unwrap_or(1).min(LONGEST_RUN);
        let mut start = from & !(run - 1);
        let mut runs = false;
        let mut group = Group { index: 0, folded: ArrayVec::new_const(), becomes_run: false };
        while start <= to {
            let entries = start.max(from)..=(start + run - 1).min(to);
            self.look_at_group(node, run, entries.clone(), &mut group, first, last);
            self.fold_group(node, &group, phase)?;
            runs |= group.becomes_run;
            if node.level != Level::L3 {
                for index in entries {
                    runs |= self.fold_child(node, index, &group, first, last, phase)?;
                }
            }
            start += run;
        }
        Ok(runs)
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
        first: u64,
        last: u64,
    ) {
        let geometry = self.context.geometry;
        group.folded.clear();
        group.becomes_run = false;
        let mut contiguous = true;
        for index in entries {
            if node.va(index) < first || node.last(index) > last {
                continue;
            }
            if group.folded.is_empty() {
                group.index = index;
            }
            let found = self.read(node, index);
            contiguous &= found.is_contiguous();
            group.folded.push(match (entry(geometry, node.level, found), node.level.next()) {
                (Entry::Leaf(_), _) => found.0 & !CONTIGUOUS,
                (Entry::Table(table), Some(next)) if geometry.has_leaf(node.level) => {
                    match uniform(geometry, self.window, table, next) {
                        Some((attributes, pa)) => leaf(geometry, node.level, attributes, pa).0,
                        None => 0,
                    }
                }
                _ => 0,
            });
        }
        if run == 1 || group.folded.len() < run {
            return;
        }
        let lead = Descriptor(group.folded[0]);
        if let Entry::Leaf(pa) = entry(geometry, node.level, lead) {
            let consecutive =
                |(nth, bits): (usize, &u64)| *bits == lead.0.wrapping_add((nth as u64) << node.shift);
            let aligned = pa.0 & (((run as u64) << node.shift) - 1) == 0;
            group.becomes_run = !contiguous && aligned && group.folded.iter().enumerate().all(consecutive);
        }
    }

    fn fold_group(&mut self, node: Node, group: &Group, phase: Phase) -> Result<(), PlanError> {
        if phase == Phase::Runs {
            return self.fold_run(node, group);
        }
        let geometry = self.context.geometry;
        for (nth, folded) in group.folded.iter().enumerate() {
            let (index, folded) = (group.index + nth, Descriptor(*folded));
            if folded.0 == 0 {
                continue;
            }
            let found = self.read(node, index);
            let is_table = node.level != Level::L3 && found.next_table(geometry).is_some();
            if !is_table && !group.becomes_run {
                continue;
            }
            let common = if group.becomes_run { CONTIGUOUS } else { 0 };
            match (phase, is_table) {
                (Phase::Blocks, true) => {
                    self.may_resize(node, index, folded)?;
                    self.store(node, index, 1, Edit::Write { first: folded, step: 0 })?;
                    self.invalidate_table(node, index);
                }
                (Phase::Break, true) => {
                    self.store(node, index, 1, Edit::Write { first: Descriptor::INVALID, step: 0 })?;
                    self.invalidate_table(node, index);
                }
                (Phase::Break, false) if found.is_valid() => {
                    self.store(node, index, 1, Edit::Bits { clear: VALID_BIT, set: 0 })?;
                    self.invalidate_leaves(node, index, 1);
                }
                (Phase::Make, _) => {
                    let first = Descriptor(folded.0 | common);
                    self.store(node, index, 1, Edit::Write { first, step: 0 })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn fold_run(&mut self, node: Node, group: &Group) -> Result<(), PlanError> {
        if !group.becomes_run {
            return Ok(());
        }
        let lead = Descriptor(group.folded[0]);
        self.may_resize(node, group.index, lead)?;
        self.store(node, group.index, group.folded.len(), Edit::Bits { clear: 0, set: CONTIGUOUS })?;
        if lead.is_valid() && self.context.bbm != BbmLevel::L3 {
            self.invalidate_leaves(node, group.index, group.folded.len());
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

/// Returns the attributes and the address of the one leaf that translates what the table in frame
/// `table` at `level` does with all tables below it, or `None`.
pub(crate) fn uniform<W: TableWindow>(
    geometry: Geometry,
    window: &mut W,
    table: Pa,
    level: Level,
) -> Option<(u64, Pa)> {
    let shift = geometry.shift(level);
    let count = geometry.entries(level);
    let mut of = |index: usize| {
        // SAFETY: both indices asked for below are entries at this level.
        let found = unsafe { read(window, level, table, index) };
        match (entry(geometry, level, found), level.next()) {
            (Entry::Leaf(pa), _) => Some((attributes_of(geometry, found), pa)),
            (Entry::Table(below), Some(next)) => uniform(geometry, window, below, next),
            _ => None,
        }
    };
    let (attributes, start) = of(0)?;
    if start.0 & (((count as u64) << shift) - 1) != 0 {
        return None;
    }
    if level != Level::L3 {
        let alike = |index| of(index) == Some((attributes, Pa(start.0 + ((index as u64) << shift))));
        return (1..count).all(alike).then_some((attributes, start));
    }
    let lead = leaf(geometry, level, attributes, start).0;
    let pointer = window.open(level, table);
    // SAFETY: an open table has `count` entries, which are initialised in every tree. Nothing
    // writes to them during the call: only its one `LiveTree` changes a live tree, and new tables
    // are complete.
    let entries = unsafe { slice::from_raw_parts(pointer.as_ptr(), count) };
    let (chunks, _) = entries.as_chunks::<CHUNK>();
    let alike = are_alike(chunks, lead, 1u64 << shift);
    window.close(level);
    alike.then_some((attributes, start))
}

/// Returns whether the entries are `expected`, `expected` + `step` and so on, each run of them with
/// or without the contiguous bit.
// Out of line: in the caller's loop the compiler makes branches of the comparisons. Here an entry
// costs half a load, an addition and a conditional comparison on AArch64.
#[inline(never)]
fn are_alike(chunks: &[[u64; CHUNK]], expected: u64, step: u64) -> bool {
    let mut expected = expected;
    for chunks in chunks.chunks(CHUNKS) {
        let mut alike = true;
        for chunk in chunks {
            // A chunk is two runs or a part of one. All entries of a run have the contiguous bit,
            // or none.
            let (runs, _) = chunk.as_chunks::<RUN>();
            let mut chunk_alike = true;
            for run in runs {
                let mut next = expected | run[0] & CONTIGUOUS;
                for found in run {
                    chunk_alike &= *found == next;
                    next = next.wrapping_add(step);
                }
                expected = expected.wrapping_add(step.wrapping_mul(RUN as u64));
            }
            alike &= chunk_alike;
        }
        if !alike {
            return false;
        }
    }
    true
}

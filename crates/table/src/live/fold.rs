//! Making leaves larger: tables that say one thing become blocks, leaves side by side become contiguous runs.

use core::slice;

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Descriptor, Geometry, Level, Pa, Va};

use super::entry::{CONTIGUOUS, Entry, VALID_BIT, attributes_of, entry, leaf};
use super::plan::Edit;
use super::planner::Planner;
use super::{Node, PlanError};
use crate::frames::FrameSource;
use crate::walk::read;
use crate::window::TableWindow;

/// What a walk that folds does with what it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Stores blocks over tables.
    Blocks,
    /// Sets the contiguous bit over runs, when the blocks in them are all that TLBs hold.
    Runs,
    /// Makes invalid what will be larger.
    Break,
    /// Stores the larger leaves where the smaller ones were made invalid.
    Make,
}

/// Entries that are compared by one turn of a loop; a divisor of the entries of every table of pages below a root.
const CHUNK: usize = 16;

/// The longest contiguous run there is: 128 pages of 16 KiB.
const LONGEST_RUN: usize = 128;

/// The entries that become one run, or stand alone.
#[derive(Clone, Copy, Debug)]
struct Group {
    index: usize,
    count: usize,
    /// What each entry is when tables have become blocks, without the contiguous bit; 0 where there is no leaf then.
    folded: [u64; LONGEST_RUN],
    /// Whether the entries become a contiguous run, and are none yet.
    becomes_run: bool,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to fold what lies in `first..=last`.
    pub fn fold(&mut self, first: u64, last: u64) -> Result<(), PlanError> {
        let top = self.lowest(first, last);
        let breaks = self.quiescent && matches!(self.regime.bbm, BbmLevel::L0 | BbmLevel::L1);
        // The blocks are in force everywhere before they are said to be a run.
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

    /// Returns whether there may be runs to fold when the blocks are.
    fn fold_below(&mut self, node: Node, first: u64, last: u64, phase: Phase) -> Result<bool, PlanError> {
        if node.level == Level::L3 && phase == Phase::Blocks {
            return Ok(true);
        }
        let (from, to) = self.indices(node, first, last);
        let run = self.regime.run(node.level).unwrap_or(1).min(LONGEST_RUN);
        let mut start = from & !(run - 1);
        let mut runs = false;
        let mut group = Group { index: 0, count: run, folded: [0; LONGEST_RUN], becomes_run: false };
        while start <= to {
            self.look_at_group(node, start, &mut group, first, last);
            self.fold_group(node, &group, phase)?;
            runs |= group.becomes_run;
            if node.level != Level::L3 {
                for index in start.max(from)..=(start + run - 1).min(to) {
                    runs |= self.fold_child(node, index, &group, first, last, phase)?;
                }
            }
            start += run;
        }
        Ok(runs)
    }

    /// Folds below a table that stays one.
    fn fold_child(
        &mut self,
        node: Node,
        index: usize,
        group: &Group,
        first: u64,
        last: u64,
        phase: Phase,
    ) -> Result<bool, PlanError> {
        if group.folded.get(index - group.index).is_some_and(|folded| *folded != 0) {
            return Ok(false);
        }
        let found = self.read(node, index);
        if let (Entry::Table(table), Some(level)) =
            (entry(self.regime.geometry, node.level, found), node.level.next())
        {
            let below = Node { table, level, base: self.va(node, index) };
            return self.fold_below(below, first, last, phase);
        }
        Ok(false)
    }

    /// Finds out what becomes of the entries of `group`, from `index` on, of which those are looked at that lie in `first..=last` whole.
    fn look_at_group(&mut self, node: Node, index: usize, group: &mut Group, first: u64, last: u64) {
        let geometry = self.regime.geometry;
        let shift = geometry.shift(node.level);
        let count = group.count;
        group.index = index;
        group.becomes_run = false;
        let mut contiguous = true;
        for (nth, folded) in group.folded.iter_mut().enumerate().take(count) {
            *folded = 0;
            let va = node.base + (((index + nth) as u64) << shift);
            if va < first || va + ((1 << shift) - 1) > last {
                continue;
            }
            let found = self.read(node, index + nth);
            contiguous &= found.is_contiguous();
            *folded = match (entry(geometry, node.level, found), node.level.next()) {
                (Entry::Leaf(_), _) => found.0 & !CONTIGUOUS,
                (Entry::Table(table), Some(next)) if geometry.has_leaf(node.level) => {
                    match uniform(geometry, self.window, table, next) {
                        Some((attributes, pa)) => leaf(geometry, node.level, attributes, pa).0,
                        None => 0,
                    }
                }
                _ => 0,
            };
        }
        let lead = Descriptor(group.folded[0]);
        if let (true, Entry::Leaf(pa)) = (count > 1, entry(geometry, node.level, lead)) {
            let consecutive =
                |(nth, bits): (usize, &u64)| *bits == lead.0.wrapping_add((nth as u64) << shift);
            let aligned = pa.0 & (((count as u64) << shift) - 1) == 0;
            let alike = group.folded.iter().take(count).enumerate().all(consecutive);
            group.becomes_run = !contiguous && aligned && alike;
        }
    }

    fn fold_group(&mut self, node: Node, group: &Group, phase: Phase) -> Result<(), PlanError> {
        if phase == Phase::Runs {
            return self.fold_run(node, group);
        }
        let geometry = self.regime.geometry;
        for (nth, folded) in group.folded.iter().enumerate().take(group.count) {
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
        self.store(node, group.index, group.count, Edit::Bits { clear: 0, set: CONTIGUOUS })?;
        if lead.is_valid() && self.regime.bbm != BbmLevel::L3 {
            self.invalidate_leaves(node, group.index, group.count);
        }
        Ok(())
    }

    /// Refuses to change the size of leaves in use where the CPUs can't.
    fn may_resize(&self, node: Node, index: usize, folded: Descriptor) -> Result<(), PlanError> {
        let bbm = self.regime.bbm;
        if folded.is_valid() && !self.quiescent && bbm != BbmLevel::L3 {
            return Err(PlanError::NeedsLevel3 { va: Va(self.va(node, index)), bbm });
        }
        Ok(())
    }
}

/// The attributes and the address of the one larger leaf that says what the table in frame `table` at `level` says, with
/// all below it, or `None` when no leaf could.
pub(super) fn uniform<W: TableWindow>(
    geometry: Geometry,
    window: &mut W,
    table: Pa,
    level: Level,
) -> Option<(u64, Pa)> {
    let shift = geometry.shift(level);
    let count = geometry.entries(level);
    let mut of = |index: usize| {
        let found = read(window, level, table, index);
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
    // SAFETY: an open table has `count` entries, which are initialised in every tree, and nothing writes to them
    // meanwhile: a live tree is changed by its one `LiveTree` alone, and a new table by nobody any more.
    let entries = unsafe { slice::from_raw_parts(pointer.as_ptr(), count) };
    let mut expected = lead;
    let (chunks, _) = entries.as_chunks::<CHUNK>();
    let mut alike = true;
    for chunk in chunks {
        // A chunk is a run or a part of one, the entries of which have the contiguous bit all or none. Without a branch an
        // entry is half a load, an addition and a conditional comparison on AArch64.
        let mut next = expected | chunk[0] & CONTIGUOUS;
        let mut chunk_alike = true;
        for found in chunk {
            chunk_alike &= *found == next;
            next = next.wrapping_add(1 << shift);
        }
        alike &= chunk_alike;
        expected = expected.wrapping_add((CHUNK as u64) << shift);
    }
    window.close(level);
    alike.then_some((attributes, start))
}

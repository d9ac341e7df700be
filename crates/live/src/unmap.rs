//! Unmapping: clears leaves, or the one entry above a table that becomes empty.

use core::ops::Range;

use linmap_vmsa::{Descriptor, Level};

use crate::entry::{Entry, entry};
use crate::node::Node;
use crate::plan::Outcome;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::split::Cut;
use crate::step::Edit;
use linmap_table::FrameSource;
use linmap_table::TableWindow;

const CLEARED: Edit = Edit::Write { first: Descriptor::INVALID, step: 0 };

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to clear everything in `first..=last`, after splitting what reaches over its ends.
    #[inline(always)]
    pub fn unmap_range(&mut self, first: u64, last: u64) -> Result<(), PlanError> {
        self.split(Cut::Ends { first, last, wanted: None })?;
        self.order_runs()?;
        self.unmap(first, last)
    }

    /// Plans to clear everything in `first..=last`. No leaf reaches over its ends.
    pub fn unmap(&mut self, first: u64, last: u64) -> Result<(), PlanError> {
        self.outcome = Outcome::Unmapped;
        let root = self.context.root(first);
        let lowest = self.lowest(first, last);
        // A few pages of a table, others of which stay: the tables above it stay too.
        if lowest.level == Level::L3
            && lowest.level != root.level
            && self.keeps_neighbour(lowest, first, last)
        {
            let (from, to) = self.indices(lowest, first, last);
            return self.unmap_pages(lowest, from, to).and_then(|()| self.finish());
        }
        self.unmap_below(root, first, last)?;
        let removed = self.script.len();
        self.finish()?;
        self.free_tables(removed)
    }

    /// Returns whether the page before or behind the range is mapped in the table `node`.
    fn keeps_neighbour(&mut self, node: Node, first: u64, last: u64) -> bool {
        let (from, to) = self.indices(node, first, last);
        let before = from.checked_sub(1);
        let behind = Some(to + 1).filter(|behind| *behind < self.context.entries(node.level));
        [before, behind].into_iter().flatten().any(|index| self.read(node, index).0 != 0)
    }

    fn unmap_below(&mut self, node: Node, first: u64, last: u64) -> Result<(), PlanError> {
        let (from, to) = self.indices(node, first, last);
        if node.level == Level::L3 {
            return self.unmap_pages(node, from, to);
        }
        // The entries to clear, with empty ones in between.
        let mut gone = from..from;
        for index in from..=to {
            // Only entries at the ends of the range are split.
            let split = index == from || index == to;
            let descriptor = if split { self.after_split(node, index) } else { self.read(node, index) };
            match entry(self.context.geometry, node.level, descriptor) {
                Entry::Empty => continue,
                Entry::Foreign => return Err(self.foreign(node, index, descriptor)),
                Entry::Leaf(_) => {
                    if descriptor.is_valid() {
                        self.invalidate_leaves(node, index, 1);
                    }
                }
                Entry::Table(table) => {
                    let below = self.context.below(node, index, table);
                    let whole = first <= below.base && node.last(index) <= last;
                    if !whole && !self.empties(below, first, last) {
                        self.clear(node, gone)?;
                        gone = index + 1..index + 1;
                        self.unmap_below(below, first, last)?;
                        continue;
                    }
                    self.invalidate_table(below);
                }
            }
            if gone.is_empty() {
                gone.start = index;
            }
            gone.end = index + 1;
        }
        self.clear(node, gone)
    }

    fn clear(&mut self, node: Node, gone: Range<usize>) -> Result<(), PlanError> {
        if gone.is_empty() { Ok(()) } else { self.store(node, gone.start, gone.len(), CLEARED) }
    }

    /// Clears the pages `from..=to` of a table.
    fn unmap_pages(&mut self, node: Node, from: usize, to: usize) -> Result<(), PlanError> {
        let used = self.look(node, from, to, |entries| {
            let lead = entries.iter().position(|bits| *bits != 0)?;
            let end = entries.iter().rposition(|bits| *bits != 0)?;
            let valid = |bits: &u64| Descriptor(*bits).is_valid();
            let valid = entries.iter().position(valid).zip(entries.iter().rposition(valid));
            // A page has bit 1 set, valid or invalidated.
            let foreign = entries.iter().position(|bits| *bits != 0 && bits & 0b10 == 0);
            Some((lead, end, valid, foreign))
        });
        let Some((lead, end, valid, foreign)) = used else { return Ok(()) };
        if let Some(nth) = foreign {
            let found = self.read(node, from + nth);
            return Err(self.foreign(node, from + nth, found));
        }
        if let Some((lead, end)) = valid {
            self.invalidate_leaves(node, from + lead, end - lead + 1);
        }
        self.store(node, from + lead, end - lead + 1, CLEARED)
    }

    /// Returns whether the table `node` becomes empty when `first..=last`, a part of what it
    /// translates, is unmapped.
    fn empties(&mut self, node: Node, first: u64, last: u64) -> bool {
        let (from, to) = self.indices(node, first, last);
        let count = self.context.geometry.entries(node.level);
        let others = self.look(node, 0, count - 1, |entries| {
            let mut entries = entries.iter().enumerate();
            entries.any(|(index, bits)| (index < from || index > to) && *bits != 0)
        });
        if others {
            return false;
        }
        [from, to].into_iter().all(|index| {
            let descriptor = self.after_split(node, index);
            let Entry::Table(table) = entry(self.context.geometry, node.level, descriptor) else {
                return true;
            };
            let below = self.context.below(node, index, table);
            let whole = first <= below.base && node.last(index) <= last;
            whole || self.empties(below, first, last)
        })
    }
}

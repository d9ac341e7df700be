//! Whether leaves could become larger where something was mapped or has changed.

use linmap_vmsa::{Descriptor, Level, Pa, Va, VaRange};

use crate::entry::{Entry, attributes_of, entry};
use crate::gather::gather;
use crate::node::Node;
use crate::tree_context::TreeContext;
use crate::uniform::{uniform, uniform_below};
use linmap_table::TableWindow;

/// Returns `first..=last` extended to the largest leaves that could arise after its leaves changed,
/// if any could.
pub(crate) fn foldable<W: TableWindow>(
    context: &TreeContext,
    first: u64,
    last: u64,
    window: &mut W,
) -> Option<VaRange> {
    let (mut from, mut to) = (first, last);
    let mut folds = false;
    let mut seen: Option<u64> = None;
    for end in [first, last] {
        if seen.is_some_and(|seen| end <= seen) {
            continue;
        }
        let Some(place) = Place::of(context, end, window) else { continue };
        // If the whole range lies in one leaf or run, there are no other leaves between its ends.
        seen = Some(place.last());
        if end == first && place.last() < last {
            folds |= holds_run(context, first, last);
        }
        if let Some(larger) = place.grown(context, end, window) {
            folds = true;
            seen = Some(larger.last());
            from = from.min(larger.first());
            to = to.max(larger.last());
        }
    }
    folds.then(|| VaRange::new(Va(from), (to - from).wrapping_add(1)))
}

/// Returns whether a contiguous run of pages could lie in the range, so that leaves may fold
/// between its ends.
fn holds_run(context: &TreeContext, first: u64, last: u64) -> bool {
    let run = context.new_run(Level::L3).unwrap_or(1) as u64;
    let end = (run << context.page_shift) - 1;
    let start = first.checked_add(end).map(|start| start & !end);
    start.and_then(|start| start.checked_add(end)).is_some_and(|end| end <= last)
}

/// Entries of a table that could be one leaf: a leaf, a contiguous run, or entries that could
/// become one.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: Node,
    start: usize,
    count: usize,
    attributes: u64,
    /// What to add (wrapping) to an address for its output address.
    offset: u64,
}

impl Place {
    /// Returns the leaf for `va`, or the run that it is part of.
    fn of<W: TableWindow>(context: &TreeContext, va: u64, window: &mut W) -> Option<Self> {
        let geometry = context.geometry;
        let node = context.lowest(window, va);
        let index = node.index(va);
        let found = context.read(window, node.level, node.table, index);
        let Entry::Leaf(pa) = entry(geometry, node.level, found) else { return None };
        let offset = pa.0.wrapping_sub(node.va(index));
        let count = if found.is_contiguous() { context.run(node.level).unwrap_or(1) } else { 1 };
        let start = index & !(count - 1);
        let attributes = attributes(context, node, index, found, window);
        Some(Self { node, start, count, attributes, offset })
    }

    fn first(&self) -> u64 {
        self.node.va(self.start)
    }

    fn last(&self) -> u64 {
        self.node.last(self.start + self.count - 1)
    }

    /// Returns the largest run or block around `self`, which translates `va`, that could be made,
    /// if it is larger than `self`.
    fn grown<W: TableWindow>(&self, context: &TreeContext, va: u64, window: &mut W) -> Option<Self> {
        let mut grown: Option<Self> = None;
        loop {
            let place = grown.as_ref().unwrap_or(self);
            let larger = place.in_a_run(context, window).or_else(|| place.in_a_block(context, va, window));
            if larger.is_none() {
                return grown;
            }
            grown = larger;
        }
    }

    /// Returns the contiguous run that `self` could become part of.
    fn in_a_run<W: TableWindow>(&self, context: &TreeContext, window: &mut W) -> Option<Self> {
        let run = context.new_run(self.node.level).filter(|run| self.count < *run)?;
        // The entry beside decides nearly always.
        if !self.continues(context, self.start ^ 1, window) {
            return None;
        }
        let start = self.start & !(run - 1);
        let larger = Self { start, count: run, ..*self };
        let bytes = (run as u64) << self.node.shift;
        let aligned = larger.first().wrapping_add(self.offset) & (bytes - 1) == 0;
        let mut others = (start..start + run).filter(|index| *index != self.start);
        (aligned && others.all(|index| self.continues(context, index, window))).then_some(larger)
    }

    /// Returns the block that could replace the table.
    fn in_a_block<W: TableWindow>(&self, context: &TreeContext, va: u64, window: &mut W) -> Option<Self> {
        let geometry = context.geometry;
        let Node { table, level, base, .. } = self.node;
        // Where there are runs, a block consists of runs.
        if context.new_run(level).is_some_and(|run| self.count < run) {
            return None;
        }
        let above = Level::new(level.number() - 1)?;
        if above < context.top.level || !geometry.has_leaf(above) {
            return None;
        }
        let beside = if self.start > 0 { self.start - 1 } else { self.start + self.count };
        if beside < context.entries(level) && !self.continues(context, beside, window) {
            return None;
        }
        let whole = Some((self.attributes, Pa(base.wrapping_add(self.offset))));
        if uniform(geometry, window, table, level) != whole {
            return None;
        }
        let node = context.lowest_to(window, va, above);
        Some(Self { node, start: node.index(va), count: 1, ..*self })
    }

    /// Returns whether the entry at `index`, with all tables below it, has the attributes of `self`
    /// and continues its addresses.
    fn continues<W: TableWindow>(&self, context: &TreeContext, index: usize, window: &mut W) -> bool {
        let geometry = context.geometry;
        let level = self.node.level;
        let found = context.read(window, level, self.node.table, index);
        let expected = (self.attributes, Pa(self.node.va(index).wrapping_add(self.offset)));
        match (entry(geometry, level, found), level.next()) {
            (Entry::Leaf(pa), _) => (attributes(context, self.node, index, found, window), pa) == expected,
            (Entry::Table(table), Some(next)) => {
                uniform_below(geometry, window, found, table, next) == Some(expected)
            }
            _ => false,
        }
    }
}

/// Returns the attributes of the leaf `found` at `index`, with what hardware has updated in any
/// entry of its run.
fn attributes<W: TableWindow>(
    context: &TreeContext,
    node: Node,
    index: usize,
    found: Descriptor,
    window: &mut W,
) -> u64 {
    let run = context.run(node.level).filter(|_| found.is_contiguous());
    let gathered = run.and_then(|run| {
        let start = index & !(run - 1);
        let gathered = context.look(window, node, start, start + run - 1, |run| gather(run, node.shift));
        gathered.ok()
    });
    attributes_of(context.geometry, gathered.map_or(found, |gathered| gathered.lead))
}

//! Mapping: leaves go into empty entries, and whole new tables are linked by one store.

use linmap_vmsa::{Attributes, LINEAR_SPAN, Pa, Va};

use crate::entry::{Entry, VALID_BIT, entry, leaf};
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::step::Edit;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::{Cursor, Mapping};
use linmap_table::{EntryInUse, ReachableFrames, Subtree, contiguous_part};

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to map everything from the cursor on.
    pub fn map(&mut self, mut cursor: Cursor<'_>) -> Result<(), PlanError> {
        let root = self.context.top;
        self.map_below(root, &mut cursor)
    }

    /// Plans to map what lies at the cursor and in the reach of `node`.
    fn map_below(&mut self, node: Node, cursor: &mut Cursor<'_>) -> Result<(), PlanError> {
        let geometry = self.context.geometry;
        let entries = geometry.entries(node.level);
        while let Some(mapping) = cursor.peek() {
            if mapping.va.0.wrapping_sub(node.base) >> node.shift >= entries as u64 {
                return Ok(());
            }
            let index = geometry.index(mapping.va, node.level);
            let found = self.read(node, index);
            match (entry(geometry, node.level, found), node.level.next()) {
                (Entry::Table(table), Some(_)) => {
                    let below = self.context.below(node, index, table);
                    self.map_below(below, cursor)?;
                }
                (Entry::Empty, _) => {
                    let leaves = cursor.leaves_at(&mapping, node.level).min((entries - index) as u64);
                    if let Some(count) = (leaves as usize).checked_sub(1) {
                        let end = index + count;
                        let count = self.look(node, index, end, |entries| {
                            entries.iter().position(|bits| *bits != 0).unwrap_or(entries.len())
                        });
                        self.write_leaves(node, index, count, mapping)?;
                        cursor.advance((count as u64) << node.shift);
                    } else {
                        self.link_subtree(node, index, cursor)?;
                    }
                }
                _ => {
                    let va = Va(node.va(index));
                    return Err(EntryInUse { va, table: node.table, index, found }.into());
                }
            }
        }
        Ok(())
    }

    /// Links a new table for what lies at the cursor over an empty entry.
    fn link_subtree(&mut self, node: Node, index: usize, cursor: &mut Cursor<'_>) -> Result<(), PlanError> {
        // SAFETY: the promise of `LiveTree::new`.
        let mut memory = unsafe { ReachableFrames::new(self.window, self.frames) };
        let subtree = Subtree::below(cursor, node.level, &mut memory)?;
        if let Err(error) = self.link(node, index, subtree.table()) {
            // SAFETY: as above.
            subtree.release(&mut unsafe { ReachableFrames::new(self.window, self.frames) });
            return Err(error);
        }
        Ok(())
    }

    /// Stores `count` leaves of `mapping`, which begins at the entry `index`.
    fn write_leaves(
        &mut self,
        node: Node,
        index: usize,
        count: usize,
        mapping: Mapping,
    ) -> Result<(), PlanError> {
        let (head, body) =
            contiguous_part(self.context.geometry, node.level, mapping, count).unwrap_or((count, 0));
        for (from, count, contiguous) in
            [(0, head, false), (head, body, true), (head + body, count - head - body, false)]
        {
            self.write_consecutive(node, index + from, count, mapping, from, contiguous)?;
        }
        Ok(())
    }

    /// Stores `count` leaves that differ only in their address. The first is leaf `from` of
    /// `mapping`.
    fn write_consecutive(
        &mut self,
        node: Node,
        index: usize,
        count: usize,
        mapping: Mapping,
        from: usize,
        contiguous: bool,
    ) -> Result<(), PlanError> {
        let geometry = self.context.geometry;
        let shift = node.shift;
        let attributes = Attributes { contiguous, ..mapping.attributes };
        let mut done = 0;
        while done < count {
            let pa = Pa(mapping.pa.0 + (((from + done) as u64) << shift));
            // Consecutive descriptors have consecutive addresses within this span alone.
            let before_carry = (LINEAR_SPAN - pa.0 % LINEAR_SPAN) >> shift;
            let part = (before_carry as usize).min(count - done);
            let first = leaf(geometry, node.level, attributes.bits(geometry) | VALID_BIT, pa);
            self.store(node, index + done, part, Edit::Write { first, step: 1 << shift })?;
            done += part;
        }
        Ok(())
    }
}

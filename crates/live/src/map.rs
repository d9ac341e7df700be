//! Mapping: leaves go into empty entries, and whole new tables are linked by one store. Tables that
//! are there already stay, and so do leaves: what is mapped over them may change who may access the
//! memory, and nothing else.

use linmap_vmsa::bbm::{Reason, Requirement, change};
use linmap_vmsa::{Access, Attributes, Descriptor, LINEAR_SPAN, Pa, Va};

use crate::entry::{Entry, SOFTWARE, VALID_BIT, entry, leaf};
use crate::every_leaf::NOT_GLOBAL;
use crate::gather::{DIRTY_MODIFIER, READ_ONLY};
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::planner::Planner;
use crate::step::Edit;
use crate::tree_context::TreeContext;
use crate::update::kept;
use linmap_table::FrameSource;
use linmap_table::TableWindow;
use linmap_table::{Cursor, Mapping};
use linmap_table::{EntryInUse, ReachableFrames, Subtree, contiguous_part};

/// A valid leaf in the way of a mapping.
#[derive(Clone, Copy)]
struct Over {
    node: Node,
    index: usize,
    found: Descriptor,
    pa: Pa,
}

impl<W: TableWindow, F: FrameSource> Planner<'_, '_, W, F> {
    /// Plans to map everything from the cursor on.
    pub fn map(&mut self, mut cursor: Cursor<'_>) -> Result<(), PlanError> {
        while let Some(mapping) = cursor.peek() {
            let root = self.context.root(mapping.va.0);
            self.map_below(root, &mut cursor)?;
        }
        Ok(())
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
                (Entry::Leaf(pa), _) if found.is_valid() => {
                    let over = Over { node, index, found, pa };
                    cursor.advance(self.map_over(over, &mapping)?);
                }
                _ => {
                    let va = Va(node.va(index));
                    return Err(EntryInUse { va, table: node.table, index, found }.into());
                }
            }
        }
        Ok(())
    }

    /// Gives a leaf, or the run that it begins, the permissions of `mapping`, which begins in it.
    /// Returns how many bytes of the mapping that was.
    fn map_over(&mut self, over: Over, mapping: &Mapping) -> Result<u64, PlanError> {
        let Over { node, index, found, pa } = over;
        let TreeContext { geometry, bbm, .. } = *self.context;
        let va = Va(node.va(index));
        let offset = mapping.va.0.wrapping_sub(va.0);
        if mapping.pa.0.wrapping_sub(offset) != pa.0 {
            return Err(PlanError::MappedOver { va, reason: Reason::OutputAddress });
        }
        let attributes = Attributes { contiguous: found.is_contiguous(), ..mapping.attributes };
        let wanted = leaf(geometry, node.level, attributes.bits(geometry) | VALID_BIT, pa);
        let mut wanted = Descriptor(wanted.0 | found.0 & SOFTWARE);
        wanted.0 = kept(self.context.updates, geometry.regime(), wanted.0, found.0);
        if wanted == found {
            return Ok(((1 << node.shift) - offset).min(mapping.len));
        }
        let requirement = change(geometry, node.level, found, wanted, bbm);
        match requirement {
            Requirement::BreakBeforeMake(Reason::Contiguous) => return Err(PlanError::RunInUse { va }),
            Requirement::BreakBeforeMake(reason) => return Err(PlanError::MappedOver { va, reason }),
            // The size stays the same, so there is no need for nT.
            Requirement::Nothing | Requirement::Invalidate | Requirement::NoTranslation => {}
        }
        if found.is_contiguous() && (found.0 ^ wanted.0) & NOT_GLOBAL != 0 {
            return Err(PlanError::MappedOver { va, reason: Reason::Contiguous });
        }
        // The entries of a run change together.
        let count = if found.is_contiguous() { self.context.run(node.level).unwrap_or(1) } else { 1 };
        let bytes = (count as u64) << node.shift;
        if offset != 0 || !index.is_multiple_of(count) || mapping.len < bytes {
            return Err(PlanError::PartOfLeaf { va });
        }
        let (mut clear, mut set) = (found.0 & !wanted.0, wanted.0 & !found.0);
        if self.context.updates.is_on() {
            // Not only those in which they differ now: hardware may make the leaf dirty before.
            let both_tracked = wanted.0 & found.0 & DIRTY_MODIFIER != 0;
            let access = if both_tracked { Access::MASK & !READ_ONLY } else { Access::MASK };
            (clear, set) = (clear | access & !wanted.0, set | access & wanted.0);
        }
        self.store(node, index, count, Edit::Bits { clear, set })?;
        if requirement == Requirement::Invalidate {
            self.invalidate_leaves(node, index, count);
        }
        Ok(bytes)
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

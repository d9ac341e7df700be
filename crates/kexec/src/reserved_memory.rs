//! Our nodes in `/reserved-memory`: memory that the next kernel must leave alone.

use linmap_memblock::Piece;

use crate::cells::Cells;
use crate::next_tree::properties_of;
use crate::tree_output::{Name, TreeOutput};
use crate::{NextTree, TreeError};

/// `compatible` of a pen for CPUs.
pub(crate) const PEN: &str = "linmap,pen";
/// `compatible` of a kept range.
pub(crate) const KEPT: &str = "linmap,kept";

/// What `/reserved-memory` says about its children.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReservedMemory {
    cells: Cells,
    has_ranges: bool,
}

impl ReservedMemory {
    /// Writes the properties of a node that is made.
    pub fn make(root: Cells, output: &mut TreeOutput<'_, '_>) -> Result<Self, TreeError> {
        let widths = root.of_root()?;
        output.property(Name::AddressCells, &widths.address.cells().to_be_bytes())?;
        output.property(Name::SizeCells, &widths.size.cells().to_be_bytes())?;
        output.property(Name::Ranges, &[])?;
        Ok(Self { cells: root, has_ranges: true })
    }

    /// Takes a property of the tree's node in.
    pub fn note(&mut self, name: &str, value: &[u8]) {
        self.cells.note(name, value);
        self.has_ranges |= name == Name::Ranges.text();
    }

    /// Writes the nodes for the pen and the kept ranges behind the other children; the node ends at `offset` of the
    /// source.
    pub fn write_nodes(
        &self,
        next: &NextTree<'_>,
        root: Cells,
        offset: usize,
        output: &mut TreeOutput<'_, '_>,
    ) -> Result<(), TreeError> {
        if next.spin_table.is_none() && next.kept.is_empty() {
            return Ok(());
        }
        let widths = root.of_root()?;
        let missing = (!self.has_ranges).then_some(Name::Ranges);
        if let Some(property) = self.cells.differ(widths).or(missing) {
            return Err(TreeError::ReservedMemory { offset, property: property.text() });
        }
        if let Some(spin_table) = next.spin_table {
            output.begin_node(format_args!("linmap-pen@{:x}", spin_table.pen.start.0));
            output.property_string(Name::Compatible, PEN)?;
            output.property_ranges(Name::Reg, &[spin_table.pen], widths)?;
            output.end_node();
        }
        for kept in next.kept {
            output.begin_node(format_args!("linmap-kept@{:x}", kept.range.start.0));
            output.property_string(Name::Compatible, KEPT)?;
            output.property_ranges(Name::Reg, &[kept.range], widths)?;
            output.property_string(Name::Label, kept.label)?;
            output.end_node();
        }
        Ok(())
    }
}

/// Whether the child that goes on with `pieces` gives way to what `next` says.
pub(crate) fn replaces<'a>(next: &NextTree<'_>, pieces: impl Iterator<Item = Piece<'a>>) -> bool {
    let compatible = properties_of(pieces).find(|(name, _)| *name == Name::Compatible.text());
    let is = |what| compatible.is_some_and(|(_, value)| is_compatible(value, what));
    is(KEPT) || (next.spin_table.is_some() && is(PEN))
}

/// Whether the value of a `compatible` property names `what`.
pub(crate) fn is_compatible(value: &[u8], what: &str) -> bool {
    value.split(|&byte| byte == 0).any(|name| name == what.as_bytes())
}

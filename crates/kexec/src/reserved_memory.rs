//! Our nodes in `/reserved-memory`: memory that the next kernel must leave alone.

use linmap_fdt::Piece;
use linmap_vmsa::{Pa, PaRange};

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

    /// Whether the child that goes on with `pieces` gives way to what `next` says: a kept range, and a pen in which no CPU
    /// watches any word of `left_behind`. One of which nobody can tell where it is stays.
    pub fn gives_way<'a>(
        &self,
        next: &NextTree<'_>,
        left_behind: Option<&[Pa]>,
        pieces: impl Iterator<Item = Piece<'a>> + Clone,
    ) -> bool {
        let value = |wanted: Name| {
            let mut properties = properties_of(pieces.clone());
            properties.find(|(name, _)| *name == wanted.text()).map(|(_, value)| value)
        };
        let is = |what| value(Name::Compatible).is_some_and(|value| is_compatible(value, what));
        if is(KEPT) {
            return true;
        }
        let Some(new) = next.spin_table.filter(|_| is(PEN)) else { return false };
        let widths = self.cells.of_root().ok();
        let pen = value(Name::Reg).zip(widths).and_then(|(reg, widths)| widths.range(reg));
        // Where nobody can tell who waits, somebody may.
        let waits =
            |pen: PaRange| left_behind.is_none_or(|words| words.iter().any(|&word| pen.contains(word)));
        pen.is_some_and(|pen| pen == new.pen || !waits(pen))
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

/// Whether the value of a `compatible` property names `what`.
pub(crate) fn is_compatible(value: &[u8], what: &str) -> bool {
    value.split(|&byte| byte == 0).any(|name| name == what.as_bytes())
}

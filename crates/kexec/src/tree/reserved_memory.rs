//! linmap's nodes in `/reserved-memory`: memory that the next kernel must not use.

use linmap_fdt::{CellCounts, Piece, is_compatible, properties, property};
use linmap_memblock::covers_only;
use linmap_vmsa::{Pa, PaRange};

use super::names::{self, Writer};
use super::preserved::{self, PreservedRange};
use super::root_format::root_format;
use super::tree_error::TreeError;

/// `compatible` of a pen for CPUs.
const PEN: &str = "linmap,pen";

/// The ranges that get a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reservations<'a> {
    /// The pen of the spin-table CPUs.
    pub pen: Option<PaRange>,
    /// Preserved memory.
    pub preserved: &'a [PreservedRange<'a>],
}

impl Reservations<'_> {
    /// Returns whether no range gets a node.
    pub fn is_empty(self) -> bool {
        self.pen.is_none() && self.preserved.is_empty()
    }
}

/// The properties of `/reserved-memory` that tell how its children are written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReservedMemory {
    cells: CellCounts,
    has_ranges: bool,
}

impl ReservedMemory {
    /// Writes the properties of a new node.
    pub fn make(root: CellCounts, output: &mut Writer<'_, '_>) -> Result<Self, TreeError> {
        let format = root_format(root)?;
        output.property(linmap_fdt::ADDRESS_CELLS, &format.address.cells().to_be_bytes())?;
        output.property(linmap_fdt::SIZE_CELLS, &format.size.cells().to_be_bytes())?;
        output.property(names::RANGES, &[])?;
        Ok(Self { cells: root, has_ranges: true })
    }

    /// Notes a property of the source's node.
    pub fn note(&mut self, name: &str, value: &[u8]) {
        self.cells.note(name, value);
        self.has_ranges |= name == names::RANGES;
    }

    /// Returns whether `next` replaces the child whose tokens continue with `pieces`. It replaces
    /// every preserved range. If it has a pen, it replaces the pens in which no CPU polls a word of
    /// `left_behind`; without that list, only its own.
    pub fn is_replaced<'a>(
        &self,
        next: Reservations<'_>,
        left_behind: Option<&[Pa]>,
        pieces: impl Iterator<Item = Piece<'a>> + Clone,
    ) -> bool {
        let value = |name| property(pieces.clone(), name);
        let is = |what| value(names::COMPATIBLE).is_some_and(|value| is_compatible(value, what));
        if is(preserved::COMPATIBLE) {
            return true;
        }
        let Some(new) = next.pen.filter(|_| is(PEN)) else { return false };
        let format = self.cells.reg_format().ok();
        let entry = value(names::REG).zip(format).and_then(|(reg, format)| format.only_entry(reg));
        // The node stays if its range is unknown.
        let pen = entry.and_then(|(address, size)| PaRange::from_len(Pa(address), size));
        let waits =
            |pen: PaRange| left_behind.is_none_or(|words| words.iter().any(|&word| pen.contains(word)));
        pen.is_some_and(|pen| pen == new || !waits(pen))
    }

    /// Returns whether the child whose tokens continue with `pieces` reserves only a range of
    /// `vacated`. The firmware's nodes tell more than a range.
    pub fn is_vacated<'a>(
        &self,
        vacated: &[PaRange],
        pieces: impl Iterator<Item = Piece<'a>> + Clone,
    ) -> bool {
        let tells_more = [names::COMPATIBLE, "no-map", "phandle"];
        let mut reg = None;
        for (name, value) in properties(pieces) {
            if tells_more.contains(&name) {
                return false;
            }
            if name == names::REG {
                reg = reg.or(Some(value));
            }
        }
        let entry = reg.zip(self.cells.reg_format().ok()).and_then(|(reg, format)| format.only_entry(reg));
        let range = entry.and_then(|(address, size)| PaRange::from_len(Pa(address), size));
        range.is_some_and(|range| covers_only(range, vacated))
    }

    /// Writes the nodes of `next` after the other children. The node ends at `offset` of the
    /// source.
    pub fn write_nodes(
        &self,
        next: Reservations<'_>,
        root: CellCounts,
        offset: usize,
        output: &mut Writer<'_, '_>,
    ) -> Result<(), TreeError> {
        if next.is_empty() {
            return Ok(());
        }
        let format = root_format(root)?;
        let missing = (!self.has_ranges).then_some(names::RANGES);
        if let Some(property) = self.cells.difference(format).or(missing) {
            return Err(TreeError::ReservedMemory { offset, property });
        }
        let mut node = |kind: &str, compatible, range: PaRange, label: Option<&str>| {
            output.begin_node(format_args!("linmap-{kind}@{:x}", range.start.0));
            output.property_string(names::COMPATIBLE, compatible)?;
            output.property_reg(names::REG, [(range.start.0, range.len())].into_iter(), format)?;
            if let Some(label) = label {
                output.property_string(names::LABEL, label)?;
            }
            output.end_node();
            Ok::<_, TreeError>(())
        };
        if let Some(pen) = next.pen {
            node("pen", PEN, pen, None)?;
        }
        for PreservedRange { label, range } in next.preserved {
            node("preserved", preserved::COMPATIBLE, *range, Some(label))?;
        }
        Ok(())
    }
}

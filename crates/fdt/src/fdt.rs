//! A checked device tree.

use crate::node::FdtNode;
use crate::sections::Sections;
use crate::structure::{Position, Step};

/// Length of a memory reservation in bytes.
pub(crate) const RESERVATION_LEN: usize = 16;

/// A device tree whose blob [`parse_dtb`](crate::parse_dtb) has checked: reading it cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct Fdt<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    reservations: &'a [u8],
    sections: Sections,
}

impl<'a> Fdt<'a> {
    pub(crate) fn new(
        structure: &'a [u8],
        strings: &'a [u8],
        reservations: &'a [u8],
        sections: Sections,
    ) -> Self {
        Self { structure, strings, reservations, sections }
    }

    /// Returns address and size of the memory reservations.
    pub fn memory_reservations(self) -> impl Iterator<Item = (u64, u64)> {
        reservations(self.reservations)
    }

    /// Returns the root.
    pub fn root(self) -> FdtNode<'a> {
        self.node_at(0)
    }

    /// Returns `/chosen`. This and the next ones were found by the check, and cost nothing.
    pub fn chosen(self) -> Option<FdtNode<'a>> {
        self.sections.chosen().map(|at| self.node_at(at))
    }

    /// Returns `/aliases`.
    pub fn aliases(self) -> Option<FdtNode<'a>> {
        self.sections.aliases().map(|at| self.node_at(at))
    }

    /// Returns `/cpus`.
    pub fn cpus(self) -> Option<FdtNode<'a>> {
        self.sections.cpus().map(|at| self.node_at(at))
    }

    /// Returns `/reserved-memory`.
    pub fn reserved_memory(self) -> Option<FdtNode<'a>> {
        self.sections.reserved_memory().map(|at| self.node_at(at))
    }

    /// Returns the node at `path`, whose parts may leave out the unit addresses.
    pub fn find_node(self, path: &str) -> Option<FdtNode<'a>> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(self.root(), FdtNode::child)
    }

    /// Returns the node that begins at offset `at` of the structure block.
    fn node_at(self, at: u32) -> FdtNode<'a> {
        let structure = self.structure.get(at as usize..).unwrap_or_default();
        let mut at = Position::new(structure, self.strings);
        let begins = at.step();
        debug_assert!(matches!(begins, Step::BeginNode));
        FdtNode::begin(&mut at)
    }
}

/// Returns address and size of the entries of a memory reservation block, without the pair of zeros
/// at its end.
pub(crate) fn reservations(block: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let (entries, _) = block.as_chunks::<RESERVATION_LEN>();
    let number =
        |half: Option<&[u8]>| half.and_then(|half| half.try_into().ok()).map_or(0, u64::from_be_bytes);
    let numbers = move |entry: &[u8; RESERVATION_LEN]| (number(entry.get(..8)), number(entry.get(8..)));
    entries.iter().map(numbers).take_while(|entry| *entry != (0, 0))
}

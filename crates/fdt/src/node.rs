//! What nodes of all kinds have in common.

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Cells, Node, Property, ToCellInt};

/// Returns whether the node has no `status`, or the status `okay`. Firmware also writes its old
/// form `ok`.
pub fn is_enabled(node: &FdtNode<'_>) -> bool {
    node.property("status").is_none_or(|status| matches!(status.value(), b"okay\0" | b"ok\0"))
}

/// Returns the address in one or two cells. Returns `None` for more than two, and for none, as in a
/// node whose parent's `#address-cells` is 0.
pub fn address(cells: Cells<'_>) -> Option<u64> {
    if cells.as_ref().is_empty() { None } else { cells.to_int().ok() }
}

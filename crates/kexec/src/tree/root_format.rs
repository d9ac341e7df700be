//! The format of ranges below the root.

use linmap_fdt::{CellCounts, RegFormat};

use super::tree_error::TreeError;

/// Returns the format that the root asks for.
pub(super) fn root_format(root: CellCounts) -> Result<RegFormat, TreeError> {
    root.reg_format().map_err(|property| TreeError::RootCells { property })
}

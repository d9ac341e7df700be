//! What table descriptors take away from the leaves below them.

use linmap_vmsa::{Access, Descriptor, Execute, Geometry, TablePermissions};

/// Returns whether a leaf with these attributes in place of the table that `link` leads to allows
/// no more than that.
#[inline(always)]
pub(crate) fn loses_nothing(geometry: Geometry, link: Descriptor, attributes: u64) -> bool {
    link.0 & HIERARCHICAL == 0 || allows_below(geometry, link, attributes)
}

/// What a table descriptor says about all below it: bits 63:59 (Arm ARM D8.3.1.2).
const HIERARCHICAL: u64 = 0b1_1111 << 59;

/// Returns whether a leaf with these attributes loses nothing below the table that `link` leads to.
#[cold]
#[inline(never)]
fn allows_below(geometry: Geometry, link: Descriptor, attributes: u64) -> bool {
    allows(geometry, link.table_permissions(geometry.regime()), attributes)
}

/// Returns whether a leaf with these attributes loses nothing below tables that take away `tables`.
#[cold]
pub(crate) fn allows(geometry: Geometry, tables: TablePermissions, attributes: u64) -> bool {
    let regime = geometry.regime();
    tables.allows_access(Access::from_bits(attributes, regime))
        && tables.allows_execute(Execute::from_bits(attributes, regime))
}

//! Other crates that write AArch64 translation tables, each through the interface it is made to be
//! used by.

pub mod aarch64_paging;
pub mod page_table_generic;

use linmap_vmsa::Attributes;

use crate::geometry::GEOMETRY;

/// The attribute bits of every leaf, the same for all.
const ATTRIBUTES: u64 = Attributes::KERNEL_DATA.bits(GEOMETRY);
/// The same once they are made read-only.
const READ_ONLY_ATTRIBUTES: u64 = Attributes::KERNEL_RODATA.bits(GEOMETRY);

//! What is wrong with the memory of a device tree.

use crate::region_error::{PA_LIMIT, RegionError};
use arrayvec::ArrayVec;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// Why a device tree does not describe memory in which a kernel can run. `'a` is the lifetime of
/// the tree, since the errors name its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FdtError<'a> {
    /// No node of the root has `device_type = "memory"` and is enabled.
    #[error("the device tree has no enabled memory node")]
    NoMemoryNode,
    /// No page of RAM may be mapped.
    #[error("no memory is left: all of the {memory:#x} bytes of RAM are no-map or less than a page")]
    NothingMappable {
        /// Bytes of RAM that the memory nodes give, in whole pages.
        memory: u64,
    },
    /// An enabled memory node has no `reg` property, or an empty one.
    #[error("memory node {node} has no reg entry")]
    NoReg {
        /// The node's name.
        node: &'a str,
    },
    /// The node that gives the cells of addresses and sizes asks for a form that no 64-bit number
    /// has.
    #[error("{property} of {node} is malformed or not 1 or 2")]
    Cells {
        /// The parent of the nodes with `reg`; `/` for the root.
        node: &'a str,
        /// `#address-cells` or `#size-cells`.
        property: &'static str,
    },
    /// The length of a property with ranges is not a multiple of an entry.
    #[error("{property} of node {node} has {len} bytes, not a multiple of {entry}")]
    RegLength {
        /// The node's name.
        node: &'a str,
        /// `reg`, `linux,usable-memory` or `linux,usable-memory-range`.
        property: &'static str,
        /// Length of the property in bytes.
        len: usize,
        /// Length of one entry in bytes.
        entry: usize,
    },
    /// A region ends beyond 2^64.
    #[error("{node}: {size:#x} bytes at {address:#x} wrap around the 64-bit address space")]
    Wraps {
        /// The name of the node, or `/memreserve/`.
        node: &'a str,
        /// The address of the region.
        address: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// A region ends above [`PA_LIMIT`].
    #[error("{node}: {range} ends above {PA_LIMIT}, the end of the 52-bit physical address space")]
    AbovePaLimit {
        /// The name of the node, or `/memreserve/`.
        node: &'a str,
        /// The region.
        range: PaRange,
    },
    /// An end of the initrd is not a 32-bit or 64-bit number.
    #[error("/chosen: {property} has {len} bytes, not 4 or 8")]
    InitrdLength {
        /// `linux,initrd-start` or `linux,initrd-end`.
        property: &'static str,
        /// Length of the property in bytes.
        len: usize,
    },
    /// The initrd ends before it starts.
    #[error("/chosen: linux,initrd-end {end} lies below linux,initrd-start {start}")]
    InitrdReversed {
        /// `linux,initrd-start`.
        start: Pa,
        /// `linux,initrd-end`.
        end: Pa,
    },
    /// `/chosen` has one end of the initrd only.
    #[error("/chosen: {missing} is missing, but the other end of the initrd is given")]
    InitrdHalf {
        /// The property that is missing.
        missing: &'static str,
    },
    /// The memory map is full.
    #[error("{node}: {source}")]
    Regions {
        /// The name of the node, or `/memreserve/`.
        node: &'a str,
        /// The full list, and the range that does not fit.
        source: RegionError,
    },
}

/// A part of a device tree that says nothing, or says it twice. Linux accepts it too.
///
/// ```
/// use linmap_memblock::{FdtWarning, FdtWarnings};
///
/// /// Whether firmware describes memory twice. An empty bank is common.
/// fn describes_twice(warnings: &FdtWarnings<'_>) -> bool {
///     warnings.first.iter().any(|warning| matches!(warning, FdtWarning::Overlap { .. }))
/// }
/// # assert!(!describes_twice(&FdtWarnings::default()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FdtWarning<'a> {
    /// An entry of a memory node is empty, as firmware writes it for a bank without a module. It is
    /// left out.
    #[error("memory node {node}: an entry of size 0 at {address:#x} is left out")]
    ZeroSized {
        /// The node's name.
        node: &'a str,
        /// The address of the entry.
        address: u64,
    },
    /// Two entries of memory nodes overlap. They are merged.
    #[error("memory regions overlap and are merged: {range} of node {node} and {other} of node {other_node}")]
    Overlap {
        /// The node of the later entry.
        node: &'a str,
        /// The later entry.
        range: PaRange,
        /// The node of the earlier entry.
        other_node: &'a str,
        /// The first earlier entry that it overlaps.
        other: PaRange,
    },
}

/// What was left out or merged when a memory map was filled.
///
/// ```
/// use linmap_fdt::Fdt;
/// use linmap_memblock::{FdtError, FdtWarnings, Memblock};
///
/// /// Fills `memory` from a tree, and reports what was left out.
/// fn fill<'a, const N: usize>(
///     memory: &mut Memblock<N>,
///     tree: Fdt<'a>,
///     report: impl Fn(&str),
/// ) -> Result<(), FdtError<'a>> {
///     let warnings: FdtWarnings<'_> = memory.fill_from_fdt(tree)?;
///     for warning in &warnings.first {
///         report(&warning.to_string());
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdtWarnings<'a> {
    /// The first few.
    pub first: ArrayVec<FdtWarning<'a>, 8>,
    /// How many there are.
    pub count: usize,
}

impl<'a> FdtWarnings<'a> {
    /// Adds a warning, which is made only if there is room for it.
    pub(crate) fn add(&mut self, warning: impl FnOnce() -> FdtWarning<'a>) {
        self.count += 1;
        if !self.first.is_full() {
            self.first.push(warning());
        }
    }
}

//! Filling the memory map from a flattened device tree.

use crate::memblock::Memblock;
use crate::range_set::RangeSet;
use crate::region_error::{PA_LIMIT, RegionError};
use dtoolkit::error::PropertyError;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use linmap_fdt::{is_enabled, number};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

/// Firmware describes memory in pages of at least this size. A smaller rest at an end of RAM is
/// left out.
const PAGE: u64 = 0x1000;

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
    /// The length of a `reg` property is not a multiple of an entry.
    #[error("reg of node {node} has {len} bytes, not a multiple of {entry}")]
    RegLength {
        /// The node's name.
        node: &'a str,
        /// Length of the property in bytes.
        len: usize,
        /// Length of one entry in bytes.
        entry: usize,
    },
    /// A `reg` entry of a memory node is empty.
    #[error("memory node {node} has a region of size 0 at {address:#x}")]
    ZeroSized {
        /// The node's name.
        node: &'a str,
        /// The address of the region.
        address: u64,
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
    /// Two `reg` entries of memory nodes overlap.
    #[error("memory regions overlap: {range} of node {node} and {other} of node {other_node}")]
    Overlap {
        /// The node of the later entry.
        node: &'a str,
        /// The later entry.
        range: PaRange,
        /// The node of the earlier entry.
        other_node: &'a str,
        /// The earlier entry.
        other: PaRange,
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
    /// The length of `linux,usable-memory-range` is not a multiple of an entry.
    #[error("/chosen: linux,usable-memory-range has {len} bytes, not a multiple of {entry}")]
    UsableLength {
        /// Length of the property in bytes.
        len: usize,
        /// Length of one entry in bytes.
        entry: usize,
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

impl<const N: usize> Memblock<N> {
    /// Replaces the content of the map by the memory of a device tree.
    /// [`parse_dtb`](linmap_fdt::parse_dtb) checks the blob and returns the `fdt`. Reading a blob
    /// that it has not checked may panic.
    ///
    /// - Memory: the `reg` entries of all enabled children of the root with
    ///   `device_type = "memory"`. Regions that touch are merged; then their ends are aligned
    ///   inward to 4 KiB.
    /// - Reserved: the memory reservation block, the enabled children of `/reserved-memory` with
    ///   `reg`, the initrd of `/chosen`, and `linux,elfcorehdr` of `/chosen`, the header of the
    ///   crashed kernel's core file, aligned outward to 4 KiB. The range of a child with `no-map`
    ///   is marked no-map and not reserved. All may lie outside RAM; reservations of size 0 are
    ///   ignored.
    /// - Ignored: children of `/reserved-memory` without `reg`. They ask the kernel to choose a
    ///   range for a driver (`size`, `alignment`, `alloc-ranges`).
    /// - Removed: memory outside `linux,usable-memory-range` of `/chosen`, if that property exists.
    ///   It keeps a crash kernel off the memory of the crashed kernel.
    ///
    /// The caller reserves the ranges that the tree does not have: the running image and the device
    /// tree blob.
    ///
    /// # Errors
    /// [`FdtError`], after which the map is empty.
    pub fn fill_from_fdt<'a>(&mut self, fdt: Fdt<'a>) -> Result<(), FdtError<'a>> {
        self.clear();
        let filled = self.fill(fdt);
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    fn fill<'a>(&mut self, fdt: Fdt<'a>) -> Result<(), FdtError<'a>> {
        self.add_memory(fdt.root())?;
        for entry in fdt.memory_reservations() {
            self.reserve_pages("/memreserve/", entry.address(), entry.size())?;
        }
        if let Some(parent) = fdt.find_node("/reserved-memory") {
            self.add_reserved_memory(parent)?;
        }
        if let Some(chosen) = fdt.find_node("/chosen") {
            self.reserve_initrd(chosen)?;
            self.reserve_core_header(fdt.root(), chosen)?;
            self.remove_unusable(fdt.root(), chosen)?;
        }
        if self.mappable(PAGE).next().is_none() {
            return Err(FdtError::NothingMappable { memory: self.memory_len() });
        }
        Ok(())
    }

    fn add_memory<'a>(&mut self, root: FdtNode<'a>) -> Result<(), FdtError<'a>> {
        check_cells(&root)?;
        let mut seen = false;
        for node in memory_nodes(root) {
            seen = true;
            let node_name = node.name();
            let mut entries = reg(node)?.peekable();
            if entries.peek().is_none() {
                return Err(FdtError::NoReg { node: node_name });
            }
            for (address, size) in entries {
                if size == 0 {
                    return Err(FdtError::ZeroSized { node: node_name, address });
                }
                let range = region(node_name, address, size)?;
                if self.overlapping_memory(range).is_some() {
                    return Err(overlap(root, node_name, range));
                }
                self.add(range).map_err(|source| FdtError::Regions { node: node_name, source })?;
            }
        }
        if !seen {
            return Err(FdtError::NoMemoryNode);
        }
        self.align_memory_inward(PAGE);
        Ok(())
    }

    fn add_reserved_memory<'a>(&mut self, parent: FdtNode<'a>) -> Result<(), FdtError<'a>> {
        check_cells(&parent)?;
        for node in parent.children().filter(is_enabled) {
            for (address, size) in reg(node)? {
                let name = node.name();
                if node.property("no-map").is_some() {
                    let pages = pages(name, address, size)?;
                    self.mark_no_map(pages).map_err(|source| FdtError::Regions { node: name, source })?;
                } else {
                    self.reserve_pages(name, address, size)?;
                }
            }
        }
        Ok(())
    }

    fn reserve_initrd<'a>(&mut self, chosen: FdtNode<'a>) -> Result<(), FdtError<'a>> {
        const START: &str = "linux,initrd-start";
        const END: &str = "linux,initrd-end";
        let (start, end) = match (initrd_address(&chosen, START)?, initrd_address(&chosen, END)?) {
            (Some(start), Some(end)) => (start, end),
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(FdtError::InitrdHalf { missing: START }),
            (Some(_), None) => return Err(FdtError::InitrdHalf { missing: END }),
        };
        let size =
            end.checked_sub(start).ok_or(FdtError::InitrdReversed { start: Pa(start), end: Pa(end) })?;
        self.reserve_pages(chosen.name(), start, size)
    }

    /// Reserves the header of a crashed kernel's core file. As in Linux, a property that is too
    /// short is ignored.
    fn reserve_core_header<'a>(
        &mut self,
        root: FdtNode<'a>,
        chosen: FdtNode<'a>,
    ) -> Result<(), FdtError<'a>> {
        let Some(property) = chosen.property("linux,elfcorehdr") else { return Ok(()) };
        let [address_len, size_len] = range_lens(root);
        let Some((address, rest)) = property.value().split_at_checked(address_len) else { return Ok(()) };
        let size = rest.get(..size_len).and_then(number);
        let Some((address, size)) = number(address).zip(size) else { return Ok(()) };
        self.reserve_pages(chosen.name(), address, size)
    }

    /// Removes the memory outside the usable ranges of `/chosen`. Their cells are the root's, which
    /// were checked. As in Linux, an empty property is ignored.
    fn remove_unusable<'a>(&mut self, root: FdtNode<'a>, chosen: FdtNode<'a>) -> Result<(), FdtError<'a>> {
        let Some(property) = chosen.property("linux,usable-memory-range") else { return Ok(()) };
        let value = property.value();
        let [address_len, size_len] = range_lens(root);
        let entry = address_len + size_len;
        if !value.len().is_multiple_of(entry) {
            return Err(FdtError::UsableLength { len: value.len(), entry });
        }
        let full = |source| FdtError::Regions { node: chosen.name(), source };
        let mut usable = RangeSet::<N>::new();
        for entry in value.chunks_exact(entry) {
            let (address, size) = entry.split_at(address_len);
            // The root's cells were checked: both are numbers.
            let (Some(address), Some(size)) = (number(address), number(size)) else { continue };
            let range = region(chosen.name(), address, size)?.align_inward(PAGE);
            if !range.is_empty() {
                let over = |_| full(RegionError::Full { list: "usable", range, capacity: N });
                usable.insert(range).map_err(over)?;
            }
        }
        if value.is_empty() {
            return Ok(());
        }
        let mut end = Pa(0);
        for &range in usable.as_slice().iter().chain([&PaRange::new(PA_LIMIT, PA_LIMIT)]) {
            self.remove(PaRange::new(end, range.start)).map_err(full)?;
            end = range.end;
        }
        Ok(())
    }

    /// Reserves the pages around `size` bytes at `address`; none if `size` is 0.
    fn reserve_pages<'a>(&mut self, node: &'a str, address: u64, size: u64) -> Result<(), FdtError<'a>> {
        self.reserve(pages(node, address, size)?).map_err(|source| FdtError::Regions { node, source })
    }
}

/// Returns the lengths in bytes of an address and a size of a range of `/chosen`. Their cells are
/// the root's, which were checked.
fn range_lens(root: FdtNode<'_>) -> [usize; 2] {
    [root.address_cells(), root.size_cells()].map(|cells| cells.map_or(2, |cells| cells as usize) * 4)
}

/// Returns the enabled children of the root that describe RAM.
fn memory_nodes<'a>(root: FdtNode<'a>) -> impl Iterator<Item = FdtNode<'a>> {
    root.children().filter(|node| {
        node.property("device_type").is_some_and(|property| property.value() == b"memory\0")
            && is_enabled(node)
    })
}

/// Checks that the children of `parent` write addresses and sizes as 32-bit or 64-bit numbers.
fn check_cells<'a>(parent: &FdtNode<'a>) -> Result<(), FdtError<'a>> {
    let node = if parent.name().is_empty() { "/" } else { parent.name() };
    let fail = |property| Err(FdtError::Cells { node, property });
    match (parent.address_cells(), parent.size_cells()) {
        (Ok(1 | 2), Ok(1 | 2)) => Ok(()),
        (Ok(1 | 2), _) => fail("#size-cells"),
        _ => fail("#address-cells"),
    }
}

/// Returns the `reg` entries of a node as (address, size) in bytes; none if it has no `reg`. The
/// parent must have passed [`check_cells`].
fn reg<'a>(node: FdtNode<'a>) -> Result<impl Iterator<Item = (u64, u64)> + 'a, FdtError<'a>> {
    let entries = node.reg().map_err(|error| match error {
        PropertyError::PropEncodedArraySizeMismatch { size, chunk } => {
            FdtError::RegLength { node: node.name(), len: size, entry: chunk * size_of::<u32>() }
        }
        _ => FdtError::NoReg { node: node.name() },
    })?;
    // One or two cells always fit, so no entry is lost.
    let numbers = |reg: dtoolkit::standard::Reg<'a>| Some((reg.address().ok()?, reg.size().ok()?));
    Ok(entries.into_iter().flatten().filter_map(numbers))
}

/// Returns the range of `size` bytes at `address`, if a machine can have it.
fn region(node: &str, address: u64, size: u64) -> Result<PaRange, FdtError<'_>> {
    let range = PaRange::from_len(Pa(address), size).ok_or(FdtError::Wraps { node, address, size })?;
    if range.end > PA_LIMIT {
        return Err(FdtError::AbovePaLimit { node, range });
    }
    Ok(range)
}

/// Returns the pages around `size` bytes at `address`; none if `size` is 0.
fn pages(node: &str, address: u64, size: u64) -> Result<PaRange, FdtError<'_>> {
    let range = region(node, address, size)?;
    if range.is_empty() {
        return Ok(range);
    }
    range.align_outward(PAGE).ok_or(FdtError::AbovePaLimit { node, range })
}

/// Returns the error for a `reg` entry that overlaps an earlier one, with that one's node.
fn overlap<'a>(root: FdtNode<'a>, node: &'a str, range: PaRange) -> FdtError<'a> {
    for other in memory_nodes(root) {
        for (address, size) in reg(other).into_iter().flatten() {
            if let Some(other_range) = PaRange::from_len(Pa(address), size)
                && other_range.overlaps(range)
            {
                return FdtError::Overlap { node, range, other_node: other.name(), other: other_range };
            }
        }
    }
    FdtError::Overlap { node, range, other_node: node, other: range }
}

/// Returns the address in a property of `/chosen`, if that exists.
fn initrd_address<'a>(node: &FdtNode<'a>, property: &'static str) -> Result<Option<u64>, FdtError<'a>> {
    let Some(found) = node.property(property) else {
        return Ok(None);
    };
    let value = found.value();
    number(value).map(Some).ok_or(FdtError::InitrdLength { property, len: value.len() })
}

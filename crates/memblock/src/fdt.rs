//! Filling the memory map from a flattened device tree.

use crate::fdt_error::{FdtError, FdtWarning, FdtWarnings};
use crate::memblock::Memblock;
use crate::range_set::RangeSet;
use crate::region_error::{PA_LIMIT, RegionError};
use crate::vacated::covers_only;
use linmap_fdt::{Cells, Fdt, FdtNode, RegEntries, Status, first_string, number};
use linmap_vmsa::{Pa, PaRange};

/// Firmware describes memory in pages of at least this size. A smaller rest at an end of RAM is
/// left out.
pub(crate) const PAGE: u64 = 0x1000;
/// The node of an error in the memory reservation block.
const MEMRESERVE: &str = "/memreserve/";

impl<const N: usize> Memblock<N> {
    /// Replaces the content of the map by the memory of a device tree, and returns what was left
    /// out or merged.
    ///
    /// - Memory: the entries of all enabled children of the root with `device_type = "memory"`:
    ///   those of `linux,usable-memory` where a node has it, otherwise of `reg`. Regions that touch
    ///   or overlap are merged; then their ends are aligned inward to 4 KiB.
    /// - Reserved: the memory reservation block, the enabled children of `/reserved-memory` with
    ///   `reg`, the initrd of `/chosen`, and `linux,elfcorehdr` of `/chosen`, the header of the
    ///   crashed kernel's core file, aligned outward to 4 KiB. The range of a child with `no-map`
    ///   is marked no-map and not reserved. All may lie outside RAM; reservations of size 0 are
    ///   ignored.
    /// - Ignored: children of `/reserved-memory` without `reg`. They ask the kernel to choose a
    ///   range for a driver, which [`place_dynamic`](Self::place_dynamic) does.
    /// - Removed: memory outside `linux,usable-memory-range` of `/chosen`, if that property exists.
    ///   It keeps a crash kernel off the memory of the crashed kernel.
    ///
    /// The caller reserves the ranges that the tree does not have: the running image and the device
    /// tree blob.
    ///
    /// # Errors
    /// [`FdtError`], after which the map is empty.
    pub fn fill_from_fdt<'a>(&mut self, fdt: Fdt<'a>) -> Result<FdtWarnings<'a>, FdtError<'a>> {
        self.clear();
        let filled = self.fill(fdt);
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    /// As [`fill_from_fdt`](Self::fill_from_fdt), into lists that are empty.
    pub(crate) fn fill<'a>(&mut self, fdt: Fdt<'a>) -> Result<FdtWarnings<'a>, FdtError<'a>> {
        let warnings = self.add_memory(fdt.root())?;
        self.reserve_entries(fdt, &[])?;
        if let Some(chosen) = fdt.chosen() {
            self.reserve_initrd(chosen)?;
            self.reserve_core_header(fdt.root(), chosen)?;
            self.remove_unusable(fdt.root(), chosen)?;
        }
        if self.mappable(PAGE).next().is_none() {
            return Err(FdtError::NothingMappable { memory: self.memory_len() });
        }
        Ok(warnings)
    }

    /// Replaces the content of the map by what the firmware of a device tree reserves: the memory
    /// reservation block and the enabled children of `/reserved-memory`, without the entries that
    /// cover only what one of `vacated` occupied: the old tree blob and the old initrd, which boot
    /// loaders list as well, and which the next kernel does not need.
    ///
    /// # Errors
    /// [`FdtError`], after which the map is empty.
    pub fn fill_from_reservations<'a>(
        &mut self,
        fdt: Fdt<'a>,
        vacated: &[PaRange],
    ) -> Result<(), FdtError<'a>> {
        self.clear();
        let filled = self.reserve_entries(fdt, vacated);
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    fn add_memory<'a>(&mut self, root: FdtNode<'a>) -> Result<FdtWarnings<'a>, FdtError<'a>> {
        let cells = usable_cells(root)?;
        let mut warnings = FdtWarnings::default();
        let mut seen = false;
        for node in memory_nodes(root) {
            seen = true;
            for (address, size) in ram_entries(node, cells)? {
                if size == 0 {
                    warnings.add(|| FdtWarning::ZeroSized { node: node.name(), address });
                    continue;
                }
                let range = region(node.name(), address, size)?;
                if self.overlapping_memory(range).is_some() {
                    warnings.add(|| overlap(root, cells, node, range));
                }
                self.add(range).map_err(|source| FdtError::Regions { node: node.name(), source })?;
            }
        }
        if !seen {
            return Err(FdtError::NoMemoryNode);
        }
        self.align_memory_inward(PAGE);
        Ok(warnings)
    }

    fn reserve_entries<'a>(&mut self, fdt: Fdt<'a>, vacated: &[PaRange]) -> Result<(), FdtError<'a>> {
        for (address, size) in fdt.memory_reservations() {
            let pages = pages(MEMRESERVE, address, size)?;
            if !covers_only(pages, vacated) {
                self.reserve_pages(MEMRESERVE, pages)?;
            }
        }
        let Some(parent) = fdt.reserved_memory() else { return Ok(()) };
        let cells = usable_cells(parent)?;
        for (node, [status, reg, no_map]) in parent.children_with(["status", "reg", "no-map"]) {
            let name = node.name();
            if !Status::of_value(status).is_okay() {
                continue;
            }
            for (address, size) in entries(name, "reg", reg.unwrap_or_default(), cells)? {
                let pages = pages(name, address, size)?;
                if no_map.is_some() {
                    self.mark_no_map(pages).map_err(|source| FdtError::Regions { node: name, source })?;
                } else if !covers_only(pages, vacated) {
                    self.reserve_pages(name, pages)?;
                }
            }
        }
        Ok(())
    }

    fn reserve_initrd<'a>(&mut self, chosen: FdtNode<'a>) -> Result<(), FdtError<'a>> {
        let initrd = initrd(chosen)?;
        let name = chosen.name();
        self.reserve_pages(name, pages(name, initrd.start.0, initrd.len())?)
    }

    /// Reserves the header of a crashed kernel's core file.
    fn reserve_core_header<'a>(
        &mut self,
        root: FdtNode<'a>,
        chosen: FdtNode<'a>,
    ) -> Result<(), FdtError<'a>> {
        let node = chosen.name();
        for (address, size) in core_header(root, chosen)? {
            self.reserve_pages(node, pages(node, address, size)?)?;
        }
        Ok(())
    }

    /// Removes the memory outside the usable ranges of `/chosen`.
    fn remove_unusable<'a>(&mut self, root: FdtNode<'a>, chosen: FdtNode<'a>) -> Result<(), FdtError<'a>> {
        let Some(entries) = usable_entries(root, chosen)? else { return Ok(()) };
        let node = chosen.name();
        let full = |source| FdtError::Regions { node, source };
        let mut usable = RangeSet::<N>::new();
        for (address, size) in entries {
            let range = region(node, address, size)?.align_inward(PAGE);
            if !range.is_empty() {
                let over = |_| full(RegionError::Full { list: "usable", range, capacity: N });
                usable.insert(range).map_err(over)?;
            }
        }
        let mut end = Pa(0);
        for &range in usable.as_slice().iter().chain([&PaRange::new(PA_LIMIT, PA_LIMIT)]) {
            self.remove(PaRange::new(end, range.start)).map_err(full)?;
            end = range.end;
        }
        Ok(())
    }

    fn reserve_pages<'a>(&mut self, node: &'a str, pages: PaRange) -> Result<(), FdtError<'a>> {
        self.reserve(pages).map_err(|source| FdtError::Regions { node, source })
    }
}

/// Returns the enabled children of the root that describe RAM.
pub(crate) fn memory_nodes<'a>(root: FdtNode<'a>) -> impl Iterator<Item = FdtNode<'a>> {
    let is_ram = |[kind, status]: [Option<&[u8]>; 2]| {
        kind.is_some_and(|kind| first_string(kind) == b"memory") && Status::of_value(status).is_okay()
    };
    let children = root.children_with(["device_type", "status"]);
    children.filter(move |(_, values)| is_ram(*values)).map(|(node, _)| node)
}

/// Returns how the children of `parent` write addresses and sizes, if as 32-bit or 64-bit numbers.
pub(crate) fn usable_cells<'a>(parent: FdtNode<'a>) -> Result<Cells, FdtError<'a>> {
    let node = if parent.name().is_empty() { "/" } else { parent.name() };
    let fail = |property| Err(FdtError::Cells { node, property });
    match parent.cells() {
        cells @ Cells { address: 1 | 2, size: 1 | 2 } => Ok(cells),
        Cells { address: 1 | 2, .. } => fail("#size-cells"),
        _ => fail("#address-cells"),
    }
}

/// Returns the (address, size) of a node's RAM in bytes. `linux,usable-memory` says which part of
/// it this kernel may use; an empty one that it may use none.
pub(crate) fn ram_entries<'a>(
    node: FdtNode<'a>,
    cells: Cells,
) -> Result<impl Iterator<Item = (u64, u64)> + 'a, FdtError<'a>> {
    const USABLE: &str = "linux,usable-memory";
    let name = node.name();
    let [usable, reg] = node.values([USABLE, "reg"]);
    match (usable, reg) {
        (Some(usable), _) => entries(name, USABLE, usable, cells),
        (None, Some(reg)) if !reg.is_empty() => entries(name, "reg", reg, cells),
        _ => Err(FdtError::NoReg { node: name }),
    }
}

/// Returns the (address, size) of a property's entries in bytes. `cells` are 1 or 2, so that no
/// entry is lost.
pub(crate) fn entries<'a>(
    node: &'a str,
    property: &'static str,
    value: &'a [u8],
    cells: Cells,
) -> Result<impl Iterator<Item = (u64, u64)> + 'a, FdtError<'a>> {
    let entries = RegEntries::new(value, cells).map_err(|error| FdtError::RegLength {
        node,
        property,
        len: error.len,
        entry: error.entry,
    })?;
    Ok(entries.filter_map(|entry| entry.address().zip(entry.size())))
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

/// Returns the warning of an entry that overlaps an earlier one, with that one's node.
fn overlap<'a>(root: FdtNode<'a>, cells: Cells, node: FdtNode<'a>, range: PaRange) -> FdtWarning<'a> {
    let all = memory_nodes(root).flat_map(|other| {
        let entries = ram_entries(other, cells).into_iter().flatten();
        entries.filter_map(move |(address, size)| Some((other, PaRange::from_len(Pa(address), size)?)))
    });
    let (other_node, other) =
        all.into_iter().find(|(_, other)| other.overlaps(range)).unwrap_or((node, range));
    FdtWarning::Overlap { node: node.name(), range, other_node: other_node.name(), other }
}

/// Returns the initrd of `/chosen`; an empty range if there is none.
pub(crate) fn initrd<'a>(chosen: FdtNode<'a>) -> Result<PaRange, FdtError<'a>> {
    const START: &str = "linux,initrd-start";
    const END: &str = "linux,initrd-end";
    let [start, end] = chosen.values([START, END]);
    let (start, end) = match (initrd_address(start, START)?, initrd_address(end, END)?) {
        (Some(start), Some(end)) => (Pa(start), Pa(end)),
        (None, None) => return Ok(PaRange::default()),
        (None, Some(_)) => return Err(FdtError::InitrdHalf { missing: START }),
        (Some(_), None) => return Err(FdtError::InitrdHalf { missing: END }),
    };
    if end < start {
        return Err(FdtError::InitrdReversed { start, end });
    }
    Ok(PaRange::new(start, end))
}

/// Returns the (address, size) of the header of a crashed kernel's core file. As in Linux, a
/// property that is too short is ignored.
pub(crate) fn core_header<'a>(
    root: FdtNode<'a>,
    chosen: FdtNode<'a>,
) -> Result<impl Iterator<Item = (u64, u64)> + 'a, FdtError<'a>> {
    const HEADER: &str = "linux,elfcorehdr";
    let cells = usable_cells(root)?;
    let value = chosen.property(HEADER).and_then(|value| value.get(..cells.entry_len()));
    entries(chosen.name(), HEADER, value.unwrap_or_default(), cells)
}

/// Returns the (address, size) of the memory to which `/chosen` restricts this kernel, if it does.
/// The cells are the root's. As in Linux, an empty property is ignored.
pub(crate) fn usable_entries<'a>(
    root: FdtNode<'a>,
    chosen: FdtNode<'a>,
) -> Result<Option<impl Iterator<Item = (u64, u64)> + 'a>, FdtError<'a>> {
    const USABLE: &str = "linux,usable-memory-range";
    let Some(value) = chosen.property(USABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    entries(chosen.name(), USABLE, value, usable_cells(root)?).map(Some)
}

/// Returns the address in a property of `/chosen`, if that exists.
fn initrd_address<'a>(value: Option<&'a [u8]>, property: &'static str) -> Result<Option<u64>, FdtError<'a>> {
    let Some(value) = value else { return Ok(None) };
    number(value).map(Some).ok_or(FdtError::InitrdLength { property, len: value.len() })
}

//! Lists for a device tree with more ranges than a memory map has room for: memory that the tree
//! itself describes, found before any list holds it.

use linmap_fdt::Fdt;
use linmap_vmsa::{Pa, PaRange};

use crate::fdt::{
    PAGE, core_header, entries, initrd, memory_nodes, ram_entries, usable_cells, usable_entries,
};
use crate::fdt_error::{FdtError, FdtWarnings};
use crate::growth::LISTS;
use crate::memblock::Memblock;
use crate::region_error::{PA_LIMIT, RegionError};

/// The first address that is used. The page at 0 would be a null pointer through a map with VA =
/// PA.
const FIRST: Pa = Pa(0x1000);

/// How many ranges the lists have room for beside those of the tree: what the caller reserves.
const MORE: usize = 64;

/// Where the lists of a memory map may lie while it is filled.
///
/// ```
/// use linmap_fdt::Fdt;
/// use linmap_memblock::{EarlyStorage, FdtError, Memblock};
/// use linmap_vmsa::PaRange;
///
/// /// Fills `memory` from a tree of any length, with the MMU off.
/// fn fill<'a, const N: usize>(
///     memory: &mut Memblock<N>,
///     tree: Fdt<'a>,
///     in_use: &[PaRange],
/// ) -> Result<(), FdtError<'a>> {
///     let reach = |storage: PaRange| {
///         let first = core::ptr::with_exposed_provenance_mut(storage.start.0 as usize);
///         let count = storage.len() as usize / size_of::<PaRange>();
///         // SAFETY: RAM that nobody uses, at its physical address.
///         Some(unsafe { core::slice::from_raw_parts_mut(first, count) })
///     };
///     memory.fill_from_fdt_of_any_length(tree, EarlyStorage { in_use, align: 4096, reach })?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct EarlyStorage<'u, F> {
    /// What is in use although the tree does not say so: the running image, the tree itself. The
    /// storage lies as near as possible to the first of them, so that what limits memory but keeps
    /// the image keeps both.
    pub in_use: &'u [PaRange],
    /// The bytes to which both ends of the storage are aligned, a power of two: the page by which
    /// `reach` maps it.
    pub align: u64,
    /// Returns the memory at a physical address as storage, of any content. `None` means that the
    /// caller cannot reach it. The memory is the map's until it frees it.
    pub reach: F,
}

impl<const N: usize> Memblock<N> {
    /// As [`fill_from_fdt`](Self::fill_from_fdt), for a tree with any number of ranges: if a list
    /// is full, all move to RAM of the tree that it does not reserve and that is not in use. There
    /// is room for four times the tree's ranges then, as allocations and reservations need it. The
    /// storage is reserved.
    ///
    /// [`allow_growth`](Self::allow_growth) lets the lists grow further, once everything that is in
    /// use is reserved; [`move_lists`](Self::move_lists) does too, and moves them to another
    /// address.
    ///
    /// # Errors
    /// [`FdtError`], after which the map is empty.
    pub fn fill_from_fdt_of_any_length<'a, F>(
        &mut self,
        fdt: Fdt<'a>,
        early: EarlyStorage<'_, F>,
    ) -> Result<FdtWarnings<'a>, FdtError<'a>>
    where
        F: FnOnce(PaRange) -> Option<&'static mut [PaRange]>,
    {
        match self.fill_from_fdt(fdt) {
            Err(FdtError::Regions { node, source: RegionError::Full { list, range, capacity } }) => {
                let bytes = bytes_for(fdt).next_multiple_of(early.align);
                let limit = PaRange::new(Pa(0), PA_LIMIT);
                let source = RegionError::NoStorage { list, range, capacity, bytes, limit };
                let none = FdtError::Regions { node, source };
                let storage = place(fdt, bytes, early.in_use, early.align).ok_or(none)?;
                let room = (early.reach)(storage).ok_or(none)?;
                if room.len() / LISTS <= capacity || !self.lie_in(storage, room) {
                    return Err(none);
                }
                let filled = self.fill(fdt);
                if filled.is_err() {
                    self.clear();
                }
                filled
            }
            filled => filled,
        }
    }
}

/// Returns how many bytes the lists for this tree need.
fn bytes_for(fdt: Fdt<'_>) -> u64 {
    let mut count = 0;
    each_memory(fdt, &mut |_| count += 1);
    each_reserved(fdt, &mut |_| count += 1);
    // A reservation can split a range of memory, and each range can have an allocation of its own,
    // beside the rest of a page at either end.
    ((count * 4 + MORE) * LISTS * size_of::<PaRange>()) as u64
}

/// Returns the place for `bytes` bytes in RAM that the tree does not reserve, as near as possible
/// to the first range that is in use.
fn place(fdt: Fdt<'_>, bytes: u64, in_use: &[PaRange], align: u64) -> Option<PaRange> {
    let near = in_use.first().copied().unwrap_or_default();
    let mut nearest: Option<(u64, PaRange)> = None;
    each_memory(fdt, &mut |ram| {
        each_usable(fdt, &mut |usable| {
            let part = ram.intersection(usable);
            let below = PaRange::new(part.start.max(FIRST), part.end.min(near.start)).align_inward(align);
            let above = PaRange::new(part.start.max(FIRST).max(near.end), part.end).align_inward(align);
            let below = last_free(fdt, below, bytes, in_use, align);
            let above = first_free(fdt, above, bytes, in_use, align);
            let found = [
                below.map(|place| (near.start.0 - place.end.0, place)),
                above.map(|place| (place.start.0 - near.end.0, place)),
            ];
            nearest = found.into_iter().flatten().chain(nearest).min_by_key(|(distance, _)| *distance);
        });
    });
    nearest.map(|(_, place)| place)
}

/// Returns the lowest place for `bytes` bytes in `part`, aligned.
fn first_free(fdt: Fdt<'_>, part: PaRange, bytes: u64, in_use: &[PaRange], align: u64) -> Option<PaRange> {
    let mut start = part.start;
    loop {
        let place = PaRange::from_len(start, bytes).filter(|place| part.covers(*place))?;
        let Some(used) = use_of(fdt, place, in_use) else { return Some(place) };
        start = Pa(used.end.0.checked_next_multiple_of(align)?);
    }
}

/// Returns the highest place for `bytes` bytes in `part`, aligned.
fn last_free(fdt: Fdt<'_>, part: PaRange, bytes: u64, in_use: &[PaRange], align: u64) -> Option<PaRange> {
    let mut end = part.end;
    loop {
        let start = Pa(end.0.checked_sub(bytes).filter(|start| *start >= part.start.0)?);
        let place = PaRange::new(start, end);
        let Some(used) = use_of(fdt, place, in_use) else { return Some(place) };
        end = Pa(used.start.0 & !(align - 1));
    }
}

/// Returns from the first to the last byte of all that is in use and overlaps `place`.
fn use_of(fdt: Fdt<'_>, place: PaRange, in_use: &[PaRange]) -> Option<PaRange> {
    let mut used: Option<PaRange> = None;
    let mut see = |range: PaRange| {
        if range.overlaps(place) {
            let whole = used.unwrap_or(range);
            used = Some(PaRange::new(whole.start.min(range.start), whole.end.max(range.end)));
        }
    };
    each_reserved(fdt, &mut see);
    in_use.iter().copied().for_each(see);
    used
}

/// Calls `see` with the RAM of the tree, in its order. What can't be read is left out: reading the
/// tree into the lists reports it.
#[inline(never)]
fn each_memory(fdt: Fdt<'_>, see: &mut dyn FnMut(PaRange)) {
    let root = fdt.root();
    let Ok(cells) = usable_cells(root) else { return };
    for node in memory_nodes(root) {
        ram_entries(node, cells).into_iter().flatten().for_each(|entry| see_entry(entry, see));
    }
}

/// Calls `see` with the pages that the tree reserves, or occupies by what it names.
#[inline(never)]
fn each_reserved(fdt: Fdt<'_>, see: &mut dyn FnMut(PaRange)) {
    let see: &mut dyn FnMut(PaRange) = &mut |range| range.align_outward(PAGE).into_iter().for_each(&mut *see);
    fdt.memory_reservations().for_each(|entry| see_entry(entry, see));
    if let Some(parent) = fdt.reserved_memory()
        && let Ok(cells) = usable_cells(parent)
    {
        for (node, [reg]) in parent.children_with(["reg"]) {
            let entries = entries(node.name(), "reg", reg.unwrap_or_default(), cells);
            entries.into_iter().flatten().for_each(|entry| see_entry(entry, see));
        }
    }
    if let Some(chosen) = fdt.chosen() {
        let initrd = initrd(chosen).unwrap_or_default();
        see_entry((initrd.start.0, initrd.len()), see);
        let header = core_header(fdt.root(), chosen);
        header.into_iter().flatten().for_each(|entry| see_entry(entry, see));
    }
}

/// Calls `see` with the memory to which the tree restricts this kernel.
fn each_usable(fdt: Fdt<'_>, see: &mut dyn FnMut(PaRange)) {
    match fdt.chosen().and_then(|chosen| usable_entries(fdt.root(), chosen).transpose()) {
        None => see(PaRange::new(Pa(0), PA_LIMIT)),
        Some(entries) => entries.into_iter().flatten().for_each(|entry| see_entry(entry, see)),
    }
}

/// Calls `see` with a range, if it is not empty, and ends.
fn see_entry((address, size): (u64, u64), see: &mut dyn FnMut(PaRange)) {
    if size > 0
        && let Some(range) = PaRange::from_len(Pa(address), size)
    {
        see(range);
    }
}

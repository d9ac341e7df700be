//! Memory that a device tree asks a kernel to choose: children of `/reserved-memory` with a size
//! and no address.

use linmap_fdt::{Cells, Fdt, FdtNode, Status, number};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::alloc::AllocError;
use crate::fdt::{entries, usable_cells};
use crate::fdt_error::FdtError;
use crate::memblock::Memblock;
use crate::region_error::{PA_LIMIT, RegionError};

/// A node that asked for memory.
///
/// ```
/// use linmap_fdt::Fdt;
/// use linmap_memblock::{DynamicError, DynamicReservation, Memblock};
///
/// /// Places what `/reserved-memory` asks for. Returns how many bytes.
/// fn place<const N: usize>(memory: &mut Memblock<N>, tree: Fdt<'_>) -> u64 {
///     let mut bytes = 0;
///     memory.place_dynamic(tree, 0x1000, &mut |placed| match placed {
///         Ok(DynamicReservation { range, .. }) => bytes += range.len(),
///         Err(error) => {
///             let _: DynamicError<'_> = error;
///         }
///     });
///     bytes
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicReservation<'a> {
    /// Its name.
    pub node: &'a str,
    /// The memory, which must not be mapped if the node has `no-map`, and is reserved otherwise.
    pub range: PaRange,
    /// Whether it must not be mapped.
    pub no_map: bool,
    /// Whether a kernel may use it for what can be moved away (`reusable`).
    pub reusable: bool,
}

/// Why a node gets no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DynamicError<'a> {
    /// A property is malformed.
    #[error(transparent)]
    Tree(FdtError<'a>),
    /// Its size or its alignment is not a number, 0, or an alignment not a power of two.
    #[error("reserved-memory node {node}: {property} is not a {rule}")]
    Value {
        /// The node's name.
        node: &'a str,
        /// `size` or `alignment`.
        property: &'static str,
        /// What it should be.
        rule: &'static str,
    },
    /// No memory that it may have is free.
    #[error("reserved-memory node {node}: {source}")]
    Memory {
        /// The node's name.
        node: &'a str,
        /// Why.
        source: AllocError,
    },
    /// Its memory can't be marked as no-map.
    #[error("reserved-memory node {node}: {source}")]
    Region {
        /// The node's name.
        node: &'a str,
        /// Why.
        source: RegionError,
    },
}

impl<const N: usize> Memblock<N> {
    /// Chooses memory for the enabled children of `/reserved-memory` that have a `size` and no
    /// `reg`, and calls `each` with what became of each: the highest free memory in the first of
    /// its `alloc-ranges` with room, or anywhere if it names none, aligned to its `alignment` and
    /// to `page` bytes, in whole pages. As in Linux, a node without memory is no reason to stop.
    ///
    /// Reserve everything that is in use before.
    pub fn place_dynamic<'a>(
        &mut self,
        fdt: Fdt<'a>,
        page: u64,
        each: &mut dyn FnMut(Result<DynamicReservation<'a>, DynamicError<'a>>),
    ) {
        let Some(parent) = fdt.reserved_memory() else { return };
        let names = ["status", "reg", "size", "alignment", "alloc-ranges", "no-map", "reusable"];
        for (node, [status, reg, size, alignment, ranges, no_map, reusable]) in parent.children_with(names) {
            let (None, Some(size)) = (reg, size) else { continue };
            if !Status::of_value(status).is_okay() {
                continue;
            }
            let wanted = Wanted { node, size, alignment, ranges, no_map: no_map.is_some() };
            let range = usable_cells(parent).map_err(DynamicError::Tree);
            let range = range.and_then(|cells| self.place(wanted, cells, page));
            let reusable = reusable.is_some();
            each(range.map(|range| DynamicReservation {
                node: node.name(),
                range,
                no_map: no_map.is_some(),
                reusable,
            }));
        }
    }

    fn place<'a>(
        &mut self,
        wanted: Wanted<'a>,
        cells: Cells,
        page: u64,
    ) -> Result<PaRange, DynamicError<'a>> {
        let node = wanted.node.name();
        let wrong = |property, rule| DynamicError::Value { node, property, rule };
        let len = number(wanted.size).and_then(|size| size.checked_next_multiple_of(page));
        let len = len.filter(|len| *len > 0 && *len < PA_LIMIT.0).ok_or(wrong("size", "size of memory"))?;
        let align = match wanted.alignment {
            None => page,
            Some(value) => number(value)
                .filter(|align| align.is_power_of_two())
                .ok_or(wrong("alignment", "power of two"))?
                .max(page),
        };
        let ranges = wanted.ranges.unwrap_or_default();
        let mut within = entries(node, "alloc-ranges", ranges, cells).map_err(DynamicError::Tree)?;
        let everywhere = PaRange::new(Pa(0), self.memory_end());
        let mut limit = match wanted.ranges {
            None => Some(everywhere),
            Some(_) => within.next().map(range_of),
        };
        let mut failed = AllocError::NoSpace { len, align, limit: PaRange::default(), largest: 0 };
        while let Some(inside) = limit {
            match self.alloc(len, align, inside.intersection(everywhere)) {
                Ok(start) => return self.keep(node, PaRange::new(start, Pa(start.0 + len)), wanted.no_map),
                Err(error) => failed = error,
            }
            limit = within.next().map(range_of);
        }
        Err(DynamicError::Memory { node, source: failed })
    }

    /// Marks allocated memory as no-map instead, if it is.
    fn keep<'a>(&mut self, node: &'a str, range: PaRange, no_map: bool) -> Result<PaRange, DynamicError<'a>> {
        if no_map {
            let marked = self.mark_no_map(range);
            let freed = self.free(range);
            marked.and(freed).map_err(|source| DynamicError::Region { node, source })?;
        }
        Ok(range)
    }
}

/// What a node asks for, as it is in the tree.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    node: FdtNode<'a>,
    size: &'a [u8],
    alignment: Option<&'a [u8]>,
    ranges: Option<&'a [u8]>,
    no_map: bool,
}

/// The range of an entry, as much of it as there is below the end of physical addresses.
fn range_of((address, size): (u64, u64)) -> PaRange {
    PaRange::new(Pa(address), Pa(address.saturating_add(size).min(PA_LIMIT.0)))
}

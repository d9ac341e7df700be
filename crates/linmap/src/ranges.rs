//! What memory is mapped, and how: from memblock to a list of mappings.

use arrayvec::ArrayVec;
use linmap_memblock::Memblock;
use linmap_table::{Leaves, Mapping};
use linmap_vmsa::{Attributes, Geometry, GeometryError, PaRange, Va};
use thiserror::Error;

use crate::layout::Layout;

/// The most ranges that a linear map is painted from.
pub const MAX_MAPPINGS: usize = 512;

/// A list of mappings of fixed capacity.
pub type MappingList = ArrayVec<Mapping, MAX_MAPPINGS>;

/// More ranges than a list holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("memory {range} is the range after the {MAX_MAPPINGS}th to be mapped: too many")]
pub struct TooManyRanges {
    /// The first range without a place.
    pub range: PaRange,
}

/// Fills `list` with the linear map's mappings, ascending: all memory that is not no-map, each byte once. `image`, the kernel image in
/// whole pages, is mapped read-only (its text and data have their own mapping elsewhere) and without the contiguous bit.
///
/// # Errors
/// [`TooManyRanges`].
pub fn linear_mappings<const N: usize>(
    layout: &Layout,
    memblock: &Memblock<N>,
    image: PaRange,
    leaves: Leaves,
    list: &mut MappingList,
) -> Result<(), TooManyRanges> {
    list.clear();
    let alias_leaves = match leaves {
        Leaves::Pages => Leaves::Pages,
        Leaves::Blocks | Leaves::ContiguousBlocks => Leaves::Blocks,
    };
    for range in memblock.mapped(layout.geometry().granule().bytes()) {
        let parts = [
            (PaRange::new(range.start, range.end.min(image.start)), Attributes::KERNEL_DATA, leaves),
            (range.intersection(image), Attributes::KERNEL_RODATA, alias_leaves),
            (PaRange::new(range.start.max(image.end), range.end), Attributes::KERNEL_DATA, leaves),
        ];
        for (part, attributes, leaves) in parts {
            if part.is_empty() {
                continue;
            }
            let mapping = Mapping {
                va: layout.linear(part.start),
                pa: part.start,
                len: part.len(),
                attributes,
                leaves,
            };
            list.try_push(mapping).map_err(|_| TooManyRanges { range: part })?;
        }
    }
    Ok(())
}

/// Fills `list` with a 1:1 map of the same memory by the largest leaves there are, writable all over and executable nowhere.
///
/// # Errors
/// [`TooManyRanges`].
pub fn identity_mappings<const N: usize>(
    geometry: Geometry,
    memblock: &Memblock<N>,
    list: &mut MappingList,
) -> Result<(), TooManyRanges> {
    list.clear();
    for range in memblock.mapped(geometry.granule().bytes()) {
        let mapping = Mapping {
            va: Va(range.start.0),
            pa: range.start,
            len: range.len(),
            attributes: Attributes::KERNEL_DATA,
            leaves: Leaves::ContiguousBlocks,
        };
        list.try_push(mapping).map_err(|_| TooManyRanges { range })?;
    }
    Ok(())
}

/// The shape of a TTBR0 map that reaches up to `end` and no further than it must: a smaller VA size means fewer levels
/// and a shorter root.
///
/// # Errors
/// [`GeometryError::VaBits`] when memory ends beyond the kernel's own VA size, where a TTBR0 table of the same granule
/// would need LPA2.
pub fn identity_geometry(kernel: Geometry, end: u64) -> Result<Geometry, GeometryError> {
    let bits = (u64::BITS - end.saturating_sub(1).leading_zeros()).max(25) as u8;
    if bits > kernel.va_bits() {
        return Err(GeometryError::VaBits { bits });
    }
    Geometry::new(kernel.granule(), bits, kernel.pa_bits())
}

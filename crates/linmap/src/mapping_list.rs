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

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_table::Mappings;
    use linmap_vmsa::{Access, Pa};
    use std::boxed::Box;
    use std::vec::Vec;

    const G: Geometry = Geometry::K4_48;

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    fn memblock(memory: &[PaRange], no_map: &[PaRange]) -> Memblock<16> {
        let mut memblock = Memblock::new();
        memory.iter().for_each(|range| memblock.add(*range).unwrap());
        no_map.iter().for_each(|range| memblock.mark_no_map(*range).unwrap());
        memblock
    }

    fn linear(memblock: &Memblock<16>, image: PaRange, leaves: Leaves) -> Box<MappingList> {
        let layout = Layout::new(G, range(0x4000_0000, memblock.memory_end().0)).unwrap();
        let mut list = Box::new(MappingList::new());
        linear_mappings(&layout, memblock, image, leaves, &mut list).unwrap();
        Mappings::new(G, &list).expect("a list that a builder takes");
        list
    }

    #[test]
    fn all_memory_but_no_map_is_mapped_once_and_the_image_read_only() {
        let memory = [range(0x4000_0000, 0x8000_0000), range(0x9000_0000, 0xa000_0000)];
        let memblock = memblock(&memory, &[range(0x7000_0000, 0x7100_0000)]);
        let image = range(0x4020_0000, 0x4030_0000);
        let list = linear(&memblock, image, Leaves::ContiguousBlocks);
        let found: Vec<_> = list.iter().map(|m| (m.pa.0, m.len, m.attributes.access, m.leaves)).collect();
        let (data, rodata) = (Access::KernelReadWrite, Access::KernelReadOnly);
        assert_eq!(
            found,
            [
                (0x4000_0000, 0x20_0000, data, Leaves::ContiguousBlocks),
                (0x4020_0000, 0x10_0000, rodata, Leaves::Blocks),
                (0x4030_0000, 0x2fd0_0000, data, Leaves::ContiguousBlocks),
                (0x7100_0000, 0xf00_0000, data, Leaves::ContiguousBlocks),
                (0x9000_0000, 0x1000_0000, data, Leaves::ContiguousBlocks),
            ]
        );
    }

    #[test]
    fn an_image_at_either_end_of_memory_leaves_no_empty_mapping() {
        let memblock = memblock(&[range(0x4000_0000, 0x4010_0000)], &[]);
        for (image, parts) in [
            (range(0x4000_0000, 0x4001_0000), 2),
            (range(0x400f_0000, 0x4010_0000), 2),
            (range(0x4000_0000, 0x4010_0000), 1),
        ] {
            assert_eq!(linear(&memblock, image, Leaves::Pages).len(), parts, "{image}");
        }
    }

    #[test]
    fn an_identity_map_covers_the_same_memory_at_va_equal_to_pa() {
        let memory = [range(0x4000_0000, 0x8000_0000), range(0x9000_0000, 0xa000_0000)];
        let memblock = memblock(&memory, &[range(0x7000_0000, 0x7100_0000)]);
        let mut list = Box::new(MappingList::new());
        identity_mappings(G, &memblock, &mut list).unwrap();
        assert!(list.iter().all(|m| m.va.0 == m.pa.0 && m.leaves == Leaves::ContiguousBlocks));
        assert_eq!(list.iter().map(|m| m.len).sum::<u64>(), 0x3f00_0000 + 0x1000_0000);
    }

    #[test]
    fn more_ranges_than_a_list_holds_are_an_error_that_names_the_first() {
        let mut memblock = Memblock::<1024>::new();
        for i in 0..=MAX_MAPPINGS as u64 {
            memblock.add(range(i * 0x2000, i * 0x2000 + 0x1000)).unwrap();
        }
        let mut list = Box::new(MappingList::new());
        let error = identity_mappings(G, &memblock, &mut list).unwrap_err();
        assert_eq!(error.range, range(MAX_MAPPINGS as u64 * 0x2000, MAX_MAPPINGS as u64 * 0x2000 + 0x1000));
    }

    #[test]
    fn an_identity_map_is_no_wider_than_memory_needs() {
        for (end, bits) in [
            (0x1000, 25),
            (0x4800_0000, 31),
            (0x8000_0000, 31),
            (0x1_4000_0000, 33),
            (0x80_4000_0000, 40),
            (1 << 48, 48),
        ] {
            assert_eq!(identity_geometry(G, end).map(Geometry::va_bits), Ok(bits), "{end:#x}");
        }
        assert_eq!(identity_geometry(G, (1 << 48) + 1), Err(GeometryError::VaBits { bits: 49 }));
    }
}

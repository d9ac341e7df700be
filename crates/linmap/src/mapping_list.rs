//! What memory is mapped, and how: from ranges to lists of mappings.

use arrayvec::ArrayVec;
use linmap_table::{Leaves, Mapping};
use linmap_vmsa::{Attributes, Geometry, GeometryError, Pa, PaRange, Va};
use thiserror::Error;

use crate::layout::Layout;

/// A list of mappings of fixed capacity. It holds one for each range of memory, and two more in a
/// linear map for the kernel image.
pub type MappingList<const N: usize = 512> = ArrayVec<Mapping, N>;

/// Room for the lists that a linear map is built from, of `N` mappings each: two more than memory
/// has ranges.
///
/// 80 bytes a mapping: keep it off small stacks.
#[derive(Clone, Debug, Default)]
pub struct MappingLists<const N: usize = 512> {
    pub(crate) linear: MappingList<N>,
    pub(crate) identity: MappingList<N>,
}

impl<const N: usize> MappingLists<N> {
    /// Returns empty lists.
    pub const fn new() -> Self {
        Self { linear: ArrayVec::new_const(), identity: ArrayVec::new_const() }
    }
}

/// Memory has more ranges than a list of mappings holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no room to map {range}: the list holds {capacity} mappings")]
pub struct TooManyRanges {
    /// The first range without room.
    pub range: PaRange,
    /// How many mappings the list holds.
    pub capacity: usize,
}

/// Fills `list` with the linear map of the memory in `identity`: each byte once, writable and never
/// executable. `image`, the kernel image in whole pages, is read-only and has no contiguous bit,
/// since it has another mapping elsewhere.
///
/// # Errors
/// [`TooManyRanges`].
pub fn linear_mappings<const N: usize>(
    layout: &Layout,
    identity: &[Mapping],
    image: PaRange,
    leaves: Leaves,
    list: &mut MappingList<N>,
) -> Result<(), TooManyRanges> {
    list.clear();
    let alias_leaves = match leaves {
        Leaves::Pages => Leaves::Pages,
        Leaves::Blocks | Leaves::ContiguousBlocks => Leaves::Blocks,
    };
    for mapping in identity {
        let range = PaRange { start: mapping.pa, end: Pa(mapping.pa.0 + mapping.len) };
        let parts = [
            (PaRange::new(range.start, range.end.min(image.start)), Attributes::KERNEL_DATA, leaves),
            (range.intersection(image), Attributes::KERNEL_RODATA, alias_leaves),
            (PaRange::new(range.start.max(image.end), range.end), Attributes::KERNEL_DATA, leaves),
        ];
        for (part, attributes, leaves) in parts {
            if !part.is_empty() {
                let va = layout.linear(part.start);
                push(list, Mapping { va, pa: part.start, len: part.len(), attributes, leaves })?;
            }
        }
    }
    Ok(())
}

/// Fills `list` with a 1:1 map of `memory` by the largest leaves, writable and never executable.
///
/// # Errors
/// [`TooManyRanges`].
pub fn identity_mappings<const N: usize>(
    memory: impl IntoIterator<Item = PaRange>,
    list: &mut MappingList<N>,
) -> Result<(), TooManyRanges> {
    list.clear();
    for range in memory {
        let (attributes, leaves) = (Attributes::KERNEL_DATA, Leaves::ContiguousBlocks);
        let (va, pa, len) = (Va(range.start.0), range.start, range.len());
        push(list, Mapping { va, pa, len, attributes, leaves })?;
    }
    Ok(())
}

fn push<const N: usize>(list: &mut MappingList<N>, mapping: Mapping) -> Result<(), TooManyRanges> {
    let range = PaRange { start: mapping.pa, end: Pa(mapping.pa.0 + mapping.len) };
    list.try_push(mapping).map_err(|_| TooManyRanges { range, capacity: N })
}

/// Returns the geometry of a TTBR0 map that reaches up to `end` and no further than it must: fewer
/// VA bits mean fewer levels and a shorter root.
///
/// # Errors
/// [`GeometryError::VaBits`] when `end` needs more VA bits than the kernel's half has.
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
    use linmap_vmsa::Access;
    use std::boxed::Box;
    use std::vec::Vec;

    const G: Geometry = Geometry::K4_48;

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    type List = Box<MappingList>;

    fn identity(memory: &[PaRange]) -> List {
        let mut list = Box::new(MappingList::new());
        identity_mappings(memory.iter().copied(), &mut list).unwrap();
        Mappings::new(G, &list).expect("a list that a builder takes");
        list
    }

    fn linear(memory: &[PaRange], image: PaRange, leaves: Leaves) -> List {
        let layout = Layout::new(G, range(0x4000_0000, 0x1_0000_0000)).unwrap();
        let mut list = Box::new(MappingList::new());
        linear_mappings(&layout, &identity(memory), image, leaves, &mut list).unwrap();
        Mappings::new(G, &list).expect("a list that a builder takes");
        list
    }

    /// Memory with a hole from 0x7000_0000 to 0x7100_0000.
    fn memory() -> [PaRange; 3] {
        [range(0x4000_0000, 0x7000_0000), range(0x7100_0000, 0x8000_0000), range(0x9000_0000, 0xa000_0000)]
    }

    #[test]
    fn all_memory_is_mapped_once_and_the_image_read_only() {
        let image = range(0x4020_0000, 0x4030_0000);
        let list = linear(&memory(), image, Leaves::ContiguousBlocks);
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
        let memory = [range(0x4000_0000, 0x4010_0000)];
        for (image, parts) in [
            (range(0x4000_0000, 0x4001_0000), 2),
            (range(0x400f_0000, 0x4010_0000), 2),
            (range(0x4000_0000, 0x4010_0000), 1),
        ] {
            assert_eq!(linear(&memory, image, Leaves::Pages).len(), parts, "{image}");
        }
    }

    #[test]
    fn an_identity_map_covers_the_same_memory_at_va_equal_to_pa() {
        let list = identity(&memory());
        assert!(list.iter().all(|m| m.va.0 == m.pa.0 && m.leaves == Leaves::ContiguousBlocks));
        assert_eq!(list.iter().map(|m| m.len).sum::<u64>(), 0x3f00_0000 + 0x1000_0000);
    }

    #[test]
    fn more_ranges_than_a_list_holds_are_an_error_that_names_the_first() {
        let memory = (0..=4).map(|nth| range(nth * 0x2000, nth * 0x2000 + 0x1000));
        let error = identity_mappings(memory, &mut MappingList::<4>::new()).unwrap_err();
        assert_eq!(error, TooManyRanges { range: range(0x8000, 0x9000), capacity: 4 });
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

//! What memory is mapped, and how: from ranges to lists of mappings.

use core::ops::Deref;

use arrayvec::ArrayVec;
use linmap_table::{Leaves, Mapping};
use linmap_vmsa::{Attributes, Geometry, MemoryType, Pa, PaRange, Va};
use thiserror::Error;

use crate::image::ImageParts;
use crate::layout::Layout;
use crate::page_ranges::PageRanges;

/// A list of mappings of fixed capacity: `N`, or that of memory that it is lent. It holds one for
/// each range of memory, and two more in a linear map for what lies around the kernel
/// image, and two for each range of [`PageRanges`].
///
/// ```
/// use linmap::{MappingList, TooManyRanges};
/// use linmap_table::{Leaves, Mapping};
/// use linmap_vmsa::{Attributes, Pa, PaRange, Va};
///
/// let range = PaRange::new(Pa(0x4000_0000), Pa(0x4000_1000));
/// let mapping = Mapping {
///     va: Va(0x4000_0000),
///     pa: range.start,
///     len: range.len(),
///     attributes: Attributes::KERNEL_DATA,
///     leaves: Leaves::Pages,
/// };
/// let mut list = MappingList::<1>::new();
/// list.push(range, mapping)?;
/// assert_eq!(list.push(range, mapping), Err(TooManyRanges { range, capacity: 1 }));
/// # Ok::<(), TooManyRanges>(())
/// ```
#[derive(Debug, Default)]
pub struct MappingList<'m, const N: usize = 512> {
    own: ArrayVec<Mapping, N>,
    lent: Option<Lent<'m>>,
}

/// Memory that a list uses instead of its own.
#[derive(Debug)]
struct Lent<'m> {
    room: &'m mut [Mapping],
    len: usize,
}

impl<'m, const N: usize> MappingList<'m, N> {
    /// Returns an empty list.
    pub const fn new() -> Self {
        Self { own: ArrayVec::new_const(), lent: None }
    }

    /// Empties the list. From now on it uses `room` instead of its own memory.
    pub fn lend(&mut self, room: &'m mut [Mapping]) {
        self.own.clear();
        self.lent = Some(Lent { room, len: 0 });
    }

    /// Returns how many mappings the list holds at most.
    pub fn capacity(&self) -> usize {
        self.lent.as_ref().map_or(N, |lent| lent.room.len())
    }

    /// Adds the mapping of `range`.
    ///
    /// # Errors
    /// [`TooManyRanges`].
    pub fn push(&mut self, range: PaRange, mapping: Mapping) -> Result<(), TooManyRanges> {
        let capacity = self.capacity();
        let full = TooManyRanges { range, capacity };
        let Some(Lent { room, len }) = &mut self.lent else {
            return self.own.try_push(mapping).map_err(|_| full);
        };
        *room.get_mut(*len).ok_or(full)? = mapping;
        *len += 1;
        Ok(())
    }

    fn clear(&mut self) {
        self.own.clear();
        if let Some(lent) = &mut self.lent {
            lent.len = 0;
        }
    }
}

impl<const N: usize> Deref for MappingList<'_, N> {
    type Target = [Mapping];

    fn deref(&self) -> &[Mapping] {
        match &self.lent {
            None => &self.own,
            Some(Lent { room, len }) => room.get(..*len).unwrap_or_default(),
        }
    }
}

/// Room for the lists that a linear map is built from, of `N` mappings each: two more than memory
/// has ranges, and two for each range of [`PageRanges`].
///
/// 80 bytes a mapping: keep it off small stacks.
#[derive(Debug, Default)]
pub struct MappingLists<'m, const N: usize = 512> {
    pub(crate) linear: MappingList<'m, N>,
    pub(crate) identity: MappingList<'m, N>,
}

impl<'m, const N: usize> MappingLists<'m, N> {
    /// Returns empty lists.
    pub const fn new() -> Self {
        Self { linear: MappingList::new(), identity: MappingList::new() }
    }

    /// Empties the lists. From now on they use a half of `room` each instead of their own memory.
    pub fn lend(&mut self, room: &'m mut [Mapping]) {
        let (linear, identity) = room.split_at_mut(room.len() / 2);
        self.linear.lend(linear);
        self.identity.lend(identity);
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
/// executable. `image` has another mapping elsewhere: here its read-only part is read-only, without
/// the contiguous bit, and its data is left out, so that no wild pointer reaches it by an address
/// that can be guessed. `pages` is mapped by pages, the rest by `leaves`; all of it is of the type
/// `memory`.
///
/// # Errors
/// [`TooManyRanges`].
pub fn linear_mappings<const N: usize>(
    layout: &Layout,
    identity: &[Mapping],
    image: ImageParts,
    leaves: Leaves,
    pages: &PageRanges,
    memory: MemoryType,
    list: &mut MappingList<'_, N>,
) -> Result<(), TooManyRanges> {
    list.clear();
    let whole = image.range();
    let data = Attributes { memory, ..Attributes::KERNEL_DATA };
    let read_only = Attributes { memory, ..Attributes::KERNEL_RODATA };
    let alias_leaves = match leaves {
        Leaves::Pages => Leaves::Pages,
        Leaves::Blocks | Leaves::ContiguousBlocks => Leaves::Blocks,
    };
    for mapping in identity {
        let range = PaRange { start: mapping.pa, end: Pa(mapping.pa.0 + mapping.len) };
        let parts = [
            (PaRange::new(range.start, range.end.min(whole.start)), data, leaves),
            (range.intersection(image.read_only), read_only, alias_leaves),
            (PaRange::new(range.start.max(whole.end), range.end), data, leaves),
        ];
        for (part, attributes, leaves) in parts {
            for (part, is_pages) in pages.parts(part) {
                let va = layout.linear(part.start);
                let leaves = if is_pages { Leaves::Pages } else { leaves };
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
    list: &mut MappingList<'_, N>,
) -> Result<(), TooManyRanges> {
    list.clear();
    for range in memory {
        let (attributes, leaves) = (Attributes::KERNEL_DATA, Leaves::ContiguousBlocks);
        let (va, pa, len) = (Va(range.start.0), range.start, range.len());
        push(list, Mapping { va, pa, len, attributes, leaves })?;
    }
    Ok(())
}

fn push<const N: usize>(list: &mut MappingList<'_, N>, mapping: Mapping) -> Result<(), TooManyRanges> {
    list.push(PaRange { start: mapping.pa, end: Pa(mapping.pa.0 + mapping.len) }, mapping)
}

/// No 1:1 map reaches the end of memory.
///
/// ```
/// use linmap::{BeyondIdentityReach, identity_geometry};
/// use linmap_vmsa::{Geometry, Pa};
///
/// // 4 GiB of memory take 32 bits. What ends above 2^48 is out of reach without LPA2.
/// assert_eq!(identity_geometry(Geometry::K4_48, Pa(4 << 30)).unwrap().va_bits(), 32);
/// let BeyondIdentityReach { bits, reach, .. } =
///     identity_geometry(Geometry::K4_48, Pa(3 << 48)).unwrap_err();
/// assert_eq!((bits, reach), (50, 48));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "a 1:1 map of memory up to {end} needs {bits} bits of VA: T0SZ reaches {reach} bits with this granule \
     and descriptor format"
)]
pub struct BeyondIdentityReach {
    /// The end of memory.
    pub end: Pa,
    /// The bits that its last address needs.
    pub bits: u8,
    /// The bits that T0SZ can ask for.
    pub reach: u8,
}

/// Returns the geometry of a TTBR0 map that reaches up to `end` and no further than it must: fewer
/// VA bits mean fewer levels and a shorter root.
///
/// It has the granule and the descriptor format of the kernel's half, since TCR has one DS bit for
/// both. Its VA size is its own, in T0SZ: it may be larger than the kernel's, whose linear region
/// need not begin at address 0.
///
/// # Errors
/// [`BeyondIdentityReach`] when `end` needs more VA bits than T0SZ can ask for: 48, or 52 where the
/// kernel's half shows that the CPUs have them.
pub fn identity_geometry(kernel: Geometry, end: Pa) -> Result<Geometry, BeyondIdentityReach> {
    let bits = (u64::BITS - end.0.saturating_sub(1).leading_zeros()).max(25) as u8;
    let reach = if kernel.lpa2() || kernel.va_bits() > 48 { 52 } else { 48 };
    // LPA2 stays on by the PA size where the VA size alone does not ask for it.
    let pa_bits = if kernel.lpa2() { 52 } else { kernel.pa_bits() };
    let geometry = if bits <= reach { Geometry::new(kernel.granule(), bits, pa_bits).ok() } else { None };
    geometry.ok_or(BeyondIdentityReach { end, bits, reach })
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_table::Mappings;
    use linmap_vmsa::{Access, Granule};
    use std::boxed::Box;
    use std::vec::Vec;

    const G: Geometry = Geometry::K4_48;

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    type List = Box<MappingList<'static>>;

    fn identity(memory: &[PaRange]) -> List {
        let mut list = Box::new(MappingList::new());
        identity_mappings(memory.iter().copied(), &mut list).unwrap();
        Mappings::new(G, &list).expect("a list that a builder takes");
        list
    }

    /// An image whose text ends at `text_end`.
    fn image(start: u64, text_end: u64, end: u64) -> ImageParts {
        ImageParts { read_only: range(start, text_end), data: range(text_end, end), va: Va(0) }
    }

    fn linear(memory: &[PaRange], image: ImageParts, leaves: Leaves) -> List {
        let layout = Layout::new(G, range(0x4000_0000, 0x1_0000_0000)).unwrap();
        let mut list = Box::new(MappingList::new());
        linear_mappings(
            &layout,
            &identity(memory),
            image,
            leaves,
            &PageRanges::new(),
            MemoryType::Normal,
            &mut list,
        )
        .unwrap();
        Mappings::new(G, &list).expect("a list that a builder takes");
        list
    }

    /// Memory with a hole from 0x7000_0000 to 0x7100_0000.
    fn memory() -> [PaRange; 3] {
        [range(0x4000_0000, 0x7000_0000), range(0x7100_0000, 0x8000_0000), range(0x9000_0000, 0xa000_0000)]
    }

    #[test]
    fn memory_is_mapped_once_the_images_text_read_only_and_its_data_not_at_all() {
        let image = image(0x4020_0000, 0x4028_0000, 0x4030_0000);
        let list = linear(&memory(), image, Leaves::ContiguousBlocks);
        let found: Vec<_> = list.iter().map(|m| (m.pa.0, m.len, m.attributes.access, m.leaves)).collect();
        let (data, rodata) = (Access::KernelReadWrite, Access::KernelReadOnly);
        assert_eq!(
            found,
            [
                (0x4000_0000, 0x20_0000, data, Leaves::ContiguousBlocks),
                (0x4020_0000, 0x8_0000, rodata, Leaves::Blocks),
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
            (image(0x4000_0000, 0x4000_8000, 0x4001_0000), 2),
            (image(0x400f_0000, 0x400f_1000, 0x4010_0000), 2),
            (image(0x4000_0000, 0x4008_0000, 0x4010_0000), 1),
        ] {
            assert_eq!(linear(&memory, image, Leaves::Pages).len(), parts, "{image:?}");
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
    fn a_list_in_lent_room_holds_as_many_mappings_as_the_room() {
        let memory = |count| (0..count).map(|nth| range(nth * 0x2000, nth * 0x2000 + 0x1000));
        let mut own = MappingList::<6>::new();
        identity_mappings(memory(6), &mut own).unwrap();
        let mut room = [own[0]; 10];
        let mut lists = MappingLists::<1>::new();
        lists.lend(&mut room);
        identity_mappings(memory(5), &mut lists.identity).unwrap();
        assert_eq!(lists.identity[..], own[..5]);
        let error = identity_mappings(memory(6), &mut lists.identity).unwrap_err();
        assert_eq!(error, TooManyRanges { range: range(0xa000, 0xb000), capacity: 5 });
        assert_eq!((lists.identity.len(), lists.linear.capacity(), lists.linear.len()), (5, 5, 0));
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
            assert_eq!(identity_geometry(G, Pa(end)).map(Geometry::va_bits), Ok(bits), "{end:#x}");
        }
    }

    #[test]
    fn an_identity_map_is_wider_than_the_kernels_half_where_memory_needs_it() {
        let kernel = Geometry::new(Granule::K16, 36, 48).unwrap();
        let end = Pa(0xfff_4000_0000);
        assert_eq!(identity_geometry(kernel, end), Ok(Geometry::new(Granule::K16, 44, 48).unwrap()));
    }

    #[test]
    fn an_identity_map_has_the_descriptor_format_of_the_kernels_half() {
        for (va_bits, pa_bits) in [(52, 52), (52, 48), (48, 52)] {
            let kernel = Geometry::new(Granule::K4, va_bits, pa_bits).unwrap();
            let identity = identity_geometry(kernel, Pa(1 << 33)).unwrap();
            assert_eq!((identity.va_bits(), identity.lpa2()), (33, true));
            assert_eq!(identity_geometry(kernel, Pa(1 << 52)).map(Geometry::va_bits), Ok(52));
        }
        assert!(!identity_geometry(G, Pa(1 << 33)).unwrap().lpa2());
    }

    #[test]
    fn memory_beyond_every_identity_map_is_an_error_that_names_the_reach() {
        let end = Pa((1 << 48) + 1);
        let error = identity_geometry(G, end).unwrap_err();
        assert_eq!(error, BeyondIdentityReach { end, bits: 49, reach: 48 });
        assert!(std::format!("{error}").contains("T0SZ reaches 48 bits"), "{error}");
        let k64 = Geometry::new(Granule::K64, 48, 52).unwrap();
        assert!(identity_geometry(k64, Pa(1 << 50)).is_err());
        let wide = Geometry::new(Granule::K64, 52, 52).unwrap();
        assert!(identity_geometry(wide, Pa(1 << 50)).is_ok());
    }
}

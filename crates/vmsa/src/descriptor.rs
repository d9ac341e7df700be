//! Translation table descriptors: the 64-bit entries of a table.

use thiserror::Error;

use crate::address_form::AddressForm;
use crate::attributes::{CONTIGUOUS, NO_TRANSLATION};
use crate::{AttributeError, Attributes, Geometry, Granule, Level, Pa, Regime, TablePermissions};

/// A raw translation table entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Descriptor(pub u64);

impl core::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// What a descriptor means at its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Translates nothing: bit 0 is clear, or the encoding is reserved at this level.
    Invalid,
    /// Leads to the table at this address, one level on.
    Table(Pa),
    /// A block, or a page at level 3, at this address. The attribute bits are decoded with
    /// [`Attributes::from_bits`].
    Leaf(Pa),
}

/// Why there is no such leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum LeafError {
    /// No leaf may be at the level.
    #[error("no leaf may be at level {level} with the {} KiB granule (D8.3.1)", granule.bytes() >> 10)]
    NoLeaf {
        /// The level.
        level: Level,
        /// The granule.
        granule: Granule,
    },
    /// The address is not a multiple of what the leaf maps.
    #[error("{pa} is not a multiple of the {bytes:#x} bytes that the leaf maps")]
    Unaligned {
        /// The address.
        pa: Pa,
        /// How much the leaf maps.
        bytes: u64,
    },
    /// The address has more bits than descriptors of the geometry.
    #[error("{pa} has more than {bits} bits")]
    OutsidePaSpace {
        /// The address.
        pa: Pa,
        /// The PA size in bits.
        bits: u8,
    },
    /// The regime's descriptors can't say what the attributes do.
    #[error(transparent)]
    Attributes(AttributeError),
    /// nT is a bit of blocks. In a page it is one of the address.
    #[error("a page can't have nT (D8.3.1.2)")]
    NoTranslationOfPage,
}

pub(crate) const VALID: u64 = 1;
/// Bit 1: a table above level 3, a page at level 3; a block has it clear.
pub(crate) const TABLE_OR_PAGE: u64 = 1 << 1;
/// Everything between the low and the high attribute bits that can hold an address: bits 49:12.
const ADDRESS_FIELD: u64 = ((1 << 50) - 1) & !0xfff;

impl Descriptor {
    /// An entry that translates nothing.
    pub const INVALID: Self = Self(0);

    /// The entry that leads to the table in frame `table`, with the geometry's
    /// [table permissions](Geometry::with_table_permissions).
    #[inline]
    pub const fn table(geometry: Geometry, table: Pa) -> Self {
        let permissions = geometry.table_permissions().bits(geometry.regime());
        Self(encode_address(geometry, table) | permissions | TABLE_OR_PAGE | VALID)
    }

    /// What a table descriptor takes away from everything below it.
    #[inline]
    pub const fn table_permissions(self, regime: Regime) -> TablePermissions {
        TablePermissions::from_bits(self.0, regime)
    }

    /// The page that maps the frame `pa` with `attributes`, which pass
    /// [`check_in`](Attributes::check_in). nT has no meaning there and is dropped.
    #[inline]
    pub const fn page(geometry: Geometry, pa: Pa, attributes: Attributes) -> Self {
        let attributes = Attributes { no_translation: false, ..attributes };
        let frame = Pa(pa.0 & !(geometry.page_bytes() - 1));
        Self(encode_address(geometry, frame) | attributes.bits(geometry) | leaf_type(Level::L3))
    }

    /// The block at `level`, or the page when `level` is 3, that maps `pa` with `attributes`.
    ///
    /// # Errors
    /// [`LeafError`].
    #[inline]
    pub const fn leaf(
        geometry: Geometry,
        level: Level,
        pa: Pa,
        attributes: Attributes,
    ) -> Result<Self, LeafError> {
        if !geometry.has_leaf(level) {
            return Err(LeafError::NoLeaf { level, granule: geometry.granule() });
        }
        let bytes = geometry.entry_bytes(level);
        if pa.0 & (bytes - 1) != 0 {
            return Err(LeafError::Unaligned { pa, bytes });
        }
        if !geometry.holds(pa) {
            return Err(LeafError::OutsidePaSpace { pa, bits: geometry.pa_bits() });
        }
        if attributes.no_translation && level.number() == 3 {
            return Err(LeafError::NoTranslationOfPage);
        }
        if let Err(error) = attributes.check_in(geometry) {
            return Err(LeafError::Attributes(error));
        }
        Ok(Self(encode_address(geometry, pa) | attributes.bits(geometry) | leaf_type(level)))
    }

    /// The same leaf or table descriptor for the address `pa`, when this one is for address 0.
    #[inline]
    pub const fn at(self, geometry: Geometry, pa: Pa) -> Self {
        Self(self.0 | encode_address(geometry, pa))
    }

    /// What the entry means at `level`. At a level without blocks, the encoding of a block is
    /// reserved, so invalid.
    #[inline(always)]
    pub const fn decode(self, geometry: Geometry, level: Level) -> Decoded {
        if self.0 & VALID == 0 {
            return Decoded::Invalid;
        }
        let is_pages = level.number() == 3;
        match (self.0 & TABLE_OR_PAGE != 0, is_pages) {
            (true, false) => Decoded::Table(decode_address(geometry, self.0, geometry.page_bytes())),
            (true, true) => Decoded::Leaf(decode_address(geometry, self.0, geometry.entry_bytes(level))),
            (false, false) if geometry.has_leaf(level) => {
                Decoded::Leaf(decode_address(geometry, self.0, geometry.entry_bytes(level)))
            }
            (false, _) => Decoded::Invalid,
        }
    }

    /// The table that the entry leads to when it is above the level of pages.
    #[inline]
    pub const fn next_table(self, geometry: Geometry) -> Option<Pa> {
        if self.may_be_table() { Some(decode_address(geometry, self.0, geometry.page_bytes())) } else { None }
    }

    /// The attributes of a leaf at `level`; `None` when they are ones linmap never writes.
    #[inline]
    pub const fn attributes(self, geometry: Geometry, level: Level) -> Option<Attributes> {
        Attributes::from_bits(self.0, geometry, level.number() != 3)
    }

    /// The same leaf with the contiguous bit.
    #[inline(always)]
    #[must_use]
    pub const fn contiguous(self) -> Self {
        Self(self.0 | CONTIGUOUS)
    }

    /// Whether the contiguous bit is set.
    #[inline]
    pub const fn is_contiguous(self) -> bool {
        self.0 & CONTIGUOUS != 0
    }

    /// Whether the entry's type is that of a table above level 3, and of a page at level 3.
    #[inline]
    pub const fn may_be_table(self) -> bool {
        self.0 & (TABLE_OR_PAGE | VALID) == TABLE_OR_PAGE | VALID
    }

    /// Whether the entry is valid.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// All bits that can hold an address in a descriptor of this geometry.
    #[inline]
    pub const fn address_bits(geometry: Geometry) -> u64 {
        encode_address(geometry, Pa((1 << 52) - 1))
    }
}

/// Within a multiple of this many bytes a descriptor's address bits count up with the address: the
/// bits that LPA and LPA2 place elsewhere in the descriptor start at address bit 48.
pub const LINEAR_SPAN: u64 = 1 << 48;

/// The type bits of a leaf: a page at level 3, a block above.
#[inline]
pub const fn leaf_type(level: Level) -> u64 {
    if level.number() == 3 { TABLE_OR_PAGE | VALID } else { VALID }
}

/// The bits that hold `pa` in a descriptor (Arm ARM D8.3.1): `OA[47:12]` in place; for 64K,
/// `OA[51:48]` in bits 15:12; under LPA2, `OA[49:48]` in place and `OA[51:50]` in bits 9:8.
#[inline(always)]
const fn encode_address(geometry: Geometry, pa: Pa) -> u64 {
    let low = pa.0 & (LINEAR_SPAN - 1) & !0xfff;
    match geometry.address_form() {
        AddressForm::Bits48 => low,
        AddressForm::Lpa => low | (pa.0 >> 48 & 0xf) << 12,
        AddressForm::Lpa2 => pa.0 & ADDRESS_FIELD | (pa.0 >> 50 & 0b11) << 8,
    }
}

/// The address in a descriptor's bits, aligned down to `align` bytes so that nT and the bits of
/// other fields drop out.
#[inline(always)]
const fn decode_address(geometry: Geometry, bits: u64, align: u64) -> Pa {
    let low = bits & (LINEAR_SPAN - 1) & !0xfff;
    let pa = match geometry.address_form() {
        AddressForm::Bits48 => low,
        AddressForm::Lpa => low & !0xffff | (bits >> 12 & 0xf) << 48,
        AddressForm::Lpa2 => bits & ADDRESS_FIELD | (bits >> 8 & 0b11) << 50,
    };
    Pa(pa & !(align - 1))
}

const _: () = assert!(NO_TRANSLATION == 1 << 16, "nT is bit 16 of a block (Arm ARM D8.3.1.2)");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Execute, MemoryType, Shareability};

    fn geometries() -> impl Iterator<Item = Geometry> {
        [
            (Granule::K4, 48, 48),
            (Granule::K4, 52, 52),
            (Granule::K16, 48, 48),
            (Granule::K16, 52, 52),
            (Granule::K64, 48, 48),
            (Granule::K64, 52, 52),
        ]
        .into_iter()
        .map(|(granule, va, pa)| Geometry::new(granule, va, pa).unwrap())
    }

    #[test]
    fn a_page_of_kernel_data_has_the_bits_of_the_architecture() {
        // UXN, PXN, AF, SH = inner, AP = kernel read-write, AttrIndx 0, page.
        let d = Descriptor::page(Geometry::K4_48, Pa(0x4000_1000), Attributes::KERNEL_DATA);
        assert_eq!(d.0, 0x0060_0000_4000_1703);
        let d =
            Descriptor::leaf(Geometry::K4_48, Level::L2, Pa(0x4020_0000), Attributes::KERNEL_TEXT).unwrap();
        assert_eq!(d.0, 0x0040_0000_4020_0781);
        assert_eq!(Descriptor::table(Geometry::K4_48, Pa(0x4000_3000)).0, 0x4000_3003);
    }

    #[test]
    fn the_high_address_bits_of_52_bit_descriptors_move() {
        let pa = Pa(0x000f_0000_4000_0000);
        let k64 = Geometry::new(Granule::K64, 52, 52).unwrap();
        assert_eq!(Descriptor::table(k64, pa).0, 0x4000_f003);
        let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
        assert_eq!(Descriptor::table(lpa2, pa).0, 0x0003_0000_4000_0303);
    }

    #[test]
    fn every_leaf_decodes_to_what_was_encoded() {
        for geometry in geometries() {
            for level in [Level::L0, Level::L1, Level::L2, Level::L3] {
                if !geometry.has_leaf(level) {
                    continue;
                }
                for access in [
                    Access::KernelReadWrite,
                    Access::KernelReadOnly,
                    Access::UserReadWrite,
                    Access::UserReadOnly,
                ] {
                    for execute in [Execute::Never, Execute::Kernel, Execute::User, Execute::Both] {
                        let attributes = Attributes {
                            memory: MemoryType::NormalTagged,
                            access,
                            execute,
                            shareability: Shareability::Inner,
                            global: matches!(execute, Execute::Never),
                            accessed: true,
                            contiguous: matches!(access, Access::KernelReadOnly),
                            no_translation: level != Level::L3,
                        };
                        let top = 1u64 << (geometry.pa_bits() - 1);
                        let pa = Pa(top | (geometry.entry_bytes(level) * 3));
                        let pa = if geometry.holds(pa) { pa } else { Pa(top) };
                        let d = Descriptor::leaf(geometry, level, pa, attributes).unwrap();
                        assert_eq!(d.decode(geometry, level), Decoded::Leaf(pa), "{geometry:?} {level:?}");
                        assert_eq!(d.attributes(geometry, level), Some(attributes));
                    }
                }
            }
        }
    }

    #[test]
    fn a_leaf_for_address_0_moves_to_any_other() {
        for geometry in geometries() {
            let pa = Pa((1 << (geometry.pa_bits() - 1)) | 0x4000_0000);
            let template = Descriptor::page(geometry, Pa(0), Attributes::KERNEL_DATA);
            assert_eq!(template.at(geometry, pa), Descriptor::page(geometry, pa, Attributes::KERNEL_DATA));
        }
    }

    #[test]
    fn a_block_where_the_geometry_has_none_is_invalid() {
        let block = Descriptor(0x4000_0000 | VALID);
        assert_eq!(block.decode(Geometry::K4_48, Level::L0), Decoded::Invalid);
        assert_eq!(block.decode(Geometry::K4_48, Level::L3), Decoded::Invalid);
        assert_eq!(block.decode(Geometry::K4_48, Level::L1), Decoded::Leaf(Pa(0x4000_0000)));
    }

    #[test]
    fn a_leaf_where_none_may_be_is_an_error() {
        let g = Geometry::K4_48;
        let leaf = |level, pa, attributes| Descriptor::leaf(g, level, Pa(pa), attributes);
        let data = Attributes::KERNEL_DATA;
        let no_leaf = Err(LeafError::NoLeaf { level: Level::L0, granule: Granule::K4 });
        assert_eq!(leaf(Level::L0, 0, data), no_leaf);
        let unaligned = Err(LeafError::Unaligned { pa: Pa(0x4000_1000), bytes: 2 << 20 });
        assert_eq!(leaf(Level::L2, 0x4000_1000, data), unaligned);
        assert_eq!(
            leaf(Level::L3, 1 << 48, data),
            Err(LeafError::OutsidePaSpace { pa: Pa(1 << 48), bits: 48 })
        );
        let split = Attributes { no_translation: true, ..data };
        assert_eq!(leaf(Level::L3, 0x1000, split), Err(LeafError::NoTranslationOfPage));
        assert!(leaf(Level::L2, 2 << 20, split).is_ok());
    }

    #[test]
    fn the_page_of_an_address_maps_the_frame_that_it_lies_in() {
        let k64 = Geometry::new(Granule::K64, 52, 52).unwrap();
        let page = Descriptor::page(k64, Pa(0x4001_5000), Attributes::KERNEL_DATA);
        assert_eq!(page.decode(k64, Level::L3), Decoded::Leaf(Pa(0x4001_0000)));
    }

    #[test]
    fn pa_0_is_an_address_like_any_other() {
        let d = Descriptor::page(Geometry::K4_48, Pa(0), Attributes::KERNEL_DATA);
        assert_eq!(d.decode(Geometry::K4_48, Level::L3), Decoded::Leaf(Pa(0)));
        assert_eq!(Descriptor::INVALID.decode(Geometry::K4_48, Level::L3), Decoded::Invalid);
    }
}

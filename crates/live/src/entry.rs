//! The content of an entry of a live table.

use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa};

/// The valid bit of every descriptor.
pub(crate) const VALID_BIT: u64 = 1;

/// The contiguous bit of a leaf (Arm ARM D8.7.1).
pub(crate) const CONTIGUOUS: u64 = 1 << 52;

/// nT of a block (Arm ARM D8.3.1.2).
const NO_TRANSLATION: u64 = 1 << 16;

/// Set in the descriptors of tables and pages, clear in those of blocks.
const TABLE_OR_PAGE: u64 = 0b10;

/// Set in every page, valid or invalidated.
pub(crate) const PAGE_BIT: u64 = TABLE_OR_PAGE;

/// An entry as the planners see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// All bits are clear.
    Empty,
    /// Leads to a table.
    Table(Pa),
    /// A leaf for this address. With its valid bit clear it is an *invalidated leaf*: it keeps its
    /// other bits but translates nothing.
    Leaf(Pa),
    /// An entry that this crate never writes.
    Foreign,
}

/// Returns what `descriptor` is at `level`.
#[inline(always)]
pub(crate) fn entry(geometry: Geometry, level: Level, descriptor: Descriptor) -> Entry {
    if descriptor.0 == 0 {
        return Entry::Empty;
    }
    match (descriptor.0 & TABLE_OR_PAGE != 0, level == Level::L3) {
        (true, true) => {}
        (true, false) => return descriptor.next_table(geometry).map_or(Entry::Foreign, Entry::Table),
        (false, false) if geometry.has_leaf(level) && descriptor.0 & NO_TRANSLATION == 0 => {}
        (false, _) => return Entry::Foreign,
    }
    if descriptor.is_contiguous() && geometry.contiguous_entries(level).is_none() {
        return Entry::Foreign;
    }
    match Descriptor(descriptor.0 | VALID_BIT).decode(geometry, level) {
        Decoded::Leaf(pa) => Entry::Leaf(pa),
        Decoded::Table(_) | Decoded::Invalid => Entry::Foreign,
    }
}

/// The bits of a leaf that hardware ignores and software may use: 58:55 (Arm ARM D8.3.1.2).
pub(crate) const SOFTWARE: u64 = 0b1111 << 55;

/// Returns the attributes of a leaf: all bits but address, type and the contiguous bit. Smaller and
/// larger leaves for the same memory have the same attributes. The valid bit is one of them.
#[inline]
pub(crate) fn attributes_of(geometry: Geometry, descriptor: Descriptor) -> u64 {
    attributes_beside(Descriptor::address_bits(geometry), descriptor)
}

/// [`attributes_of`] where the bits that can hold an address are known.
#[inline(always)]
pub(crate) fn attributes_beside(address_bits: u64, descriptor: Descriptor) -> u64 {
    // Bit 16, nT, lies in the address field, so it is left out too.
    descriptor.0 & !(address_bits | TABLE_OR_PAGE | CONTIGUOUS)
}

/// The leaf at `level` for `pa` that has the attributes `attributes`.
#[inline]
pub(crate) fn leaf(geometry: Geometry, level: Level, attributes: u64, pa: Pa) -> Descriptor {
    let kind = if level == Level::L3 { TABLE_OR_PAGE } else { 0 };
    Descriptor(attributes | kind).at(geometry, pa)
}

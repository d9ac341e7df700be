//! How a device tree writes addresses and sizes: as numbers of 32-bit cells, whose counts the
//! parent node gives.

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::values::number;

/// The name of the property with the number of cells of an address.
pub const ADDRESS_CELLS: &str = "#address-cells";
/// The name of the property with the number of cells of a size.
pub const SIZE_CELLS: &str = "#size-cells";

/// The number of cells of a 32-bit or 64-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellWidth {
    /// One cell.
    One,
    /// Two cells.
    Two,
}

impl CellWidth {
    /// Returns the width of a number of `len` bytes.
    pub fn of_len(len: usize) -> Option<Self> {
        [Self::One, Self::Two].into_iter().find(|width| width.len() == len)
    }

    /// Returns the number of cells.
    pub fn cells(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// Returns the big-endian bytes of `number`, or `None` if it does not fit.
    pub fn bytes(self, number: u64) -> Option<ArrayVec<u8, 8>> {
        match self {
            Self::One => Some(u32::try_from(number).ok()?.to_be_bytes().into_iter().collect()),
            Self::Two => Some(number.to_be_bytes().into()),
        }
    }

    /// Returns the number at the start of `bytes`, and the bytes after it.
    fn read(self, bytes: &[u8]) -> Option<(u64, &[u8])> {
        match self {
            Self::One => bytes.split_first_chunk().map(|(n, rest)| (u32::from_be_bytes(*n).into(), rest)),
            Self::Two => bytes.split_first_chunk().map(|(n, rest)| (u64::from_be_bytes(*n), rest)),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::One => 4,
            Self::Two => 8,
        }
    }
}

/// A node's `#address-cells` and `#size-cells`, collected from its tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct CellCounts {
    address: Option<u32>,
    size: Option<u32>,
}

impl CellCounts {
    /// Notes a property of the node. Of two with the same name the first counts, as it does for
    /// readers.
    pub fn note(&mut self, name: &str, value: &[u8]) {
        // No reader can use a malformed count, nor a count of 0.
        let number = || value.try_into().map_or(0, u32::from_be_bytes);
        if name == ADDRESS_CELLS {
            self.address.get_or_insert_with(number);
        } else if name == SIZE_CELLS {
            self.size.get_or_insert_with(number);
        }
    }

    /// Returns the format of `reg` in the children of the node.
    ///
    /// # Errors
    /// The name of the property that is missing or not 1 or 2. There is no default, since readers
    /// differ in it.
    pub fn reg_format(self) -> Result<RegFormat, &'static str> {
        let width = |cells, property| match cells {
            Some(1) => Ok(CellWidth::One),
            Some(2) => Ok(CellWidth::Two),
            _ => Err(property),
        };
        Ok(RegFormat { address: width(self.address, ADDRESS_CELLS)?, size: width(self.size, SIZE_CELLS)? })
    }

    /// Returns the name of the first property in which the node differs from `format`.
    pub fn difference(self, format: RegFormat) -> Option<&'static str> {
        if self.address != Some(format.address.cells()) {
            Some(ADDRESS_CELLS)
        } else if self.size != Some(format.size.cells()) {
            Some(SIZE_CELLS)
        } else {
            None
        }
    }
}

/// How the entries of a `reg` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegFormat {
    /// The width of an address.
    pub address: CellWidth,
    /// The width of a size.
    pub size: CellWidth,
}

impl RegFormat {
    /// Returns the length of an entry in bytes.
    pub fn entry_len(self) -> usize {
        self.address.len() + self.size.len()
    }

    /// Returns address and size of the only entry in `bytes`.
    pub fn only_entry(self, bytes: &[u8]) -> Option<(u64, u64)> {
        let (address, bytes) = self.address.read(bytes)?;
        let (size, bytes) = self.size.read(bytes)?;
        bytes.is_empty().then_some((address, size))
    }

    /// Returns the bytes of address and size, or `None` if one does not fit.
    pub fn entry(self, address: u64, size: u64) -> Option<[ArrayVec<u8, 8>; 2]> {
        Some([self.address.bytes(address)?, self.size.bytes(size)?])
    }
}

/// How many cells the addresses and sizes below a node have. Any numbers: those of PCI have three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// `#address-cells`.
    pub address: u32,
    /// `#size-cells`.
    pub size: u32,
}

impl Cells {
    /// Returns the length of an entry of `reg` in bytes. Of an impossible number it is one that no
    /// property has.
    pub fn entry_len(self) -> usize {
        bytes(self.address).saturating_add(bytes(self.size))
    }
}

/// The length in bytes of a number of `cells`.
fn bytes(cells: u32) -> usize {
    (cells as usize).saturating_mul(4)
}

/// A `reg` is not whole entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("reg has {len} bytes, not a multiple of {entry}")]
pub struct RegLength {
    /// Its length in bytes.
    pub len: usize,
    /// The length of an entry in bytes.
    pub entry: usize,
}

/// The entries of a `reg`, or of a property that is written in the same way.
#[derive(Clone, Debug)]
pub struct RegEntries<'a> {
    rest: &'a [u8],
    cells: Cells,
}

impl<'a> RegEntries<'a> {
    /// Returns the entries of `value`.
    ///
    /// # Errors
    /// [`RegLength`]: the value is not whole entries.
    pub fn new(value: &'a [u8], cells: Cells) -> Result<Self, RegLength> {
        let (len, entry) = (value.len(), cells.entry_len());
        let is_whole = if entry == 0 { len == 0 } else { len.is_multiple_of(entry) };
        if is_whole { Ok(Self { rest: value, cells }) } else { Err(RegLength { len, entry }) }
    }
}

impl<'a> Iterator for RegEntries<'a> {
    type Item = RegEntry<'a>;

    fn next(&mut self) -> Option<RegEntry<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (address, rest) = self.rest.split_at_checked(bytes(self.cells.address))?;
        let (size, rest) = rest.split_at_checked(bytes(self.cells.size))?;
        self.rest = rest;
        Some(RegEntry { address, size })
    }
}

/// An entry of a `reg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegEntry<'a> {
    address: &'a [u8],
    size: &'a [u8],
}

impl RegEntry<'_> {
    /// Returns the address. Returns `None` for one of no cells, which a node has whose parent's
    /// `#address-cells` is 0, and for one of more than two.
    pub fn address(self) -> Option<u64> {
        number(self.address)
    }

    /// Returns the size: 0 for one of no cells, `None` for one of more than two.
    pub fn size(self) -> Option<u64> {
        if self.size.is_empty() { Some(0) } else { number(self.size) }
    }
}

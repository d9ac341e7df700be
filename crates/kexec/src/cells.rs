//! How a device tree writes addresses and sizes: as one or two 32-bit cells, as the parent of the nodes says.

use arrayvec::ArrayVec;
use linmap_vmsa::{Pa, PaRange};

use crate::TreeError;
use crate::tree_output::Name;

/// A number of cells that holds what a 64-bit machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    One,
    Two,
}

impl Width {
    /// The width of a number that is written in `len` bytes.
    pub fn of_len(len: usize) -> Option<Self> {
        [Self::One, Self::Two].into_iter().find(|width| width.len() == len)
    }

    pub fn cells(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The bytes of `number`, the highest first, if it fits.
    pub fn bytes(self, number: u64) -> Option<ArrayVec<u8, 8>> {
        match self {
            Self::One => Some(u32::try_from(number).ok()?.to_be_bytes().into_iter().collect()),
            Self::Two => Some(number.to_be_bytes().into()),
        }
    }

    /// The number in the first bytes, and the bytes after it.
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

/// What a node's `#address-cells` and `#size-cells` are. `None` until they were seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cells {
    address: Option<u32>,
    size: Option<u32>,
}

impl Cells {
    /// Takes a property of the node in. Of two with the same name the first counts, as it does for readers.
    pub fn note(&mut self, name: &str, value: &[u8]) {
        // A malformed number is none that a reader could use, as 0 is.
        let number = || value.try_into().map_or(0, u32::from_be_bytes);
        if name == Name::AddressCells.text() {
            self.address.get_or_insert_with(number);
        } else if name == Name::SizeCells.text() {
            self.size.get_or_insert_with(number);
        }
    }

    /// The widths that the root asks for. Readers differ in what they take for a number that is missing.
    pub fn of_root(self) -> Result<Widths, TreeError> {
        let width = |cells, property: Name| match cells {
            Some(1) => Ok(Width::One),
            Some(2) => Ok(Width::Two),
            _ => Err(TreeError::RootCells { property: property.text() }),
        };
        Ok(Widths {
            address: width(self.address, Name::AddressCells)?,
            size: width(self.size, Name::SizeCells)?,
        })
    }

    /// The property in which the node differs from `widths`, if there is one.
    pub fn differ(self, widths: Widths) -> Option<Name> {
        if self.address != Some(widths.address.cells()) {
            Some(Name::AddressCells)
        } else if self.size != Some(widths.size.cells()) {
            Some(Name::SizeCells)
        } else {
            None
        }
    }
}

/// How addresses and sizes are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    pub address: Width,
    pub size: Width,
}

impl Widths {
    /// Length of a range in bytes.
    pub fn len(self) -> usize {
        self.address.len() + self.size.len()
    }

    /// The range that `bytes` are, and nothing else.
    pub fn range(self, bytes: &[u8]) -> Option<PaRange> {
        let (start, bytes) = self.address.read(bytes)?;
        let (len, bytes) = self.size.read(bytes)?;
        PaRange::from_len(Pa(start), len).filter(|_| bytes.is_empty())
    }

    /// Address and size of `range` as they are written.
    pub fn bytes(self, range: PaRange) -> Result<[ArrayVec<u8, 8>; 2], TreeError> {
        let narrow = TreeError::TooFewCells {
            range,
            address_cells: self.address.cells(),
            size_cells: self.size.cells(),
        };
        let address = self.address.bytes(range.start.0).ok_or(narrow)?;
        let size = self.size.bytes(range.len()).ok_or(narrow)?;
        Ok([address, size])
    }
}

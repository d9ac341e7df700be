//! Writing a flattened device tree piece by piece (Devicetree Specification v0.4, chapter 5).

use core::fmt;

use thiserror::Error;

use crate::cells::RegFormat;
use crate::dtb::DeviceTree;
use crate::fdt::{RESERVATION_LEN, reservations};
use crate::measured_buffer::MeasuredBuffer;
use crate::tokens::Token;

/// Why a tree cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The tree has 4 GiB or more.
    #[error("the device tree does not fit into 32-bit offsets")]
    TooLarge,
    /// The writer does not have the property's name.
    #[error("the property {name} is not among the names that the device tree writer was given")]
    UnknownName {
        /// The name.
        name: &'static str,
    },
    /// A number of a `reg` does not fit into its cells.
    #[error(
        "{size:#x} bytes at {address:#x} do not fit into {address_cells} address and {size_cells} \
         size cells of 32 bits"
    )]
    TooFewCells {
        /// The address.
        address: u64,
        /// The size in bytes.
        size: u64,
        /// `#address-cells`.
        address_cells: u32,
        /// `#size-cells`.
        size_cells: u32,
    },
}

/// Names of properties and their offsets in the strings block of the result. The names that the
/// source lacks follow its strings, used or not: the block is the same whatever is written.
#[derive(Debug)]
struct Names<const N: usize> {
    names: [&'static str; N],
    offsets: [usize; N],
    is_new: [bool; N],
}

impl<const N: usize> Names<N> {
    fn new(names: [&'static str; N], strings: &[u8]) -> Self {
        let mut end = strings.len();
        let found = names.map(|name| offset_of(name, strings));
        let mut offsets = [0; N];
        for ((offset, name), found) in offsets.iter_mut().zip(names).zip(found) {
            *offset = found.unwrap_or(end);
            if found.is_none() {
                end = end.saturating_add(name.len() + 1);
            }
        }
        Self { names, offsets, is_new: found.map(|offset| offset.is_none()) }
    }

    fn offset(&self, name: &'static str) -> Result<usize, WriteError> {
        let nth = self.names.iter().position(|known| *known == name);
        nth.and_then(|nth| self.offsets.get(nth).copied()).ok_or(WriteError::UnknownName { name })
    }

    /// Returns the names that follow the strings of the source.
    fn added(&self) -> impl Iterator<Item = &'static str> {
        self.names.into_iter().zip(self.is_new).filter(|(_, is_new)| *is_new).map(|(name, _)| name)
    }
}

/// Returns the offset of `name` in the strings block, as a whole string or the end of one.
fn offset_of(name: &str, strings: &[u8]) -> Option<usize> {
    strings.windows(name.len() + 1).position(|end| end.split_last() == Some((&0, name.as_bytes())))
}

/// Writes a device tree that is a copy of another with changes: first the structure block, token by
/// token, then [`finish`](Self::finish). It writes the bytes that have room, and counts all of
/// them: writing into an empty buffer measures the tree.
///
/// The caller follows the grammar: each node ends, and its properties come before its subnodes.
#[derive(Debug)]
pub struct TreeWriter<'t, 'b, const N: usize> {
    tree: &'t DeviceTree<'t>,
    names: Names<N>,
    output: MeasuredBuffer<'b>,
    structure_at: usize,
}

impl<'t, 'b, const N: usize> TreeWriter<'t, 'b, N> {
    /// Begins a tree with the memory reservations of `tree` for whose address and size `is_kept` is
    /// true. `names` are the names of all properties that are written by name.
    pub fn new(
        tree: &'t DeviceTree<'t>,
        names: [&'static str; N],
        is_kept: impl Fn(u64, u64) -> bool,
        buffer: &'b mut [u8],
    ) -> Self {
        let mut output = MeasuredBuffer::new(buffer);
        output.put(&[0; DeviceTree::HEADER_LEN]);
        for (address, size) in reservations(tree.reservations).filter(|(at, size)| is_kept(*at, *size)) {
            output.put(&address.to_be_bytes());
            output.put(&size.to_be_bytes());
        }
        output.put(&[0; RESERVATION_LEN]);
        let structure_at = output.len();
        Self { tree, names: Names::new(names, tree.strings), output, structure_at }
    }

    /// Copies a token of the source: its [`Piece::bytes`](crate::Piece::bytes).
    pub fn copy(&mut self, bytes: &[u8]) {
        self.output.put(bytes);
    }

    /// Begins a node.
    pub fn begin_node(&mut self, name: fmt::Arguments<'_>) {
        self.put_u32(Token::BEGIN_NODE);
        // The buffer accepts everything.
        let _ = fmt::Write::write_fmt(&mut self.output, name);
        self.output.put(&[0]);
        self.output.pad();
    }

    /// Ends the innermost node.
    pub fn end_node(&mut self) {
        self.put_u32(Token::END_NODE);
    }

    /// Writes a property of the innermost node.
    ///
    /// # Errors
    /// [`WriteError::UnknownName`], [`WriteError::TooLarge`].
    pub fn property(&mut self, name: &'static str, value: &[u8]) -> Result<(), WriteError> {
        self.property_head(name, value.len())?;
        self.output.put(value);
        self.output.pad();
        Ok(())
    }

    /// Writes a property whose value is a string without a NUL.
    ///
    /// # Errors
    /// [`WriteError::UnknownName`], [`WriteError::TooLarge`].
    pub fn property_string(&mut self, name: &'static str, text: &str) -> Result<(), WriteError> {
        self.property_head(name, text.len().saturating_add(1))?;
        self.output.put(text.as_bytes());
        self.output.put(&[0]);
        self.output.pad();
        Ok(())
    }

    /// Writes a property of entries with address and size, such as `reg`.
    ///
    /// # Errors
    /// [`WriteError::UnknownName`], [`WriteError::TooLarge`], [`WriteError::TooFewCells`].
    pub fn property_reg(
        &mut self,
        name: &'static str,
        entries: impl ExactSizeIterator<Item = (u64, u64)>,
        format: RegFormat,
    ) -> Result<(), WriteError> {
        self.property_head(name, format.entry_len().saturating_mul(entries.len()))?;
        for (address, size) in entries {
            let numbers = format.entry(address, size).ok_or(WriteError::TooFewCells {
                address,
                size,
                address_cells: format.address.cells(),
                size_cells: format.size.cells(),
            })?;
            for number in numbers {
                self.output.put(&number);
            }
        }
        Ok(())
    }

    fn property_head(&mut self, name: &'static str, len: usize) -> Result<(), WriteError> {
        self.put_u32(Token::PROPERTY);
        self.put_len(len)?;
        self.put_len(self.names.offset(name)?)
    }

    /// Writes the strings after the structure block and the header before it, and returns the
    /// tree's length in bytes.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`].
    pub fn finish(mut self) -> Result<usize, WriteError> {
        let strings_at = self.output.len();
        self.output.put(self.tree.strings);
        for name in self.names.added() {
            self.output.put(name.as_bytes());
            self.output.put(&[0]);
        }
        let total = self.output.len();
        self.output.rewind();
        self.put_u32(DeviceTree::MAGIC);
        for offset in [total, self.structure_at, strings_at, DeviceTree::HEADER_LEN] {
            self.put_len(offset)?;
        }
        for word in [DeviceTree::VERSION, self.tree.last_compatible, self.tree.boot_cpu] {
            self.put_u32(word);
        }
        self.put_len(total.saturating_sub(strings_at))?;
        self.put_len(strings_at.saturating_sub(self.structure_at))?;
        Ok(total)
    }

    fn put_u32(&mut self, word: u32) {
        self.output.put(&word.to_be_bytes());
    }

    fn put_len(&mut self, len: usize) -> Result<(), WriteError> {
        self.put_u32(u32::try_from(len).map_err(|_| WriteError::TooLarge)?);
        Ok(())
    }
}

//! Checking a device tree blob before anything reads it (Devicetree Specification v0.4, chapter 5).
//!
//! Names may be longer than the specification's 31 characters: those of real machines are. The
//! Raspberry Pi 4's tree has `arm,cpu-registers-not-fw-configured`.

use crate::dtb_error::{DtbError, TreeRule};
use crate::fdt::{Fdt, RESERVATION_LEN};
use crate::header;
use crate::sections::Sections;
use crate::tokens::Tokens;

/// The blocks of a flattened device tree, found by its header. [`tokens`](Self::tokens) checks the
/// content of the structure block.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree<'a> {
    /// The memory reservation block: pairs of a 64-bit address and size, big-endian. A pair of
    /// zeros ends it and is part of it.
    pub reservations: &'a [u8],
    /// The strings block: the names of properties, each with a NUL at its end.
    pub strings: &'a [u8],
    /// The physical ID of the CPU that boots.
    pub boot_cpu: u32,
    /// The oldest format version that can read the tree, at most [`VERSION`](Self::VERSION).
    pub last_compatible: u32,
    structure: &'a [u8],
    structure_at: usize,
}

impl<'a> DeviceTree<'a> {
    /// The first word of every blob.
    pub const MAGIC: u32 = header::MAGIC;
    /// The format version that is read and written.
    pub const VERSION: u32 = header::VERSION;
    /// Length of the header of that version in bytes.
    pub const HEADER_LEN: usize = header::LEN;

    /// Finds the blocks of the blob at the start of `bytes`. Bytes after the blob are ignored.
    ///
    /// # Errors
    /// [`DtbError`]; [`DtbError::Corrupt`] only for memory reservations without an end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DtbError> {
        let (words, _) = bytes.as_chunks::<4>();
        let header = words.first_chunk().ok_or(DtbError::NoHeader { len: bytes.len() })?;
        let [
            found,
            total,
            structure_at,
            strings_at,
            reservations_at,
            version,
            last_compatible,
            boot_cpu,
            strings_len,
            structure_len,
        ] = header.map(u32::from_be_bytes);
        if found != Self::MAGIC {
            return Err(DtbError::Magic { found });
        }
        if !(last_compatible..=version).contains(&Self::VERSION) {
            return Err(DtbError::Version { version, last_compatible });
        }
        let total = total as usize;
        let data = bytes.get(..total).ok_or(DtbError::Truncated { len: bytes.len(), total })?;
        let block = |block, offset: u32, size: u32, align: usize| {
            let (offset, size) = (offset as usize, size as usize);
            let bytes = data.get(offset..offset.saturating_add(size));
            bytes
                .filter(|_| offset >= Self::HEADER_LEN && offset.is_multiple_of(align))
                .ok_or(DtbError::Block { block, offset, size, total })
        };
        // The header gives no size for the reservations: a pair of zeros ends them.
        block("memory reservation", reservations_at, RESERVATION_LEN as u32, 8)?;
        let reservations = reservations_at as usize;
        let endless = DtbError::Corrupt { offset: reservations, rule: TreeRule::ReservationsEnd };
        let (entries, _) = data.get(reservations..).unwrap_or_default().as_chunks::<RESERVATION_LEN>();
        let end = entries.iter().position(|entry| *entry == [0; RESERVATION_LEN]).ok_or(endless)?;
        Ok(Self {
            reservations: entries.get(..=end).unwrap_or_default().as_flattened(),
            strings: block("strings", strings_at, strings_len, 1)?,
            boot_cpu,
            last_compatible,
            structure: block("structure", structure_at, structure_len, 4)?,
            structure_at: structure_at as usize,
        })
    }

    pub(crate) fn structure(&self) -> &'a [u8] {
        self.structure
    }

    /// Returns the tokens of the structure block, its end included. Each is checked when it is
    /// reached.
    pub fn tokens(&self) -> Tokens<'a> {
        Tokens::new(self.structure, self.structure_at, self.strings)
    }
}

/// Checks that `dtb` begins with a well-formed device tree blob of format version 17, and returns
/// it for reading. Bytes after the blob are ignored.
///
/// # Errors
/// [`DtbError`]: one variant for each part of the blob that can be wrong.
pub fn parse_dtb(dtb: &[u8]) -> Result<Fdt<'_>, DtbError> {
    let tree = DeviceTree::parse(dtb)?;
    let mut sections = Sections::default();
    tree.tokens().check(|name, offset, depth| {
        if depth == 2 {
            sections.note(name, offset - tree.structure_at);
        }
    })?;
    Ok(Fdt::new(tree.structure, tree.strings, tree.reservations, sections))
}

//! Checking a device tree blob before anything reads it (Devicetree Specification v0.4, chapter 5).
//!
//! dtoolkit's own check also enforces the 31 characters that the specification allows a node or property name,
//! and so refuses trees that machines really boot with: the Raspberry Pi 4's has
//! `arm,cpu-registers-not-fw-configured`. This check is generous with names and guarantees all that reading the
//! tree relies on.

use dtoolkit::fdt::Fdt;
use thiserror::Error;

use crate::tokens::Tokens;

const RESERVATION_LEN: usize = 16;

/// What is wrong with a device tree blob. Offsets are in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DtbError {
    /// The bytes end before the header does.
    #[error("device tree is cut off: {len} bytes, and the header alone has {}", DeviceTree::HEADER_LEN)]
    NoHeader {
        /// How many bytes there are.
        len: usize,
    },
    /// It does not begin with the magic number.
    #[error("not a device tree: begins with {found:#010x}, not {:#010x}", DeviceTree::MAGIC)]
    Magic {
        /// The first four bytes as a big-endian number.
        found: u32,
    },
    /// It is written in a format that version 17 cannot read.
    #[error(
        "device tree has format version {version} (readable as {last_compatible}), not {}",
        DeviceTree::VERSION
    )]
    Version {
        /// Format version of the blob.
        version: u32,
        /// The oldest version that can read it.
        last_compatible: u32,
    },
    /// The bytes end before the size in the header says.
    #[error("device tree is cut off: {len} bytes of the {total} that its header says")]
    Truncated {
        /// How many bytes there are.
        len: usize,
        /// `totalsize` in the header.
        total: usize,
    },
    /// A block lies outside the blob or is misaligned.
    #[error(
        "device tree's {block} block at offset {offset:#x}, {size:#x} bytes, is misaligned or does not fit into {total:#x} bytes"
    )]
    Block {
        /// `memory reservation`, `structure` or `strings`.
        block: &'static str,
        /// Where the header says it begins.
        offset: usize,
        /// How long it is at least, in bytes.
        size: usize,
        /// `totalsize` in the header.
        total: usize,
    },
    /// The memory reservations have no end, or the tokens of the structure block make no tree.
    #[error("device tree is corrupt at offset {offset:#x}: {why}")]
    Corrupt {
        /// Where the offending token, name, value or block begins.
        offset: usize,
        /// The rule it breaks.
        why: &'static str,
    },
}

/// The blocks of a flattened device tree, found by its header. What stands in the structure block is checked by
/// [`tokens`](Self::tokens).
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree<'a> {
    /// The memory reservation block: pairs of big-endian 64-bit address and size, with the pair of zeros that
    /// ends them.
    pub reservations: &'a [u8],
    /// The strings block, which holds the names of properties, each with a NUL behind it.
    pub strings: &'a [u8],
    /// The physical ID of the CPU that boots.
    pub boot_cpu: u32,
    /// The oldest format version that can read the tree, at most [`VERSION`](Self::VERSION).
    pub last_compatible: u32,
    data: &'a [u8],
    structure: &'a [u8],
    structure_at: usize,
}

impl<'a> DeviceTree<'a> {
    /// The first word of every blob.
    pub const MAGIC: u32 = 0xd00d_feed;
    /// The format version that is read and written.
    pub const VERSION: u32 = 17;
    /// Length of the header of that version in bytes.
    pub const HEADER_LEN: usize = 40;

    /// Finds the blocks of the blob that `bytes` begin with; whatever follows it is ignored.
    ///
    /// # Errors
    /// [`DtbError`], with [`DtbError::Corrupt`] only for memory reservations without an end.
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
        // The list of reservations has no size: it ends with a pair of zeros, and has that at least.
        block("memory reservation", reservations_at, RESERVATION_LEN as u32, 8)?;
        let reservations = reservations_at as usize;
        let endless =
            DtbError::Corrupt { offset: reservations, why: "the memory reservation block has no end" };
        let (entries, _) = data.get(reservations..).unwrap_or_default().as_chunks::<RESERVATION_LEN>();
        let end = entries.iter().position(|entry| *entry == [0; RESERVATION_LEN]).ok_or(endless)?;
        Ok(Self {
            reservations: entries.get(..=end).unwrap_or_default().as_flattened(),
            strings: block("strings", strings_at, strings_len, 1)?,
            boot_cpu,
            last_compatible,
            data,
            structure: block("structure", structure_at, structure_len, 4)?,
            structure_at: structure_at as usize,
        })
    }

    /// The tokens of the structure block up to and with its end, each checked when its turn comes.
    pub fn tokens(&self) -> Tokens<'a> {
        Tokens::new(self.structure, self.structure_at, self.strings)
    }
}

/// Checks that `dtb` begins with a well-formed device tree blob of format version 17 and returns it for reading;
/// whatever follows the blob is ignored. Only what passes is safe to read with dtoolkit, which panics on bad offsets.
///
/// # Errors
/// One variant of [`DtbError`] for each part of the blob that can be wrong.
pub fn parse_dtb(dtb: &[u8]) -> Result<Fdt<'_>, DtbError> {
    let tree = DeviceTree::parse(dtb)?;
    tree.tokens().try_for_each(|piece| piece.map(drop))?;
    Ok(Fdt::new_unchecked(tree.data))
}

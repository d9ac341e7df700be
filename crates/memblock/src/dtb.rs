//! Checking a device tree blob before anything reads it.
//!
//! The layout rules are those of the Devicetree Specification v0.4, chapter 5. dtoolkit's own check also enforces
//! the 31 characters that the specification allows a node or property name, and so refuses trees that machines
//! really boot with: the Raspberry Pi 4's has `arm,cpu-registers-not-fw-configured`. This check leaves the
//! length of names (almost) alone and guarantees all that reading the tree relies on.

use dtoolkit::fdt::Fdt;
use thiserror::Error;

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const HEADER_LEN: usize = 40;

/// Longest node or property name in bytes. Far above what exists; a bound keeps the check linear when a hostile
/// tree points a thousand properties at one endless name.
const LONGEST_NAME: usize = 255;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// What is wrong with a device tree blob. Offsets are in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DtbError {
    /// The bytes end before the header does.
    #[error("device tree is cut off: {len} bytes, and the header alone has {HEADER_LEN}")]
    NoHeader {
        /// How many bytes there are.
        len: usize,
    },
    /// It does not begin with the magic number.
    #[error("not a device tree: begins with {found:#010x}, not {MAGIC:#010x}")]
    Magic {
        /// The first four bytes as a big-endian number.
        found: u32,
    },
    /// It is written in a format that version 17 cannot read.
    #[error("device tree has format version {version} (readable as {last_compatible}), not {VERSION}")]
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
    /// The tokens of the structure block make no tree.
    #[error("device tree is corrupt at offset {offset:#x}: {why}")]
    Structure {
        /// Where the offending token, name or value begins.
        offset: usize,
        /// The rule it breaks.
        why: &'static str,
    },
}

/// Checks that `dtb` begins with a well-formed device tree blob of format version 17 and returns it for reading;
/// whatever follows the blob is ignored. Only what passes is safe to read with dtoolkit, which panics on bad offsets.
///
/// # Errors
/// One variant of [`DtbError`] for each part of the blob that can be wrong.
pub fn parse_dtb(dtb: &[u8]) -> Result<Fdt<'_>, DtbError> {
    let header = dtb.get(..HEADER_LEN).ok_or(DtbError::NoHeader { len: dtb.len() })?;
    let field = |index: usize| read_u32(header, index * 4).unwrap_or(0);
    if field(0) != MAGIC {
        return Err(DtbError::Magic { found: field(0) });
    }
    let (version, last_compatible) = (field(5), field(6));
    if version < VERSION || last_compatible > VERSION {
        return Err(DtbError::Version { version, last_compatible });
    }
    let total = field(1) as usize;
    let data = dtb.get(..total).ok_or(DtbError::Truncated { len: dtb.len(), total })?;
    let block = |block, offset: u32, size: u32, align: usize| {
        let (offset, size) = (offset as usize, size as usize);
        let end = offset.saturating_add(size);
        if offset >= HEADER_LEN && offset.is_multiple_of(align) && end <= total {
            Ok(offset..end)
        } else {
            Err(DtbError::Block { block, offset, size, total })
        }
    };
    let structure = block("structure", field(2), field(9), 4)?;
    let strings = block("strings", field(3), field(8), 1)?;
    // The list of reservations has no size: it ends with a pair of zeros.
    let reservations = block("memory reservation", field(4), 16, 8)?;
    check_reservations(data, reservations.start)?;
    // Both ranges lie in the data by the checks above.
    let strings = data.get(strings).unwrap_or(&[]);
    check_structure(data.get(..structure.end).unwrap_or(&[]), structure.start, strings)?;
    Ok(Fdt::new_unchecked(data))
}

fn check_reservations(data: &[u8], start: usize) -> Result<(), DtbError> {
    let entries = data.get(start..).unwrap_or(&[]).chunks_exact(16);
    let terminated = entries.into_iter().any(|entry| entry.iter().all(|&byte| byte == 0));
    if terminated {
        Ok(())
    } else {
        Err(DtbError::Structure { offset: start, why: "the memory reservation block has no end" })
    }
}

/// Walks the structure block, which begins at `start` and ends where `data` does.
fn check_structure(data: &[u8], start: usize, strings: &[u8]) -> Result<(), DtbError> {
    let fail = |offset, why| Err(DtbError::Structure { offset, why });
    let mut at = start;
    let mut depth = 0_usize;
    let mut root_seen = false;
    // Properties come before the subnodes of their node.
    let mut properties_allowed = false;
    loop {
        let Some(token) = read_u32(data, at) else {
            return fail(at, "the structure block ends inside the tree");
        };
        let token_at = at;
        at += 4;
        match token {
            BEGIN_NODE => {
                if depth == 0 && root_seen {
                    return fail(token_at, "there is a second root node");
                }
                let Some(name) = name_at(data, at) else {
                    return fail(at, "a node name has no end, over 255 bytes or no UTF-8");
                };
                if name.is_empty() != (depth == 0) {
                    return fail(at, "only the root node has no name");
                }
                at = (at + name.len() + 1).next_multiple_of(4);
                depth += 1;
                root_seen = true;
                properties_allowed = true;
            }
            END_NODE => {
                let Some(parent) = depth.checked_sub(1) else {
                    return fail(token_at, "a node ends that never began");
                };
                depth = parent;
                properties_allowed = false;
            }
            PROP => {
                if !properties_allowed {
                    return fail(token_at, "a property stands outside a node or behind a subnode");
                }
                let (Some(len), Some(name)) = (read_u32(data, at), read_u32(data, at + 4)) else {
                    return fail(at, "the structure block ends inside a property");
                };
                if name_at(strings, name as usize).is_none() {
                    return fail(
                        at + 4,
                        "a property name lies outside the strings block, has no end, over 255 bytes or no UTF-8",
                    );
                }
                let end = at + 8 + len as usize;
                if end > data.len() {
                    return fail(at, "a property value reaches beyond the structure block");
                }
                at = end.next_multiple_of(4);
            }
            NOP => {}
            END if depth == 0 && root_seen => return Ok(()),
            END => return fail(token_at, "the tree ends inside a node"),
            _ => return fail(token_at, "there is no such token"),
        }
    }
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// The name that begins at `at` and ends with a zero byte inside `data`.
fn name_at(data: &[u8], at: usize) -> Option<&str> {
    let rest = data.get(at..)?;
    let len = rest.iter().take(LONGEST_NAME + 1).position(|&byte| byte == 0)?;
    core::str::from_utf8(rest.get(..len)?).ok()
}

//! What is wrong with a blob.

use thiserror::Error;

use crate::header;

/// What is wrong with a device tree blob. Offsets are in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DtbError {
    /// There are fewer bytes than a header has.
    #[error("device tree is cut off: {len} bytes, the header alone has {}", header::LEN)]
    NoHeader {
        /// The number of bytes.
        len: usize,
    },
    /// The blob does not begin with the magic number.
    #[error("not a device tree: begins with {found:#010x}, not {:#010x}", header::MAGIC)]
    Magic {
        /// The first four bytes as a big-endian number.
        found: u32,
    },
    /// A reader of format version 17 cannot read the blob.
    #[error(
        "device tree has format version {version} (readable as {last_compatible}), not {}",
        header::VERSION
    )]
    Version {
        /// Format version of the blob.
        version: u32,
        /// The oldest version that can read it.
        last_compatible: u32,
    },
    /// There are fewer bytes than the header says.
    #[error("device tree is cut off: {len} of {total} bytes")]
    Truncated {
        /// The number of bytes.
        len: usize,
        /// `totalsize` in the header.
        total: usize,
    },
    /// A block lies outside the blob or is misaligned.
    #[error(
        "device tree's {block} block at offset {offset:#x}, {size:#x} bytes, is misaligned or does \
         not fit into {total:#x} bytes"
    )]
    Block {
        /// `memory reservation`, `structure` or `strings`.
        block: &'static str,
        /// Its offset in the header.
        offset: usize,
        /// Its least size in bytes.
        size: usize,
        /// `totalsize` in the header.
        total: usize,
    },
    /// The memory reservations have no end, or the tokens of the structure block break the grammar
    /// of a tree.
    #[error("device tree is corrupt at offset {offset:#x}: {rule}")]
    Corrupt {
        /// The start of the token, name, value or block that breaks the rule.
        offset: usize,
        /// The rule.
        rule: TreeRule,
    },
}

/// A rule of the format that a corrupt blob breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TreeRule {
    /// The memory reservation block ends with a pair of zeros.
    #[error("the memory reservation block has no end")]
    ReservationsEnd,
    /// The tree begins with its root node.
    #[error("the tree does not begin with its root node")]
    RootFirst,
    /// The tree has one root node.
    #[error("there is a second root node")]
    OneRoot,
    /// The root node has no name, and all other nodes have one.
    #[error("only the root node has no name")]
    RootName,
    /// A node's name is UTF-8 of at most 255 bytes and ends with a NUL.
    #[error("a node name has no end, has over 255 bytes or is not UTF-8")]
    NodeName,
    /// A property's name lies in the strings block, is UTF-8 of at most 255 bytes and ends with a
    /// NUL.
    #[error("a property name lies outside the strings block, has no end, has over 255 bytes or is not UTF-8")]
    PropertyName,
    /// Properties lie in a node, before its subnodes.
    #[error("a property is outside a node or after a subnode")]
    PropertyPlace,
    /// A property has a length and the offset of its name.
    #[error("the structure block ends inside a property")]
    PropertyHead,
    /// Names and values end within the structure block.
    #[error("a name or value reaches beyond the structure block")]
    WithinBlock,
    /// A node that ends has begun.
    #[error("no node is open to be ended")]
    BalancedNodes,
    /// Every token is one of the specification.
    #[error("the token is unknown")]
    KnownToken,
    /// The structure block has the whole tree.
    #[error("the structure block ends inside the tree")]
    Complete,
    /// The root node ends before the tree does.
    #[error("the tree ends before its root node does")]
    RootEnds,
}

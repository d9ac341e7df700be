//! Preserved memory: ranges whose content survives the hand-over. The next kernel learns of them in
//! its device tree.

use arrayvec::ArrayVec;
use linmap_fdt::{Cells, Fdt, FdtNode, is_compatible, string};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use super::limits::{MAX_PRESERVED, PAGE, is_whole_pages};
use super::names;
use super::strings::check_string;
use super::tree_error::TreeError;

/// `compatible` of a preserved range.
pub(super) const COMPATIBLE: &str = "linmap,preserved";

/// A range of preserved memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreservedRange<'a> {
    /// A name for the content, by which its reader finds it: any text without a NUL. Several ranges
    /// may have the same.
    pub label: &'a str,
    /// The range, in whole pages of 4 KiB.
    pub range: PaRange,
}

/// Why the preserved ranges of a device tree cannot be used. `'a` is the lifetime of the tree,
/// since the errors name its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PreservedError<'a> {
    /// `reg` of the node is not one range of 64-bit numbers.
    #[error("/reserved-memory/{node}: reg is not one address and size of one or two cells each")]
    Reg {
        /// The node's name.
        node: &'a str,
    },
    /// The range ends beyond 2^64.
    #[error("/reserved-memory/{node}: {size:#x} bytes at {address} wrap around the 64-bit address space")]
    Wraps {
        /// The node's name.
        node: &'a str,
        /// Where the range begins.
        address: Pa,
        /// Its length in bytes.
        size: u64,
    },
    /// `label` of the node is not a string.
    #[error("/reserved-memory/{node}: label is missing or not UTF-8")]
    Label {
        /// The node's name.
        node: &'a str,
    },
    /// The range is not whole pages.
    #[error("/reserved-memory/{node}: {range} is empty or not whole pages of {PAGE:#x} bytes")]
    Unaligned {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
    },
    /// The range is not all RAM, or parts of it are no-map.
    #[error("/reserved-memory/{node}: {range} does not lie in one range of mappable RAM")]
    NotMapped {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
    },
    /// The memory map does not reserve the whole range, so that parts of it may be allocated.
    #[error("/reserved-memory/{node}: the memory map does not reserve all of {range}")]
    NotReserved {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
    },
    /// The range overlaps memory that the running kernel uses.
    #[error("/reserved-memory/{node}: {range} overlaps {other}, which is in use")]
    InUse {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
        /// The range in use.
        other: PaRange,
    },
    /// Two nodes overlap.
    #[error("/reserved-memory/{node}: {range} overlaps the preserved range {other}")]
    Overlap {
        /// The later node's name.
        node: &'a str,
        /// Its range.
        range: PaRange,
        /// The earlier node's range.
        other: PaRange,
    },
    /// There are more than [`MAX_PRESERVED`].
    #[error("/reserved-memory/{node}: more than {MAX_PRESERVED} preserved ranges")]
    TooMany {
        /// The name of the first node without room.
        node: &'a str,
    },
}

impl<'a> PreservedRange<'a> {
    /// Returns the preserved ranges that the earlier kernel left in a device tree, in the tree's
    /// order.
    ///
    /// `mappable` are the ranges of RAM that may be mapped, `reserved` the ranges that are never
    /// allocated; both are read from the same tree. `in_use` are the ranges that the running kernel
    /// used before it read the tree: its image, the device tree, the initrd.
    ///
    /// # Errors
    ///
    /// [`PreservedError`]: one variant for each rule that a node can break.
    pub fn read_all(
        fdt: Fdt<'a>,
        mappable: impl Iterator<Item = PaRange> + Clone,
        reserved: &[PaRange],
        in_use: &[PaRange],
    ) -> Result<ArrayVec<Self, MAX_PRESERVED>, PreservedError<'a>> {
        let mut all = ArrayVec::<Self, MAX_PRESERVED>::new();
        let Some(parent) = fdt.reserved_memory() else { return Ok(all) };
        let cells = parent.cells();
        for child in parent.children().filter(is_preserved) {
            let node = child.name();
            let preserved = Self::read(cells, child)?;
            let range = preserved.range;
            if !mappable.clone().any(|mapped| mapped.covers(range)) {
                return Err(PreservedError::NotMapped { node, range });
            }
            if !reserved.iter().any(|reserved| reserved.covers(range)) {
                return Err(PreservedError::NotReserved { node, range });
            }
            if let Some(&other) = in_use.iter().find(|other| other.overlaps(range)) {
                return Err(PreservedError::InUse { node, range, other });
            }
            if let Some(earlier) = all.iter().find(|earlier| earlier.range.overlaps(range)) {
                return Err(PreservedError::Overlap { node, range, other: earlier.range });
            }
            all.try_push(preserved).map_err(|_| PreservedError::TooMany { node })?;
        }
        Ok(all)
    }

    fn read(cells: Cells, child: FdtNode<'a>) -> Result<Self, PreservedError<'a>> {
        let node = child.name();
        let (address, size) = only_range(cells, child).ok_or(PreservedError::Reg { node })?;
        let range = PaRange::from_len(address, size).ok_or(PreservedError::Wraps { node, address, size })?;
        if !is_whole_pages(range) {
            return Err(PreservedError::Unaligned { node, range });
        }
        let label = child.property(names::LABEL).and_then(string).ok_or(PreservedError::Label { node })?;
        Ok(Self { label, range })
    }
}

/// Returns address and size in the `reg` of `child` if it has one entry of one or two cells each.
fn only_range(cells: Cells, child: FdtNode<'_>) -> Option<(Pa, u64)> {
    let (Cells { address: 1 | 2, size: 1 | 2 }, Ok(mut entries)) = (cells, child.reg(cells)) else {
        return None;
    };
    let first = entries.next()?;
    let range = (Pa(first.address()?), first.size()?);
    entries.next().is_none().then_some(range)
}

fn is_preserved(node: &FdtNode<'_>) -> bool {
    node.property(names::COMPATIBLE).is_some_and(|value| is_compatible(value, COMPATIBLE))
}

/// Checks that a next kernel accepts the ranges that will be written.
pub(super) fn check(preserved: &[PreservedRange<'_>], pen: Option<PaRange>) -> Result<(), TreeError> {
    let count = preserved.len();
    if count > MAX_PRESERVED {
        return Err(TreeError::TooManyPreserved { count });
    }
    for (index, PreservedRange { label, range }) in preserved.iter().copied().enumerate() {
        check_string(names::LABEL, label)?;
        if !is_whole_pages(range) {
            return Err(TreeError::PreservedUnaligned { range });
        }
        let earlier = preserved.iter().take(index).map(|earlier| earlier.range);
        if let Some(other) = earlier.chain(pen).find(|other| other.overlaps(range)) {
            return Err(TreeError::PreservedOverlap { range, other });
        }
    }
    Ok(())
}

//! Memory that goes through a hand-over untouched, and is told to the next kernel in its device tree.

use arrayvec::ArrayVec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::TreeError;
use crate::next_tree::check_string;
use crate::reserved_memory::{KEPT, is_compatible};
use crate::tree_output::Name;

/// How many kept ranges a device tree says at most. Each takes a region of the next kernel's memory map.
pub const MAX_KEPT: usize = 32;

/// Memory is kept in pages of this size in bytes.
pub(crate) const PAGE: u64 = 0x1000;

/// A range of memory that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRange<'a> {
    /// What the bytes are, for whoever looks for them: any text without a NUL. Several ranges may have the same.
    pub label: &'a str,
    /// Where they are, in whole pages of 4 KiB.
    pub range: PaRange,
}

/// Why the kept ranges of a device tree can't be used. `'a` is the lifetime of the tree, since the errors name its
/// nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeptError<'a> {
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
    /// `label` of the node is no string.
    #[error("/reserved-memory/{node}: label is missing or no UTF-8 string with one NUL, at its end")]
    Label {
        /// The node's name.
        node: &'a str,
    },
    /// The range is no whole pages.
    #[error("/reserved-memory/{node}: {range} is empty or not whole pages of {PAGE:#x} bytes")]
    Unaligned {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
    },
    /// Not all of the range is RAM, or some of it must not be mapped.
    #[error("/reserved-memory/{node}: {range} is not all in one range of RAM that may be mapped")]
    NotMapped {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
    },
    /// The memory map doesn't reserve the range, so that anyone may have been given it.
    #[error("/reserved-memory/{node}: {range} is not all reserved in the memory map")]
    NotReserved {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
    },
    /// The range has bytes of something that the running kernel uses.
    #[error("/reserved-memory/{node}: {range} overlaps {other}, which is in use")]
    InUse {
        /// The node's name.
        node: &'a str,
        /// The range.
        range: PaRange,
        /// What is in use.
        other: PaRange,
    },
    /// Two nodes have bytes in common.
    #[error("/reserved-memory/{node}: {range} overlaps the kept range {other}")]
    Overlap {
        /// The later node's name.
        node: &'a str,
        /// Its range.
        range: PaRange,
        /// The earlier node's range.
        other: PaRange,
    },
    /// There are more than [`MAX_KEPT`].
    #[error("/reserved-memory/{node}: one kept range more than the {MAX_KEPT} there is room for")]
    TooMany {
        /// The name of the first node without room.
        node: &'a str,
    },
}

impl<'a> KeptRange<'a> {
    /// The kept ranges that the earlier kernel left in a device tree, in the tree's order: all or, if one is wrong, none.
    ///
    /// `memory` is filled from the same tree ([`Memblock::fill_from_fdt`] reserves the ranges, so that nothing that is
    /// allocated afterwards lies in one). `in_use` is what the running kernel used before that: its image, the
    /// device tree, the initrd.
    ///
    /// # Errors
    ///
    /// [`KeptError`], one variant for each rule that a node can break.
    pub fn read_all<const N: usize>(
        fdt: Fdt<'a>,
        memory: &Memblock<N>,
        in_use: &[PaRange],
    ) -> Result<ArrayVec<Self, MAX_KEPT>, KeptError<'a>> {
        let mut all = ArrayVec::<Self, MAX_KEPT>::new();
        let Some(parent) = fdt.find_node("/reserved-memory") else { return Ok(all) };
        for child in parent.children().filter(is_kept) {
            let node = child.name();
            let kept = Self::read(&parent, child)?;
            let range = kept.range;
            if !memory.mapped(PAGE).any(|mapped| mapped.covers(range)) {
                return Err(KeptError::NotMapped { node, range });
            }
            if !memory.reserved().iter().any(|reserved| reserved.covers(range)) {
                return Err(KeptError::NotReserved { node, range });
            }
            if let Some(&other) = in_use.iter().find(|other| other.overlaps(range)) {
                return Err(KeptError::InUse { node, range, other });
            }
            if let Some(earlier) = all.iter().find(|earlier| earlier.range.overlaps(range)) {
                return Err(KeptError::Overlap { node, range, other: earlier.range });
            }
            all.try_push(kept).map_err(|_| KeptError::TooMany { node })?;
        }
        Ok(all)
    }

    fn read(parent: &FdtNode<'a>, child: FdtNode<'a>) -> Result<Self, KeptError<'a>> {
        let node = child.name();
        let (address, size) = only_range(parent, child).ok_or(KeptError::Reg { node })?;
        let range = PaRange::from_len(address, size).ok_or(KeptError::Wraps { node, address, size })?;
        if !is_whole_pages(range) {
            return Err(KeptError::Unaligned { node, range });
        }
        let label = child.property(Name::Label.text()).and_then(|label| label.value_as::<&str>().ok());
        let label = label.filter(|label| !label.contains('\0')).ok_or(KeptError::Label { node })?;
        Ok(Self { label, range })
    }
}

/// Address and size in bytes in the `reg` of `child`, if it has one entry.
fn only_range<'a>(parent: &FdtNode<'a>, child: FdtNode<'a>) -> Option<(Pa, u64)> {
    let (Ok(1 | 2), Ok(1 | 2)) = (parent.address_cells(), parent.size_cells()) else { return None };
    let mut entries = child.reg().ok()??;
    let first = entries.next()?;
    let range = (Pa(first.address().ok()?), first.size().ok()?);
    entries.next().is_none().then_some(range)
}

fn is_kept(node: &FdtNode<'_>) -> bool {
    let compatible = node.property(Name::Compatible.text());
    compatible.is_some_and(|property| is_compatible(property.value(), KEPT))
}

fn is_whole_pages(range: PaRange) -> bool {
    !range.is_empty() && range.align_inward(PAGE) == range
}

/// Checks that a next kernel will take the ranges that are to be written.
pub(crate) fn check(kept: &[KeptRange<'_>], pen: Option<PaRange>) -> Result<(), TreeError> {
    let count = kept.len();
    if count > MAX_KEPT {
        return Err(TreeError::TooManyKept { count });
    }
    for (index, KeptRange { label, range }) in kept.iter().copied().enumerate() {
        check_string(Name::Label, label)?;
        if !is_whole_pages(range) {
            return Err(TreeError::KeptUnaligned { range });
        }
        let earlier = kept.iter().take(index).map(|kept| kept.range);
        if let Some(other) = earlier.chain(pen).find(|other| other.overlaps(range)) {
            return Err(TreeError::KeptOverlap { range, other });
        }
    }
    Ok(())
}

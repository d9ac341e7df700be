//! What a table translates, when one leaf could do it, where hardware updates the leaves.
//!
//! No slice may lead to entries that hardware updates, so each is read by itself.

use core::ptr::NonNull;

use linmap_table::TableWindow;
use linmap_vmsa::{Descriptor, Level, Pa};

use crate::entry::{Entry, attributes_of, entry};
use crate::gather::updated_bits;
use crate::hierarchy::loses_nothing;
use crate::tree_context::TreeContext;
use crate::update::carried;

/// Returns the attributes and the address of the one leaf that translates what the table in frame
/// `table` at `level`, below a root, does with all tables below it, or `None`. `value` maps a leaf
/// in memory to the one that is compared.
#[cold]
#[inline(never)]
pub(crate) fn uniform_updated<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    table: Pa,
    level: Level,
    value: impl Fn(Descriptor) -> Descriptor + Copy,
) -> Option<(u64, Pa)> {
    let (whole, _) = whole(context, window, table, level, value)?;
    Some(whole)
}

/// As [`uniform_updated`], whatever hardware has updated: returns the attributes of the first leaf.
#[cold]
#[inline(never)]
pub(crate) fn uniform_or_updated<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    table: Pa,
    level: Level,
) -> Option<(u64, Pa)> {
    let regime = context.geometry.regime();
    let updated = |leaf: Descriptor| {
        if leaf.is_valid() { context.updates.of_leaf(regime, leaf) } else { leaf }
    };
    let ((_, pa), first) = whole(context, window, table, level, updated)?;
    Some((first, pa))
}

/// Returns the one leaf that translates what the table does, and the attributes of its first leaf
/// as they are in memory.
fn whole<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    table: Pa,
    level: Level,
    value: impl Fn(Descriptor) -> Descriptor + Copy,
) -> Option<((u64, Pa), u64)> {
    // SAFETY: by the promise of `LiveTree::new` the window reaches every table of the tree.
    let entries = unsafe { window.open(level, table) };
    let whole = as_one_leaf(context, window, entries, level, value);
    window.close(level);
    whole
}

/// What is at an entry: the attributes and the address that are compared, the attributes of the
/// first leaf in memory, and the number of entries.
type Part = ((u64, Pa), u64, usize);

/// [`uniform_updated`] of a table that is open at `entries`.
fn as_one_leaf<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    entries: NonNull<u64>,
    level: Level,
    value: impl Fn(Descriptor) -> Descriptor + Copy,
) -> Option<((u64, Pa), u64)> {
    let shift = context.shift(level);
    let count = context.entries(level);
    let ((attributes, start), first, mut index) = part(context, window, entries, level, 0, value)?;
    if start.0 & ((count as u64) << shift).wrapping_sub(1) != 0 {
        return None;
    }
    while index < count {
        let (found, _, more) = part(context, window, entries, level, index, value)?;
        if found != (attributes, Pa(start.0.wrapping_add((index as u64) << shift))) {
            return None;
        }
        index += more;
    }
    Some(((attributes, start), first))
}

/// Returns the attributes, the address and the number of entries of the leaf at `index`, of the run
/// that begins there, or of the leaf that could replace the table that the entry leads to.
fn part<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    entries: NonNull<u64>,
    level: Level,
    index: usize,
    value: impl Fn(Descriptor) -> Descriptor + Copy,
) -> Option<Part> {
    let geometry = context.geometry;
    let said = |leaf| (attributes_of(geometry, value(leaf)), attributes_of(geometry, leaf));
    let found = read(entries, index);
    match (entry(geometry, level, found), level.next()) {
        (Entry::Leaf(pa), _) if !found.is_contiguous() => {
            let (compared, first) = said(found);
            Some(((compared, pa), first, 1))
        }
        (Entry::Leaf(pa), _) => {
            let count = context.run(level).filter(|count| index.is_multiple_of(*count))?;
            let lead = run_lead(context, entries, level, (index, count))?;
            let (compared, first) = said(lead);
            Some(((compared, pa), first, count))
        }
        (Entry::Table(below), Some(next)) => {
            let (below, first) = whole(context, window, below, next, value)?;
            loses_nothing(geometry, found, below.0).then_some((below, first, 1))
        }
        _ => None,
    }
}

/// The entry at `index`, one of those of an open table.
fn read(entries: NonNull<u64>, index: usize) -> Descriptor {
    // SAFETY: the table is open, so it is valid for reads of a whole granule. Hardware may update
    // the entry, so the read is volatile.
    Descriptor(unsafe { entries.add(index).read_volatile() })
}

/// Returns the first of the run of `count` entries from `index` on, with what hardware has updated
/// in any, or `None` if they differ in more.
fn run_lead(
    context: &TreeContext,
    entries: NonNull<u64>,
    level: Level,
    (index, count): (usize, usize),
) -> Option<Descriptor> {
    let regime = context.geometry.regime();
    let first = read(entries, index);
    let mut all = first.0;
    let mut expected = first.0;
    for nth in 0..count {
        let found = read(entries, index + nth).0;
        if (found ^ expected) & !updated_bits(first.0) != 0 {
            return None;
        }
        all = carried(regime, all, found);
        expected = expected.wrapping_add(1 << context.shift(level));
    }
    Some(Descriptor(all))
}

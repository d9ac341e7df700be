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
    // SAFETY: by the promise of `LiveTree::new` the window reaches every table of the tree.
    let entries = unsafe { window.open(level, table) };
    let whole = as_one_leaf(context, window, entries, level, value);
    window.close(level);
    whole
}

/// [`uniform_updated`] of a table that is open at `entries`.
fn as_one_leaf<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    entries: NonNull<u64>,
    level: Level,
    value: impl Fn(Descriptor) -> Descriptor + Copy,
) -> Option<(u64, Pa)> {
    let shift = context.shift(level);
    let count = context.entries(level);
    let (attributes, start, mut index) = part(context, window, entries, level, 0, value)?;
    if start.0 & ((count as u64) << shift).wrapping_sub(1) != 0 {
        return None;
    }
    while index < count {
        let (found, pa, more) = part(context, window, entries, level, index, value)?;
        if (found, pa) != (attributes, Pa(start.0.wrapping_add((index as u64) << shift))) {
            return None;
        }
        index += more;
    }
    Some((attributes, start))
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
) -> Option<(u64, Pa, usize)> {
    let geometry = context.geometry;
    let found = read(entries, index);
    match (entry(geometry, level, found), level.next()) {
        (Entry::Leaf(pa), _) if !found.is_contiguous() => {
            Some((attributes_of(geometry, value(found)), pa, 1))
        }
        (Entry::Leaf(pa), _) => {
            let count = context.run(level).filter(|count| index.is_multiple_of(*count))?;
            let lead = run_lead(context, entries, level, (index, count))?;
            Some((attributes_of(geometry, value(lead)), pa, count))
        }
        (Entry::Table(below), Some(next)) => {
            let (attributes, pa) = uniform_updated(context, window, below, next, value)?;
            loses_nothing(geometry, found, attributes).then_some((attributes, pa, 1))
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

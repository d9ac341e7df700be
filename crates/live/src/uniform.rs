//! What a table translates, when one leaf could do it: the one scan behind every fold and every
//! comparison of a table with a block.

use core::slice;

use linmap_vmsa::{Descriptor, Level, Pa};

use crate::hierarchy::loses_nothing;
use crate::tree_context::TreeContext;
use crate::uniform_updated::uniform_updated;

use crate::entry::{CONTIGUOUS, Entry, attributes_of, entry, leaf};
use crate::gather::gather;
use linmap_table::TableWindow;

/// Entries that one turn of a loop compares: a divisor of the number of entries of every table
/// below a root.
const CHUNK: usize = 32;

/// The shortest contiguous run there is, or a part of a longer one.
const RUN: usize = 16;

/// Chunks that are compared before a difference ends the comparison.
const CHUNKS: usize = 8;

/// Returns the attributes and the address of the one leaf that translates what the table in frame
/// `table` at `level`, below a root, does with all tables below it, or `None`.
pub(crate) fn uniform<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    table: Pa,
    level: Level,
) -> Option<(u64, Pa)> {
    let geometry = context.geometry;
    if context.updates.is_on() {
        return uniform_updated(context, window, table, level, |found| found);
    }
    let count = geometry.entries(level);
    // SAFETY: by the promise of `LiveTree::new` the window reaches every table of the tree.
    let pointer = unsafe { window.open(level, table) };
    // SAFETY: an open table has `count` entries, which are initialised in every tree, and stays
    // open while deeper levels are. Nothing writes to them during the call: only its one `LiveTree`
    // changes a live tree, hardware updates nothing, and new tables are complete.
    let entries = unsafe { slice::from_raw_parts(pointer.as_ptr(), count) };
    let whole = as_one_leaf(context, window, entries, level);
    window.close(level);
    whole
}

/// As [`uniform`], of the table in frame `table` that `link` leads to: `None` also if `link` takes
/// away what the leaves below allow, since a leaf in its place would allow it.
#[inline(always)]
pub(crate) fn uniform_below<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    link: Descriptor,
    table: Pa,
    level: Level,
) -> Option<(u64, Pa)> {
    let whole = uniform(context, window, table, level)?;
    loses_nothing(context.geometry, link, whole.0).then_some(whole)
}

/// [`uniform`] of a table that is open.
#[inline(always)]
fn as_one_leaf<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    entries: &[u64],
    level: Level,
) -> Option<(u64, Pa)> {
    let geometry = context.geometry;
    let shift = geometry.shift(level);
    let (attributes, start, _) = part(context, window, entries, 0, level)?;
    if start.0 & ((entries.len() as u64).wrapping_shl(shift).wrapping_sub(1)) != 0 {
        return None;
    }
    let lead = leaf(geometry, level, attributes, start).0;
    let (chunks, _) = entries.as_chunks::<CHUNK>();
    let all_match = chunks_match(chunks, lead, 1 << shift)
        || parts_match(context, window, entries, level, (attributes, start));
    all_match.then_some((attributes, start))
}

/// Returns whether the entries, among them tables or runs that hardware has updated, translate what
/// one leaf with these attributes and this address would.
#[inline(never)]
fn parts_match<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    entries: &[u64],
    level: Level,
    (attributes, start): (u64, Pa),
) -> bool {
    let geometry = context.geometry;
    let shift = geometry.shift(level);
    let mut index = 0;
    while index < entries.len() {
        let address = Pa(start.0.wrapping_add((index as u64) << shift));
        if index.is_multiple_of(RUN)
            && let Some(run) = entries.get(index..).and_then(|rest| rest.first_chunk())
            && run_matches(true, run, leaf(geometry, level, attributes, address).0, 1 << shift)
        {
            index += RUN;
            continue;
        }
        match part(context, window, entries, index, level) {
            Some((found, pa, count)) if (found, pa) == (attributes, address) => index += count,
            _ => return false,
        }
    }
    true
}

/// Returns the attributes, the address and the number of entries of the leaf at `index`, of the run
/// that begins there, or of the leaf that could replace the table that the entry leads to.
#[inline(always)]
fn part<W: TableWindow>(
    context: &TreeContext,
    window: &mut W,
    entries: &[u64],
    index: usize,
    level: Level,
) -> Option<(u64, Pa, usize)> {
    let geometry = context.geometry;
    let found = Descriptor(*entries.get(index)?);
    match (entry(geometry, level, found), level.next()) {
        (Entry::Leaf(pa), _) if !found.is_contiguous() => Some((attributes_of(geometry, found), pa, 1)),
        (Entry::Leaf(pa), _) => {
            let count = geometry.contiguous_entries(level)?;
            let run = entries.get(index..index + count).filter(|_| index.is_multiple_of(count))?;
            let gathered = gather(run, geometry.shift(level), geometry.regime()).ok()?;
            Some((attributes_of(geometry, gathered.lead), pa, count))
        }
        (Entry::Table(below), Some(next)) => {
            uniform_below(context, window, found, below, next).map(|(attributes, pa)| (attributes, pa, 1))
        }
        _ => None,
    }
}

/// Returns whether the entries are `expected`, `expected` + `step` and so on, each run of them with
/// or without the contiguous bit.
// Out of line: in the caller's loop the compiler makes branches of the comparisons. Here an entry
// costs half a load, an addition and a conditional comparison on AArch64.
#[inline(never)]
fn chunks_match(chunks: &[[u64; CHUNK]], expected: u64, step: u64) -> bool {
    let mut expected = expected;
    for chunks in chunks.chunks(CHUNKS) {
        let mut all_match = true;
        for chunk in chunks {
            // A chunk is two runs or a part of one. All entries of a run have the contiguous bit,
            // or none.
            let (runs, _) = chunk.as_chunks::<RUN>();
            let mut chunk_matches = true;
            for run in runs {
                chunk_matches = run_matches(chunk_matches, run, expected, step);
                expected = expected.wrapping_add(step.wrapping_mul(RUN as u64));
            }
            all_match &= chunk_matches;
        }
        if !all_match {
            return false;
        }
    }
    true
}

/// Returns whether the entries of the run are `expected` and so on, if all before it `matched`.
// One chain of comparisons over all runs of a chunk.
#[inline(always)]
fn run_matches(matched: bool, run: &[u64; RUN], expected: u64, step: u64) -> bool {
    let mut next = expected | run[0] & CONTIGUOUS;
    let mut all_match = matched;
    for found in run {
        all_match &= *found == next;
        next = next.wrapping_add(step);
    }
    all_match
}

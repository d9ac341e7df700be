//! The floor: the same tables written, or changed, by straight loops of plain stores, with nothing
//! decided on the way. Tables that get filled are not zeroed first; the rest of the top two is.

use std::mem::MaybeUninit;
use std::slice;

use anyhow::Result;
use linmap_table::Leaves;
use linmap_vmsa::{Access, Descriptor, Pa};

use crate::arena::TableMemory;
use crate::case::Case;
use crate::geometry::GEOMETRY;
use crate::run::Run;

/// Bytes and entries of a table.
const TABLE: u64 = GEOMETRY.granule().bytes();
const ENTRIES: usize = GEOMETRY.granule().entries();

/// Writes all leaf tables as one row of entries, then the tables above, each level as one row as
/// well.
///
/// # Errors
/// None: there is a frame for each table of the map.
pub fn build(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let mapping = case.mapping(Leaves::Pages);
    let level = case.leaf.level();
    let first = memory.frames().start;
    let tables = case.tables() as usize;
    // SAFETY: the memory has as many frames as the map has tables, one after the other, and is
    // borrowed exclusively for as long as the slice is used. `MaybeUninit` asks nothing of what
    // they hold.
    let mut entries: &mut [MaybeUninit<u64>] =
        unsafe { slice::from_raw_parts_mut(memory.pointer(first).cast(), tables * ENTRIES) };
    Run::timed(|| {
        let leaf = Descriptor::leaf(GEOMETRY, level, mapping.pa, mapping.attributes)?;
        let mut descriptor = leaf.0;
        let mut step = GEOMETRY.entry_bytes(level);
        let mut count = case.entries() as usize;
        let mut frame = first;
        loop {
            let row_tables = count.div_ceil(ENTRIES);
            let (row, above) = entries.split_at_mut(row_tables * ENTRIES);
            let (used, unused) = row.split_at_mut(count);
            for entry in used {
                entry.write(descriptor);
                descriptor += step;
            }
            for entry in unused {
                entry.write(0);
            }
            if above.is_empty() {
                return Ok(frame);
            }
            descriptor = Descriptor::table(GEOMETRY, frame).0;
            step = TABLE;
            count = row_tables;
            frame = Pa(frame.0 + row_tables as u64 * TABLE);
            entries = above;
        }
    })
}

/// Builds the map, then makes all leaves read-only in one loop over the row of leaf tables.
///
/// # Errors
/// None.
pub fn protect(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let root = build(case, memory)?.root;
    // SAFETY: the leaf tables are the first frames, all full and just written, and are borrowed
    // exclusively for as long as the slice is used.
    let leaves: &mut [u64] =
        unsafe { slice::from_raw_parts_mut(memory.pointer(memory.frames().start), case.entries() as usize) };
    Run::timed(|| {
        for leaf in leaves {
            *leaf = *leaf & !Access::MASK | Access::KernelReadOnly.bits();
        }
        Ok(root)
    })
}

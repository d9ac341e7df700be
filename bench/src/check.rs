//! Whether a contestant built the map that was asked for: software walks from its root table, outside of all timing.

use std::ptr::NonNull;

use anyhow::{Result, ensure};
use linmap::layout::{GEOMETRY, Layout};
use linmap_table::{Leaves, TableWindow, Walk, walk};
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, Va};

use crate::arena::TableMemory;
use crate::case::Case;
use crate::contestant::{Contestant, Frames};

/// Pages from one walk to the next: a prime, so that every index of every table comes up.
const STRIDE: u64 = 1021;

/// Builds the map of `case` in frames full of rubbish and walks it at the edges of every table at level 2, at a stride,
/// and around the RAM.
///
/// # Errors
/// The contestant's own, or the first address that does not translate as it should.
pub fn check(contestant: &Contestant, case: Case, memory: &mut TableMemory<'_>) -> Result<()> {
    let frames = memory.frames();
    if contestant.frames == Frames::AsTheyAre {
        // An entry that nobody writes is a wrong leaf, or leads to tables that end in one.
        memory.set(Descriptor::leaf(GEOMETRY, Level::L3, frames.start, Attributes::KERNEL_DATA).0);
    }
    let root = contestant.run(case, memory)?.root;
    let mut window = Inside { memory, stray: None };
    ensure!(frames.contains(root), "{}: the root table {root} is none of its frames", contestant.name);

    let mapping = case.mapping(Leaves::Pages);
    let page = GEOMETRY.granule().bytes();
    let table = GEOMETRY.entry_bytes(Level::L1);
    let edges = (0..mapping.len / table).flat_map(|index| {
        let start = index * table;
        [start, start + table - 1]
    });
    let strided = (0..mapping.len / page / STRIDE).map(|index| index * STRIDE * page);
    for offset in edges.chain(strided) {
        let va = Va(mapping.va.0 + offset);
        let pa = Pa(mapping.pa.0 + offset);
        let found = walk(GEOMETRY, root, va, &mut window);
        let right = match found {
            Walk::Leaf { pa: to, level, descriptor } => {
                let attributes = Attributes { contiguous: contestant.contiguous, ..mapping.attributes };
                to == pa
                    && level == case.leaf.level()
                    && descriptor.attributes(GEOMETRY, level) == Some(attributes)
            }
            Walk::Fault { .. } => false,
        };
        let name = contestant.name;
        ensure!(right, "{name}: {va} should translate to {pa} by {}, but: {found:?}", case.leaf.name());
        ensure!(window.stray.is_none(), "{name}: the walk of {va} leaves the frames: {:x?}", window.stray);
    }

    // Right behind the RAM, at the end of its table at level 1, and at the end of the root.
    let last_of_level_1 = Layout::base(GEOMETRY).0 + GEOMETRY.entry_bytes(Level::L0) - page;
    for va in [mapping.va.0 + mapping.len, last_of_level_1, u64::MAX - (page - 1)] {
        if va - mapping.va.0 < mapping.len {
            continue;
        }
        let found = walk(GEOMETRY, root, Va(va), &mut window);
        let name = contestant.name;
        ensure!(matches!(found, Walk::Fault { .. }), "{name}: {} should fault, but: {found:?}", Va(va));
    }
    Ok(())
}

/// The frames of one map and nothing beside them, whatever a table says.
struct Inside<'w, 'a> {
    memory: &'w mut TableMemory<'a>,
    /// The last address outside that was asked for.
    stray: Option<Pa>,
}

// SAFETY: every pointer is that of a whole frame of the memory, which is borrowed exclusively; an address outside is
// noted and always reached as the first frame.
unsafe impl TableWindow for Inside<'_, '_> {
    fn open(&mut self, _: Level, table: Pa) -> NonNull<u64> {
        let frames = self.memory.frames();
        let mut frame = table;
        if !frames.contains(table) {
            self.stray = Some(table);
            frame = frames.start;
        }
        let Some(pointer) = NonNull::new(self.memory.pointer(frame)) else {
            unreachable!("no frame of the arena lies at address 0")
        };
        pointer
    }

    fn close(&mut self, _: Level) {}
}

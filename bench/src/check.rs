//! Whether a contestant made the map that was asked for: software walks from its root table,
//! outside of all timing.

use std::ptr::NonNull;

use anyhow::{Result, ensure};
use linmap::Layout;
use linmap_table::{Leaves, TableWindow, Walk, walk};
use linmap_vmsa::{Attributes, Descriptor, Level, Pa, Va};

use crate::arena::TableMemory;
use crate::case::{Case, Work};
use crate::contestant::{Contestant, Frames};
use crate::geometry::GEOMETRY;

/// Pages from one walk to the next: a prime, so that every index of every table comes up.
const STRIDE: u64 = 1021;

/// Makes the map of `case` in frames full of garbage and walks it at the edges of every table at
/// level 2, at a stride, and around the RAM. A map that was changed is walked at every page.
///
/// # Errors
/// The contestant's own, or the first address that does not translate as it should.
pub fn check(contestant: &Contestant, case: Case, memory: &mut TableMemory<'_>) -> Result<()> {
    let frames = memory.frames();
    if contestant.frames == Frames::AsTheyAre {
        // An entry that the contestant does not write is a wrong leaf, or leads to one.
        memory.set(Descriptor::page(GEOMETRY, frames.start, Attributes::KERNEL_DATA).0);
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
    let stride = match case.work {
        Work::Build => STRIDE,
        Work::Protect => 1,
    };
    let strided = (0..mapping.len / page / stride).map(|index| index * stride * page);
    for offset in edges.chain(strided) {
        let va = Va(mapping.va.0 + offset);
        let pa = Pa(mapping.pa.0 + offset);
        // SAFETY: the window stands a frame of the memory in for every other.
        let found = unsafe { walk(GEOMETRY, root, va, &mut window) };
        let name = contestant.name;
        ensure!(window.stray.is_none(), "{name}: the walk of {va} leaves the frames: {:x?}", window.stray);
        let right = match found {
            Walk::Leaf { pa: to, level, descriptor, .. } => {
                let attributes = Attributes { contiguous: contestant.contiguous, ..case.attributes() };
                to == pa
                    && level == case.leaf.level()
                    && descriptor.attributes(GEOMETRY, level) == Some(attributes)
            }
            Walk::Fault { .. } => false,
        };
        ensure!(right, "{name}: {va} should translate to {pa} ({}), but: {found:?}", case.title());
    }

    // Right after the RAM, at the end of its table at level 1, and at the end of the root.
    let last_of_level_1 = Layout::base(GEOMETRY).0 + GEOMETRY.entry_bytes(Level::L0) - page;
    for va in [mapping.va.0 + mapping.len, last_of_level_1, u64::MAX - (page - 1)] {
        if va - mapping.va.0 < mapping.len {
            continue;
        }
        // SAFETY: as above.
        let found = unsafe { walk(GEOMETRY, root, Va(va), &mut window) };
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

// SAFETY: every pointer is that of a whole frame of the memory, which is borrowed exclusively; an
// address outside is noted and always reached as the first frame.
unsafe impl TableWindow for Inside<'_, '_> {
    unsafe fn open(&mut self, _: Level, table: Pa) -> NonNull<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Access;

    use crate::arena::Arena;
    use crate::case::LeafKind;
    use crate::contestant::Role;
    use crate::run::Run;
    use crate::{floor, ours};

    const PAGES: Case = Case { work: Work::Build, gib: 1, leaf: LeafKind::Page };
    const BLOCKS: Case = Case { leaf: LeafKind::Block, ..PAGES };
    const READ_ONLY: Case = Case { work: Work::Protect, ..PAGES };

    fn checked(contestant: &Contestant, case: Case) -> Result<()> {
        let mut arena = Arena::new(case.table_bytes()).unwrap();
        check(contestant, case, &mut arena.tables(case.tables(), case.ram().end).unwrap())
    }

    /// The message that a contestant's map of `case` is refused with.
    fn refused(case: Case, run: fn(Case, &mut TableMemory<'_>) -> Result<Run>) -> String {
        let (frames, role) = (Frames::AsTheyAre, Role::Peer);
        let contestant = Contestant { name: "wrong", role, frames, contiguous: false, run };
        checked(&contestant, case).unwrap_err().to_string()
    }

    #[test]
    fn every_contestant_makes_the_right_map() {
        for case in [PAGES, BLOCKS, READ_ONLY] {
            for contestant in Contestant::all(case) {
                checked(contestant, case).unwrap();
            }
        }
    }

    #[test]
    fn an_entry_left_as_it_was_is_found() {
        fn last_root_entry(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
            let run = floor::build(case, memory)?;
            let first_frame = Descriptor::table(GEOMETRY, memory.frames().start).0;
            let last = GEOMETRY.entries(Level::L0) - 1;
            // SAFETY: the entry lies in the root table, a frame of `memory`, which is borrowed
            // exclusively.
            unsafe { memory.pointer(run.root).add(last).write(first_frame) };
            Ok(run)
        }
        assert!(refused(PAGES, last_root_entry).contains("0xfffffffffffff000 should fault"));
    }

    #[test]
    fn a_table_outside_the_frames_is_found() {
        fn root_entry(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
            let run = floor::build(case, memory)?;
            let outside = Descriptor::table(GEOMETRY, memory.frames().end).0;
            // SAFETY: the first entry of the root table, a frame of `memory`, which is borrowed
            // exclusively.
            unsafe { memory.pointer(run.root).write(outside) };
            Ok(run)
        }
        assert!(refused(PAGES, root_entry).contains("the walk of 0xffff000000000000 leaves the frames"));
    }

    #[test]
    fn leaves_of_the_wrong_kind_are_found() {
        fn blocks(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
            ours::from_memblock(Case { leaf: LeafKind::Block, ..case }, memory)
        }
        assert!(refused(PAGES, blocks).contains("4 KiB pages"));
        assert!(refused(BLOCKS, ours::with_contiguous_bit).contains("2 MiB blocks"));
    }
    #[test]
    fn a_page_left_writable_is_found_wherever_it_is() {
        fn all_but_one(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
            let run = floor::protect(case, memory)?;
            let entry = memory.pointer(memory.frames().start);
            // SAFETY: the entry lies in the first frame of `memory`, which is borrowed exclusively.
            unsafe { entry.add(77).write(entry.add(77).read() & !Access::MASK) };
            Ok(run)
        }
        assert!(refused(READ_ONLY, all_but_one).contains("0xffff00000004d000 should translate to"));
    }
}

//! Random edits of a few tables of pages that CPUs write to all the time, with hardware updates of
//! the access flag and of dirty state: no written page is lost, whether it is dirty in its leaf
//! afterwards or was reported. [`World::apply`] checks that after each edit.

use crate::recorded::{MIB, setting};
use crate::world::{Done, Op, Setting, Who, World};
use linmap_live::{Change, Half};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, HardwareUpdates, Level, Stage2};

const CLEAN: Change = Change { access: Some(Access::KernelReadWriteClean), execute: None, valid: None };

/// Edits of 4 MiB: all pages become clean while nobody writes, and what comes next is written to
/// at any moment.
fn rounds(next: &[Op]) -> Vec<(Op, Who)> {
    let clean = Op::Protect { at: 0, len: 4 * MIB, change: CLEAN };
    next.iter().flat_map(|op| [(clean, Who::Nobody), (*op, Who::Retrying)]).collect()
}

const RO: Change = Change { access: Some(Access::KernelReadOnly), execute: None, valid: None };

/// 4 MiB that CPUs write to.
fn written_world(setting: Setting) -> World {
    let access = Access::KernelReadWriteClean;
    let attributes = Attributes { access, ..Attributes::KERNEL_DATA };
    let leaves = Leaves::ContiguousBlocks;
    World::new(setting, &[Op::Map { at: 0, len: 4 * MIB, shift: 0, attributes, leaves }], false)
}

/// Makes the edits, until one breaks a rule or loses a written page. None may be refused.
fn make(world: &mut World, edits: &[(Op, Who)]) -> Result<(), String> {
    edits.iter().try_for_each(|(op, who)| match world.apply(*op, *who, 0)? {
        Done::Applied => Ok(()),
        Done::Refused(error) => panic!("{op:?} is refused: {error}"),
    })
}

/// The trees of user space, of the kernel and of a guest that hardware updates, with random writes.
fn settings(bbm: BbmLevel) -> impl Iterator<Item = Setting> {
    let plain = setting(Granule::K4, bbm);
    let guest = Geometry::stage_2(Granule::K4, 39, 40, Stage2::Base).unwrap();
    let trees =
        [(plain.geometry, Half::Low, Some(7)), (plain.geometry, Half::High, None), (guest, Half::Low, None)];
    trees.into_iter().flat_map(move |(geometry, half, asid)| {
        (1..=6).map(move |seed| Setting {
            geometry,
            half,
            asid,
            area_len: 4 * MIB,
            range_invalidation: true,
            updates: HardwareUpdates::AccessedAndDirty,
            seed,
            ..setting(Granule::K4, bbm)
        })
    })
}

const LEVELS: [BbmLevel; 4] = [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3];

#[test]
fn no_page_that_is_written_during_an_edit_is_lost() {
    let split = Op::Split { at: 0, len: 4 * MIB, to: Level::L3 };
    let fold = Op::Fold { at: 0, len: 4 * MIB };
    let part = Op::Split { at: 0x2_3000, len: 0x1000, to: Level::L3 };
    let remap = Op::Remap { at: 0x4_0000, len: 0x1_0000, shift: 2 * MIB, change: Change::default() };
    let back = Op::Remap { at: 0x4_0000, len: 0x1_0000, shift: 0, change: Change::default() };
    let copied = Op::Remap { at: 0x4_0000, len: 0x1_0000, shift: 2 * MIB, change: RO };
    let collect = Op::Protect { at: 0, len: 4 * MIB, change: CLEAN };
    let clear = Op::Clear { area_len: 4 * MIB };
    let next = [split, fold, part, collect, fold, split, remap, back, copied, back, fold, collect, clear];
    let edits = rounds(&next);
    for setting in LEVELS.into_iter().flat_map(settings) {
        let mut world = written_world(setting);
        make(&mut world, &edits).unwrap_or_else(|error| panic!("{setting:?}: {error}"));
        world.agree().unwrap();
    }
}

/// A caller that does not learn what was written loses it: a test of the test, and the reason for
/// the calls that report.
#[test]
fn a_page_whose_write_is_not_reported_by_an_edit_that_ends_its_dirty_state_is_found() {
    let pages = Op::Split { at: 0, len: 4 * MIB, to: Level::L3 };
    for last in [
        Op::Remap { at: 0, len: 4 * MIB, shift: 8 * MIB, change: RO },
        Op::Protect { at: 0, len: 4 * MIB, change: RO },
        Op::Unmap { at: 0, len: 4 * MIB },
        Op::Clear { area_len: 4 * MIB },
    ] {
        for bbm in LEVELS {
            let found = settings(bbm).filter(|setting| {
                let mut world = written_world(*setting);
                world.drops_reports = true;
                make(&mut world, &[(pages, Who::Nobody), (last, Who::Retrying)]).is_err()
            });
            assert!(found.count() > 0, "{bbm:?}: {last:?}");
        }
    }
}

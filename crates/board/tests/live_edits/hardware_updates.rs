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

fn run(setting: Setting, edits: &[(Op, Who)]) -> usize {
    let access = Access::KernelReadWriteClean;
    let attributes = Attributes { access, ..Attributes::KERNEL_DATA };
    let leaves = Leaves::ContiguousBlocks;
    let initial = Op::Map { at: 0, len: 4 * MIB, shift: 0, attributes, leaves };
    let mut world = World::new(setting, &[initial], false);
    let mut applied = 0;
    for (op, who) in edits {
        match world.apply(*op, *who, 0) {
            Ok(Done::Applied) => applied += 1,
            Ok(Done::Refused(error)) => panic!("{setting:?}: {op:?} is refused: {error}"),
            Err(error) => panic!("{setting:?}: {error}"),
        }
    }
    world.agree().unwrap();
    applied
}

#[test]
fn no_page_that_is_written_during_an_edit_is_lost() {
    let split = Op::Split { at: 0, len: 4 * MIB, to: Level::L3 };
    let fold = Op::Fold { at: 0, len: 4 * MIB };
    let part = Op::Split { at: 0x2_3000, len: 0x1000, to: Level::L3 };
    let remap = Op::Remap { at: 0x4_0000, len: 0x1_0000, shift: 2 * MIB, change: Change::default() };
    let back = Op::Remap { at: 0x4_0000, len: 0x1_0000, shift: 0, change: Change::default() };
    let collect = Op::Protect { at: 0, len: 4 * MIB, change: CLEAN };
    let edits = rounds(&[split, fold, part, collect, fold, split, remap, back, fold, collect]);
    let guest = Geometry::stage_2(Granule::K4, 39, 40, Stage2::Base).unwrap();
    for bbm in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3] {
        for (geometry, half, asid) in [
            (setting(Granule::K4, bbm).geometry, Half::Low, Some(7)),
            (setting(Granule::K4, bbm).geometry, Half::High, None),
            (guest, Half::Low, None),
        ] {
            for seed in 1..=6 {
                let setting = Setting {
                    geometry,
                    half,
                    asid,
                    area_len: 4 * MIB,
                    range_invalidation: true,
                    updates: HardwareUpdates::AccessedAndDirty,
                    seed,
                    ..setting(Granule::K4, bbm)
                };
                assert_eq!(run(setting, &edits), edits.len());
            }
        }
    }
}

//! Frames run out at every request of every edit: a clean error, the tree unchanged bit for bit, no
//! frame lost.

use crate::world::{Done, Op, Setting, Who, World};
use linmap_live::{Change, Half, PlanError};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, HardwareUpdates, Level};

const MIB: u64 = 1 << 20;

fn edits(page: u64) -> Vec<Op> {
    let change = Change { access: Some(Access::KernelReadOnly), ..Change::default() };
    let attributes = Attributes::KERNEL_DATA;
    vec![
        Op::Protect { at: 5 * page, len: page, change },
        Op::Protect { at: MIB + page, len: 40 * MIB, change },
        Op::Unmap { at: 3 * MIB + page, len: 33 * MIB },
        Op::Split { at: 0, len: 64 * MIB, to: Level::L3 },
        Op::Split { at: 7 * MIB, len: page, to: Level::L3 },
        Op::Fold { at: 0, len: 64 * MIB },
        Op::Map {
            at: 128 * MIB + page,
            len: 70 * MIB,
            shift: 0,
            attributes,
            leaves: Leaves::ContiguousBlocks,
        },
        Op::Map { at: 128 * MIB, len: 64 * MIB, shift: page, attributes, leaves: Leaves::Pages },
    ]
}

/// Runs `op` with 0, 1, 2 … frames until it succeeds; gives how often it could not.
fn exhaust(setting: Setting, op: Op, who: Who) -> u64 {
    let attributes = Attributes::KERNEL_DATA;
    let initial = Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes, leaves: Leaves::ContiguousBlocks };
    let mut world = World::new(setting, &[initial], false);
    let before = world.words();
    for frames in 0.. {
        world.pool.0.borrow_mut().left = Some(frames);
        match world.apply(op, who, 0).unwrap() {
            Done::Applied => {
                world.agree().unwrap();
                return frames;
            }
            Done::Refused(error) => {
                assert!(matches!(error, PlanError::OutOfFrames(_)), "{op:?} with {frames} frames: {error}");
                assert_eq!(world.words(), before, "{op:?} with {frames} frames left a trace");
                world.agree().unwrap();
                assert_eq!(world.board.verdict(), Ok(()));
            }
        }
    }
    unreachable!("some number of frames suffices");
}

#[test]
fn frames_that_run_out_anywhere_leave_the_tree_as_it_was() {
    let mut failures = 0;
    for (granule, va_bits) in [(Granule::K4, 39), (Granule::K16, 36), (Granule::K64, 42)] {
        for (bbm, who) in [
            (BbmLevel::L3, Who::Anybody),
            (BbmLevel::L0, Who::Nobody),
            (BbmLevel::L2, Who::Nobody),
            (BbmLevel::L0, Who::Parked),
        ] {
            let geometry = Geometry::new(granule, va_bits, 48).unwrap();
            let setting = Setting {
                geometry,
                bbm,
                cpus: 2,
                half: Half::High,
                area_at: 1 << 34,
                area_len: 256 * MIB,
                frames: 120,
                own_window: false,
                window_leaves: Leaves::Pages,
                range_invalidation: true,
                asid: None,
                updates: HardwareUpdates::Off,
                seed: 0,
            };
            for op in edits(geometry.granule().bytes()) {
                failures += exhaust(setting, op, who);
            }
        }
    }
    println!("{failures} allocations failed");
    assert!(failures > 100, "{failures}");
}

#[test]
fn a_plan_longer_than_the_list_of_steps_changes_nothing() {
    let geometry = Geometry::new(Granule::K4, 39, 48).unwrap();
    let setting = Setting {
        geometry,
        bbm: BbmLevel::L3,
        cpus: 1,
        half: Half::Low,
        area_at: 1 << 34,
        area_len: 256 * MIB,
        frames: 120,
        own_window: false,
        window_leaves: Leaves::Pages,
        range_invalidation: false,
        asid: None,
        updates: HardwareUpdates::Off,
        seed: 0,
    };
    let attributes = Attributes::KERNEL_DATA;
    let initial = Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes, leaves: Leaves::ContiguousBlocks };
    for op in edits(0x1000) {
        let mut world = World::new(setting, &[initial], false);
        let before = world.words();
        for steps in 0.. {
            world.steps.truncate(0);
            world.steps.resize(steps, linmap_live::Step::Isb);
            match world.apply(op, Who::Anybody, 0).unwrap_or_else(|error| panic!("{steps} steps: {error}")) {
                Done::Applied => break,
                Done::Refused(error) => {
                    assert_eq!(error, PlanError::TooLong { capacity: steps });
                    assert_eq!(world.words(), before);
                }
            }
        }
        world.agree().unwrap();
    }
}

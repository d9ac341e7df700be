//! Contiguous runs of sixteen 1 GiB blocks, which linmap does not make: edits understand those of
//! others.

use linmap_live::{Change, Half, LiveTree};
use linmap_model::Event;
use linmap_model::event::{Access as Barrier, Domain, Tlbi, TlbiScope};
use linmap_table::{Leaves, TableWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, HardwareUpdates, Level};

use crate::world::{Done, Op, Setting, Who, World};

const GIB: u64 = 1 << 30;
const CONTIGUOUS: u64 = 1 << 52;
const RUN: usize = 16;

/// 32 GiB, the first half of which is a run; planned for CPUs of level `bbm`.
fn world(bbm: BbmLevel) -> World {
    let setting = Setting {
        geometry: Geometry::new(Granule::K4, 39, 48).unwrap(),
        bbm: BbmLevel::L3,
        cpus: 2,
        half: Half::High,
        area_at: RUN as u64 * GIB,
        area_len: 2 * RUN as u64 * GIB,
        frames: 64,
        own_window: false,
        window_leaves: Leaves::Pages,
        range_invalidation: false,
        asid: None,
        updates: HardwareUpdates::Off,
        seed: 0,
    };
    let attributes = Attributes::KERNEL_DATA;
    let all = Op::Map { at: 0, len: setting.area_len, shift: 0, attributes, leaves: Leaves::Blocks };
    let mut world = World::new(setting, &[all], true);
    let (root, mut window) = (world.tree.root(), world.board.window(0, None));
    // SAFETY: the window reaches the root, and these are sixteen of its entries.
    unsafe {
        let run = window.open(Level::L1, root).add(setting.geometry.index(setting.va(0), Level::L1));
        for nth in 0..RUN {
            run.add(nth).write(run.add(nth).read() | CONTIGUOUS);
        }
    }
    window.close(Level::L1);
    drop(window);
    let tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: true };
    for event in [
        Event::Dsb { cpu: 0, domain: Domain::Ish, access: Barrier::All },
        Event::Tlbi { cpu: 0, tlbi, operand: 0 },
        Event::Dsb { cpu: 0, domain: Domain::Ish, access: Barrier::All },
        Event::Isb { cpu: 0 },
        Event::Settled,
    ] {
        world.board.event(event);
    }
    world.board.verdict().unwrap();
    // SAFETY: as the value that it replaces.
    world.tree = unsafe { LiveTree::new(setting.geometry, root, setting.half, bbm) };
    world
}

fn of(access: Access) -> Change {
    Change { access: Some(access), execute: None, valid: None }
}

#[test]
fn edits_in_a_run_of_gigabytes_are_legal_and_leave_the_rest_of_it() {
    let read_only = of(Access::KernelReadOnly);
    let page = 5 * GIB + 0x3000;
    let ops = [
        Op::Protect { at: page, len: 0x1000, change: read_only },
        Op::Split { at: 7 * GIB, len: 2 << 20, to: Level::L3 },
        Op::Unmap { at: 9 * GIB, len: 4 * GIB },
        Op::Protect { at: 0, len: 16 * GIB, change: Change { valid: Some(false), ..Change::default() } },
        Op::Protect { at: 14 * GIB, len: 4 * GIB, change: read_only },
    ];
    for (bbm, who) in [
        (BbmLevel::L3, Who::Anybody),
        (BbmLevel::L3, Who::Retrying),
        (BbmLevel::L0, Who::Retrying),
        (BbmLevel::L0, Who::Nobody),
        (BbmLevel::L0, Who::Parked),
        (BbmLevel::L2, Who::Parked),
    ] {
        for op in ops {
            let mut world = world(bbm);
            assert_eq!(world.apply(op, who, 0), Ok(Done::Applied), "{bbm:?} {who:?} {op:?}");
            assert_eq!(world.walked(), world.plain.valid(), "{bbm:?} {who:?} {op:?}");
        }
    }
}

#[test]
fn a_run_of_gigabytes_in_use_is_not_split_below_level_3() {
    let mut world = world(BbmLevel::L2);
    let split = Op::Split { at: 3 * GIB, len: 2 << 20, to: Level::L3 };
    let before = world.walked();
    assert!(matches!(world.apply(split, Who::Anybody, 0), Ok(Done::Refused(_))));
    assert_eq!(world.walked(), before);
}

//! Changes of the linear map that fail: what must not be changed, a CPU that does not park, no
//! frames left at any request, plans that are too long. Each leaves every entry of every table as
//! it was, and every frame where it was.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use linmap::{ChangeError, MemoryError, ParkError, Protection};
use linmap_live::{Global, PlanError, Step};
use linmap_memblock::Memblock;
use linmap_model::Space;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, PaRange};

use crate::machine::op::{Op, Wrong};
use crate::machine::setting::{Setting, range};
use crate::machine::{REGIONS, Running};

const MIB: u64 = 1 << 20;

/// All that a failure must not change.
#[derive(PartialEq, Debug)]
struct Before {
    leaves: BTreeMap<u64, (u32, u64)>,
    tables: u64,
    frames: u64,
    memblock: Memblock<REGIONS>,
    global: Global,
}

impl Before {
    fn of(running: &Running) -> Self {
        let mut leaves = BTreeMap::new();
        let tables = running.board.with_machine(|machine| {
            let _: ControlFlow<()> = machine.leaves(0, Space::High, |va, _, shift, value, _| {
                leaves.insert(va, (shift, value));
                ControlFlow::Continue(())
            });
            machine.tables(0, Space::High)
        });
        let mut memblock = running.editor.memblock.copy().expect("lists that never grow");
        // Which free frames wait in the pool says nothing.
        let out = running.frames_out();
        let everywhere = PaRange::new(linmap_vmsa::Pa(0), memblock.memory_end());
        for reserved in memblock.reserved().to_vec() {
            if everywhere.covers(reserved) && !reserved.overlaps(running.setting.image) {
                memblock.free(reserved).expect("what is reserved");
            }
        }
        Self { leaves, tables, frames: out, memblock, global: running.map.global() }
    }
}

/// Makes the call, which has to fail, and looks whether anything is different.
fn fails(running: &mut Running, op: Op) -> MemoryError {
    let before = Before::of(running);
    let error = running.call(op).expect_err("a call that fails");
    let after = Before::of(running);
    assert_eq!(after.leaves, before.leaves, "{op:x?}: {error}");
    assert_eq!(after, before, "{op:x?}: {error}");
    running.agree().unwrap_or_else(|reason| panic!("{op:x?}: {error}: {reason}"));
    error
}

/// Makes the call, which has to succeed.
fn succeeds(running: &mut Running, op: Op) -> u64 {
    let changed = running.call(op).unwrap_or_else(|error| panic!("{op:x?}: {error}"));
    running.note(op);
    running.agree().unwrap_or_else(|reason| panic!("{op:x?}: {reason}"));
    changed.parked
}

#[test]
fn what_must_not_be_changed_is_refused_with_its_own_error() {
    const TOP: u64 = 1 << 47;
    let rw = Protection::ReadWrite;
    let add = |start, len| Op::Add(range(start, len));
    let remove = |start, len| Op::Remove(range(start, len));
    let protect = |start, len, protection| Op::Protect(range(start, len), protection);
    for bbm in [BbmLevel::L0, BbmLevel::L3] {
        let mut running = Running::new(&Setting::ragged().with_bbm(bbm), 1, false);
        for (op, wrong) in [
            (protect(0x4200_1000, 0, rw), Wrong::Unaligned),
            (protect(0x4200_1800, 0x1000, rw), Wrong::Unaligned),
            (Op::Split(range(0x4200_1000, 0x800), Level::L3), Wrong::Unaligned),
            (Op::Fold(range(TOP, 0x1000)), Wrong::OutOfReach),
            (protect(TOP - 0x1000, 0x2000, rw), Wrong::OutOfReach),
            (remove(TOP, 0x1000), Wrong::OutOfReach),
            (add(TOP - 0x1000, 0x2000), Wrong::OutOfReach),
            // Between regions, and where a region begins or ends within a page.
            (protect(0x8000, 0x3000, Protection::Invalid), Wrong::NotMemory(0x9000)),
            (protect(0x4000_0000, 0x3000, rw), Wrong::NotMemory(0x4000_0000)),
            (Op::MakeText(range(0x4000_1000, 0x1000)), Wrong::NotMemory(0x4000_1000)),
            (protect(0x4460_0000, 0x2000, rw), Wrong::NotMemory(0x4460_1c00)),
            (remove(0x4460_0000, 0x2000), Wrong::NotMemory(0x4460_1c00)),
            (Op::Fold(range(0x4460_0000, 0x8000)), Wrong::NotMemory(0x4460_1c00)),
            // What the firmware reserves, from a page's beginning or not.
            (protect(0x4123_3000, 0x2000, rw), Wrong::NoMap(0x4123_4000)),
            (Op::MakeText(range(0x4123_8000, 0x2000)), Wrong::NoMap(0x4123_8000)),
            (protect(0x41ff_f000, 0x2000, Protection::ReadOnly), Wrong::NoMap(0x4200_0800)),
            (remove(0x503f_f000, 0x2000), Wrong::NoMap(0x5040_0000)),
            (add(0x46f0_0000, 0x20_0000), Wrong::NoMap(0x4700_0000)),
            // The image.
            (protect(0x4040_0000, 0x1000, Protection::NoExecute), Wrong::ImageText),
            (protect(0x4047_f000, 0x2000, Protection::Valid), Wrong::ImageText),
            (protect(0x405b_2000, 0x2000, Protection::ReadOnly), Wrong::PartlyImage),
            (Op::MakeText(range(0x405b_2000, 0x2000)), Wrong::ImageText),
            (Op::MakeData(range(0x405b_2000, 0x2000)), Wrong::ImageText),
            (remove(0x405b_2000, 0x2000), Wrong::InUse),
            (add(0x4200_1000, 0x1000), Wrong::Present),
            (add(0x4000_0000, 0x2000), Wrong::Present),
        ] {
            assert_eq!(running.wrong(op), [wrong], "{op:x?}");
            assert_eq!(Wrong::of(&fails(&mut running, op)), wrong, "{op:x?}");
        }
        // What is to be written must not be executable, whatever it was split from, and valid or
        // not.
        let text = range(0x4210_0000, 0x1000);
        succeeds(&mut running, Op::MakeText(text));
        for range in [text, range(0x420f_f000, 0x3000)] {
            let error = Wrong::of(&fails(&mut running, Op::Protect(range, rw)));
            assert_eq!(error, Wrong::WritableAndExecutable);
        }
        succeeds(&mut running, Op::Protect(text, Protection::Invalid));
        assert_eq!(Wrong::of(&fails(&mut running, Op::Protect(text, rw))), Wrong::WritableAndExecutable);
        // One call that changes all permissions at once is allowed.
        succeeds(&mut running, Op::MakeData(text));
    }
}

/// Calls that park below level 3, and where from.
fn parked_calls() -> [(Setting, &'static [Op]); 3] {
    const JOINED: &[Op] = &[
        Op::Protect(range(0x4123_4000, 0x5000), Protection::ReadOnly),
        Op::Protect(range(0x4180_0000, 0x1000), Protection::Invalid),
        Op::MakeText(range(0x4200_0000, 0x1000)),
        Op::Split(range(0x4000_0000, 64 * MIB), Level::L3),
        Op::Remove(range(0x4400_1000, 0x3000)),
        Op::Global(Global::NonGlobal),
    ];
    const LARGE: &[Op] = &[
        Op::Protect(range(0xc000_1000, 0x1000), Protection::ReadOnly),
        Op::Split(range(0xc800_0000, MIB), Level::L2),
        Op::Remove(range(0xd000_0000, 0x1000)),
    ];
    [
        (Setting::joined().with_bbm(BbmLevel::L0), JOINED),
        (Setting::joined().with_bbm(BbmLevel::L2), JOINED),
        (Setting::large().with_bbm(BbmLevel::L1), LARGE),
    ]
}

#[test]
fn a_cpu_that_does_not_park_stops_every_change_that_parks() {
    for (setting, ops) in parked_calls() {
        let setting = Setting { cpus: 3, ..setting };
        let ops = ops.iter().copied().chain([Op::Repaint]);
        for stubborn in [1, 2] {
            let mut running = Running::new(&setting, 1, false);
            for op in ops.clone() {
                running.editor.stubborn = Some(stubborn);
                let error = fails(&mut running, op);
                let park = matches!(
                    error,
                    MemoryError::Change(ChangeError::Park(ParkError { cpu, .. })) if cpu == stubborn
                );
                assert!(park, "{op:x?}: {error}");
            }
            // And they all go when it does.
            running.editor.stubborn = None;
            for op in ops.clone() {
                assert!(succeeds(&mut running, op) > 0, "{op:x?} parks");
            }
        }
    }
}

#[test]
fn a_fold_that_cannot_park_is_an_error_and_changes_nothing() {
    let mut running = Running::new(&Setting::joined().with_bbm(BbmLevel::L2), 1, false);
    let split = Op::Split(range(0x4100_0000, 4 * MIB), Level::L3);
    succeeds(&mut running, split);
    running.editor.stubborn = Some(1);
    let fold = Op::Fold(range(0x4100_0000, 4 * MIB));
    assert!(matches!(fails(&mut running, fold), MemoryError::Change(ChangeError::Park(_))));
    running.editor.stubborn = None;
    assert_eq!(succeeds(&mut running, fold), 1);
}

/// Calls that take frames, and where from.
fn calls_with_tables() -> Vec<(Setting, &'static [Op])> {
    const JOINED: &[Op] = &[
        Op::Protect(range(0x4123_4000, 0x5000), Protection::ReadOnly),
        Op::Protect(range(0x41ff_f000, 32 * MIB + 0x2000), Protection::Invalid),
        Op::MakeText(range(0x4500_1000, 0x1000)),
        Op::Split(range(0x4480_0000, 16 * MIB), Level::L3),
        Op::Add(range(0x4800_3000, 5 * MIB)),
        Op::Remove(range(0x4600_1000, 7 * MIB)),
        Op::Repaint,
    ];
    const LARGE: &[Op] = &[
        Op::Protect(range(0xbfff_f000, 0x2000), Protection::ReadOnly),
        Op::Add(range(0x4060_0000, 100 * MIB)),
        Op::Remove(range(0xf000_0000, 0x1000)),
    ];
    let mut calls = Vec::new();
    for bbm in [BbmLevel::L0, BbmLevel::L3] {
        calls.push((Setting::joined().with_bbm(bbm), JOINED));
        calls.push((Setting::large().with_bbm(bbm), LARGE));
    }
    calls
}

#[test]
fn running_out_of_frames_at_any_request_changes_nothing() {
    let mut failed = 0;
    for (setting, ops) in calls_with_tables() {
        let mut running = Running::new(&setting, 1, false);
        for op in ops.iter().copied() {
            let before = Before::of(&running);
            for left in 0.. {
                running.editor.left = Some(left);
                let Err(error) = running.call(op) else { break };
                let frames =
                    matches!(error, MemoryError::Change(ChangeError::Plan(PlanError::OutOfFrames(_))));
                assert!(frames, "{op:x?} with {left} frames: {error}");
                assert_eq!(Before::of(&running), before, "{op:x?} with {left} frames");
                running.agree().unwrap_or_else(|reason| panic!("{op:x?} with {left} frames: {reason}"));
                failed += 1;
            }
            running.editor.left = None;
            running.note(op);
            running.agree().unwrap_or_else(|reason| panic!("{op:x?}: {reason}"));
        }
    }
    assert!(failed > 60, "{failed} failures tried");
}

#[test]
fn a_plan_that_is_too_long_changes_nothing() {
    for (setting, ops) in parked_calls().into_iter().chain(calls_with_tables()) {
        let mut running = Running::new(&setting, 1, false);
        for op in ops.iter().copied() {
            let mut room = 0;
            loop {
                running.steps = vec![Step::Isb; room];
                // What is split or folded in parts may need no more than this.
                let before = Before::of(&running);
                match running.call(op) {
                    Ok(_) => break,
                    Err(MemoryError::Change(ChangeError::Plan(PlanError::TooLong { capacity }))) => {
                        assert_eq!(capacity, room);
                        if op != Op::Repaint {
                            assert_eq!(Before::of(&running), before, "{op:x?} with {room} steps");
                        }
                    }
                    Err(error) => panic!("{op:x?} with {room} steps: {error}"),
                }
                running.agree().unwrap_or_else(|reason| panic!("{op:x?} with {room} steps: {reason}"));
                // Every number of steps while they are few.
                room += 1 + room / 8;
            }
            running.note(op);
            running.agree().unwrap_or_else(|reason| panic!("{op:x?}: {reason}"));
        }
    }
}

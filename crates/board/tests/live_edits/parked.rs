//! Parked edits on the machine: legal at every BBM level when every CPU has left the tree, and
//! found when one has not, or has left something in its TLB.

use crate::recorded::{MIB, Recorded, is_tlbi, mapped, moved, record, setting, without};
use crate::world::{Done, Op, Setting, Who, World};
use linmap_live::{Change, Global, Invalidation, Reach, Step, Target};
use linmap_model::event::{Access as Barrier, Domain, Register};
use linmap_model::{Event, Rule};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Granule, Level};

const LEVELS: [BbmLevel; 4] = [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3];

fn split() -> Op {
    Op::Split { at: 2 * MIB, len: 2 * MIB, to: Level::L3 }
}

/// A block becomes a table of pages at level 0.
fn parked_split() -> Recorded {
    record(setting(Granule::K4, BbmLevel::L0), mapped(Leaves::Blocks), &[split()], Who::Parked)
}

/// And a block again.
fn parked_fold() -> Recorded {
    let fold = Op::Fold { at: 2 * MIB, len: 2 * MIB };
    record(setting(Granule::K4, BbmLevel::L0), mapped(Leaves::Blocks), &[split(), fold], Who::Parked)
}

/// A page of a contiguous run becomes read-only at level 0.
fn parked_run() -> Recorded {
    let split = Op::Split { at: 2 * MIB, len: 2 * MIB, to: Level::L2 };
    let access = Some(Access::KernelReadOnly);
    let protect = Op::Protect { at: 0, len: 32 * MIB, change: Change { access, execute: None, valid: None } };
    let fold = Op::Fold { at: 0, len: 32 * MIB };
    record(
        setting(Granule::K4, BbmLevel::L0),
        mapped(Leaves::ContiguousBlocks),
        &[split, fold, protect],
        Who::Parked,
    )
}

/// All leaves become non-global, and then global, which is break-before-make at every level.
fn parked_global() -> Recorded {
    let all = |global| Op::Global { at: 0, len: 64 * MIB, global };
    let ops = [all(Global::NonGlobal), all(Global::Global)];
    record(setting(Granule::K4, BbmLevel::L3), mapped(Leaves::ContiguousBlocks), &ops, Who::Parked)
}

fn cpu_of(event: &Event) -> Option<usize> {
    match *event {
        Event::Write { cpu, .. } | Event::Isb { cpu } | Event::Tlbi { cpu, .. } | Event::Dsb { cpu, .. } => {
            Some(cpu)
        }
        _ => None,
    }
}

fn is_root(event: &Event) -> bool {
    matches!(event, Event::Write { register: Register::Ttbr0 | Register::Ttbr1, .. })
}

fn of_other(event: &Event) -> bool {
    cpu_of(event) == Some(1)
}

/// Where the other CPU's leaving begins, and where its coming back does.
fn leaving(events: &[Event]) -> (usize, usize) {
    let mut roots = (0..events.len()).filter(|at| of_other(&events[*at]) && is_root(&events[*at]));
    (roots.next().unwrap(), roots.next().unwrap())
}

fn not_left(events: &[Event]) -> Vec<Event> {
    events.iter().copied().filter(|event| !of_other(event)).collect()
}

fn without_tlbi(events: &[Event]) -> Vec<Event> {
    without(events, events.iter().position(|event| of_other(event) && is_tlbi(event)).unwrap())
}

fn without_dsb(events: &[Event]) -> Vec<Event> {
    let dsb = |event: &Event| of_other(event) && matches!(event, Event::Dsb { .. });
    without(events, events.iter().position(dsb).unwrap())
}

/// The ISB between the write of the TTBR and the TLBI.
fn without_isb(events: &[Event]) -> Vec<Event> {
    without(events, leaving(events).0 + 1)
}

/// The ISB after the DSB that ends the TLBI.
fn without_isb_behind_dsb(events: &[Event]) -> Vec<Event> {
    let dsb = |event: &Event| of_other(event) && matches!(event, Event::Dsb { .. });
    let behind = events.iter().position(dsb).unwrap() + 1;
    assert!(of_other(&events[behind]) && matches!(events[behind], Event::Isb { .. }));
    without(events, behind)
}

/// The other CPU returns to the tree before the first store to it.
fn back_early(events: &[Event]) -> Vec<Event> {
    let (left, back) = leaving(events);
    let is_store = |at: &usize| matches!(events[*at], Event::Store { .. });
    let store = (left..back).find(is_store).unwrap();
    let events = moved(events, back + 1, store);
    moved(&events, back + 1, store)
}

/// No barrier after the last store.
fn unordered(events: &[Event]) -> Vec<Event> {
    let store = events.iter().rposition(|event| matches!(event, Event::Store { .. })).unwrap();
    let dsb = |event: &Event| matches!(event, Event::Dsb { .. });
    events.iter().enumerate().filter(|(at, event)| *at < store || !dsb(event)).map(|(_, e)| *e).collect()
}

type Mistake = (&'static str, fn(&[Event]) -> Vec<Event>);

const MISTAKES: &[Mistake] = &[
    ("a CPU has not left", not_left),
    ("a CPU has left without a TLBI", without_tlbi),
    ("a CPU has left without the DSB behind its TLBI", without_dsb),
    ("a CPU has left without the ISB before its TLBI", without_isb),
    ("a CPU has left without the ISB behind its DSB", without_isb_behind_dsb),
    ("a CPU is back before the first store", back_early),
];

#[test]
fn a_cpu_that_is_not_parked_is_found_under_every_kind_of_edit() {
    let edits: [(fn() -> Recorded, Rule); 4] = [
        (parked_split, Rule::Size),
        (parked_fold, Rule::Size),
        (parked_run, Rule::Contiguous),
        (parked_global, Rule::Global),
    ];
    for (recorded, rule) in edits {
        let mut recorded = recorded();
        // The new tables are ordered, so the walker is the only mistake.
        let left = recorded.edit.iter().position(is_root).unwrap();
        recorded.edit.insert(left, Event::Dsb { cpu: 0, domain: Domain::Ish, access: Barrier::Stores });
        for (what, mistake) in MISTAKES {
            let edit = mistake(&recorded.edit);
            assert_ne!(edit, recorded.edit);
            match recorded.verdict(&edit) {
                Ok(()) => panic!("{rule:?}: {what}: not found"),
                Err(violation) => assert_eq!((violation.rule, violation.cpu), (rule, Some(1)), "{what}"),
            }
        }
    }
    // The new table may not have arrived where the CPUs that come back walk.
    let recorded = parked_split();
    assert!(recorded.verdict(&unordered(&recorded.edit)).is_err());
}

fn settings() -> impl Iterator<Item = Setting> {
    [Granule::K4, Granule::K16, Granule::K64]
        .into_iter()
        .flat_map(|granule| LEVELS.map(|bbm| setting(granule, bbm)))
        .flat_map(|setting| [1, 3].map(|cpus| Setting { cpus, ..setting }))
}

/// Every CPU looks at the beginning, the middle and the end of the area.
fn look(world: &World) {
    for cpu in 0..world.setting.cpus {
        for place in [0, 33 * MIB + 0x4000, 64 * MIB - 0x1_0000] {
            world.probe(cpu, place).unwrap();
        }
    }
}

#[test]
fn every_edit_of_a_parked_tree_is_legal_at_every_level() {
    for setting in settings() {
        let setting = Setting { frames: 120, ..setting };
        let page = setting.geometry.granule().bytes();
        let mut world = World::new(setting, &[mapped(Leaves::ContiguousBlocks)], false);
        let change = |access| Change { access: Some(access), execute: None, valid: None };
        let ops = [
            Op::Split { at: 0, len: 64 * MIB, to: Level::L3 },
            Op::Protect { at: 5 * page, len: 3 * page, change: change(Access::KernelReadOnly) },
            Op::Fold { at: 0, len: 64 * MIB },
            Op::Protect { at: 0, len: 33 * MIB, change: change(Access::KernelReadOnly) },
            Op::Protect { at: 0, len: 64 * MIB, change: change(Access::KernelReadWrite) },
            Op::Fold { at: 0, len: 64 * MIB },
            Op::Unmap { at: 33 * MIB, len: 7 * MIB + page },
        ];
        for op in ops {
            look(&world);
            assert_eq!(world.apply(op, Who::Parked, 0), Ok(Done::Applied), "{setting:?}");
            look(&world);
            world.agree().unwrap();
        }
    }
}

#[test]
fn leaves_become_global_and_back_at_every_level_however_they_were_cached() {
    for setting in settings() {
        let page = setting.geometry.granule().bytes();
        let half = Op::Map {
            at: 0,
            len: 32 * MIB,
            shift: 0,
            attributes: Attributes { global: false, ..Attributes::KERNEL_DATA },
            leaves: Leaves::ContiguousBlocks,
        };
        let pages = Op::Map {
            at: 32 * MIB,
            len: 32 * MIB,
            shift: page,
            attributes: Attributes::KERNEL_RODATA,
            leaves: Leaves::Pages,
        };
        let mut world = World::new(setting, &[half, pages], false);
        let all = |global| Op::Global { at: 0, len: 64 * MIB, global };
        // A part of a block, so that it is split.
        let part = Op::Global { at: 3 * page, len: 35 * MIB, global: Global::Global };
        for op in [part, all(Global::NonGlobal), all(Global::Global), all(Global::Global)] {
            look(&world);
            assert_eq!(world.apply(op, Who::Parked, 0), Ok(Done::Applied), "{setting:?}");
            look(&world);
            world.agree().unwrap();
        }
        assert!(world.plain.valid().iter().all(|(_, part)| part.attributes.global));
    }
}

#[test]
fn the_plan_for_a_parked_tree_is_found_where_it_is_walked() {
    // Applies what our check would refuse, as if a caller had broken its promise.
    for (bbm, op) in [
        (BbmLevel::L0, split()),
        (BbmLevel::L2, split()),
        (BbmLevel::L3, Op::Global { at: 0, len: 64 * MIB, global: Global::Global }),
    ] {
        let attributes = Attributes { global: false, ..Attributes::KERNEL_DATA };
        let initial =
            Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes, leaves: Leaves::ContiguousBlocks };
        let recorded = record(setting(Granule::K4, bbm), initial, &[op], Who::Parked);
        // Only the editor left.
        let verdict = recorded.verdict(&not_left(&recorded.edit));
        assert!(verdict.is_err(), "{bbm:?} {op:?}");
    }
}

#[test]
fn a_plan_without_its_closing_sequence_is_refused() {
    let mut world = World::new(setting(Granule::K4, BbmLevel::L3), &[mapped(Leaves::Blocks)], false);
    let all = |global| Op::Global { at: 0, len: 64 * MIB, global };
    for op in [split(), all(Global::NonGlobal)] {
        let target = world.target(op, Who::Parked);
        let Target::Parked(parked) = target else { panic!("{target:?}") };
        let (mut window, mut frames) = (world.window(0), world.frames());
        let (at, len) = op.range();
        let va = world.setting.va(at);
        let World { tree, steps, .. } = &mut world;
        let plan = match op {
            Op::Split { to, .. } => tree.plan_split(target, to, steps, &mut window, &mut frames),
            _ => tree.plan_global(parked, Global::NonGlobal, steps, &mut window, &mut frames),
        }
        .unwrap();
        let steps = plan.steps().to_vec();
        // A frame that is freed loses its content; this test needs the new tables.
        drop(plan);
        // SAFETY: the plan's tables are on the board, as below.
        assert_eq!(unsafe { tree.check(target, &steps, &mut window) }, Ok(()));
        assert_eq!(steps.len(), 5, "one store or change, and the closing sequence");
        for missing in 1..5 {
            let mut without = steps.clone();
            without.remove(missing);
            // SAFETY: as above.
            let checked = unsafe { tree.check(target, &without, &mut window) };
            assert!(checked.is_err(), "without {}", steps[missing]);
        }
        // Any smaller invalidation is refused.
        let mut smaller = steps.clone();
        smaller[2] = Step::Invalidate(Invalidation::ByVa {
            va,
            count: (len >> 12) as u32,
            shift: 12,
            reach: Reach::AllLevels,
        });
        // SAFETY: as above.
        assert!(unsafe { tree.check(target, &smaller, &mut window) }.is_err());
    }
}

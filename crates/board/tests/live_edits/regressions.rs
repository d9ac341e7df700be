//! Mistakes that others have shipped: the machine refuses each, and accepts what linmap does
//! instead.

use crate::world::{Done, Op, Setting, Who, World};
use linmap_live::{Change, Edit, Half, PlanError, Step, Store};
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Machine, Rule, Violation};
use linmap_table::Leaves;
use linmap_table::cpu::Dsb;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Attributes, Descriptor, Geometry, Granule, HardwareUpdates, Level, Pa};

const MIB: u64 = 1 << 20;

fn setting(bbm: BbmLevel) -> Setting {
    Setting {
        geometry: Geometry::new(Granule::K4, 39, 48).unwrap(),
        bbm,
        cpus: 2,
        half: Half::High,
        area_at: 1 << 34,
        area_len: 64 * MIB,
        // One whole block of them.
        frames: 512,
        own_window: false,
        window_leaves: Leaves::Blocks,
        range_invalidation: false,
        asid: None,
        updates: HardwareUpdates::Off,
        seed: 0,
    }
}

fn world(setting: Setting) -> World {
    let attributes = Attributes::KERNEL_DATA;
    let initial = Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes, leaves: Leaves::Blocks };
    World::new(setting, &[initial], true)
}

const READ_ONLY: Change =
    Change { access: Some(linmap_vmsa::Access::KernelReadOnly), execute: None, valid: None };

/// Gives the events of the last edit, changed by `spoil`, to the machine as it was before the edit.
fn spoilt(world: &World, from: usize, spoil: impl Fn(&mut Vec<Event>)) -> Result<(), Violation> {
    let trace = world.board.trace().unwrap();
    let mut machine = Machine::new(&trace.config).unwrap();
    for event in &trace.events[..from] {
        machine.step(event).unwrap();
    }
    let mut edit = trace.events[from..].to_vec();
    spoil(&mut edit);
    edit.iter().try_for_each(|event| machine.step(event))
}

fn events(world: &World) -> usize {
    world.board.trace().unwrap().events.len()
}

/// Does the edit and gives the machine's verdict on it with `spoil`.
fn instead(bbm: BbmLevel, op: Op, who: Who, spoil: impl Fn(&mut Vec<Event>)) -> Rule {
    let mut world = world(setting(bbm));
    let from = events(&world);
    assert_eq!(world.apply(op, who, 0), Ok(Done::Applied));
    spoilt(&world, from, spoil).expect_err("the mistake").rule
}

const PAGE: Op = Op::Protect { at: 4 * MIB, len: 2 * MIB, change: READ_ONLY };

#[test]
fn no_dsb_before_the_tlbi() {
    // page_table_multiarch 0.6.2 on AArch64: TLBI VAAE1IS, DSB SY, ISB, and nothing between the
    // store and the TLBI.
    let rule = instead(BbmLevel::L0, PAGE, Who::Anybody, |edit| {
        let dsb = edit.iter().position(|event| matches!(event, Event::Dsb { .. }));
        edit.remove(dsb.unwrap());
    });
    assert_eq!(rule, Rule::StaleTranslation);
}

#[test]
fn local_invalidation_on_several_cpus() {
    // page_table_multiarch's full flush, tgoskits 2008, zephyr 98344: VMALLE1, although all CPUs
    // may hold the translations.
    let rule = instead(BbmLevel::L0, PAGE, Who::Anybody, |edit| {
        for event in edit {
            if let Event::Tlbi { tlbi, operand, .. } = event {
                (*tlbi, *operand) = (Tlbi { scope: TlbiScope::AllEl1, broadcast: false }, 0);
            }
        }
    });
    assert_eq!(rule, Rule::StaleTranslation);
}

#[test]
fn the_tlbi_operand_shifted_by_the_granule() {
    // zephyr 115712: VA[55:12] for every granule, and not the page's number.
    let k16 = Setting {
        geometry: Geometry::new(Granule::K16, 36, 48).unwrap(),
        frames: 64,
        window_leaves: Leaves::Pages,
        ..setting(BbmLevel::L0)
    };
    let attributes = Attributes::KERNEL_DATA;
    let initial = Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes, leaves: Leaves::Pages };
    let mut world = World::new(k16, &[initial], true);
    let from = events(&world);
    let page = Op::Protect { at: 0x4000, len: 0x4000, change: READ_ONLY };
    assert_eq!(world.apply(page, Who::Anybody, 0), Ok(Done::Applied));
    let verdict = spoilt(&world, from, |edit| {
        for event in edit {
            if let Event::Tlbi { operand, .. } = event {
                *operand = (k16.va(0x4000).0 >> 14) & 0xfff_ffff_ffff;
            }
        }
    });
    assert_eq!(verdict.unwrap_err().rule, Rule::StaleTranslation);
}

#[test]
fn a_tlbi_operand_whose_address_spills_into_the_level_hint() {
    // aarch64-paging before 0.12.3: the address was shifted and not masked, so that ones of a high
    // address became TTL.
    let rule = instead(BbmLevel::L0, PAGE, Who::Anybody, |edit| {
        for event in edit {
            if let Event::Tlbi { operand, .. } = event {
                *operand |= 0xf << 44;
            }
        }
    });
    assert_eq!(rule, Rule::StaleTranslation);
}

#[test]
fn a_split_that_unmaps_its_own_table() {
    // Scarlet 560: break-before-make of the block of the direct map in which the table being
    // written lies.
    for bbm in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2] {
        let mut world = world(Setting { own_window: true, ..setting(bbm) });
        let at = world.setting.window();
        let split = Op::Split { at, len: 0x1000, to: Level::L3 };
        assert!(matches!(
            world.apply(split, Who::Anybody, 0),
            Ok(Done::Refused(PlanError::NeedsLevel3 { .. }))
        ));
        // As if no CPU accessed the range: the machine sees that the editor does.
        let error = world.apply(split, Who::Nobody, 0).unwrap_err();
        let expected = if bbm == BbmLevel::L2 { Rule::MayAbort } else { Rule::MayFault };
        assert_eq!(world.board.verdict().unwrap_err().rule, expected, "{error}");
    }
    let mut world = world(Setting { own_window: true, ..setting(BbmLevel::L3) });
    let at = world.setting.window();
    assert_eq!(world.apply(Op::Split { at, len: 0x1000, to: Level::L3 }, Who::Anybody, 0), Ok(Done::Applied));
}

#[test]
fn a_split_within_the_split_that_allocates_for_it() {
    // edk2 12391: the allocation of the new table splits the same block, and the outer split stores
    // its own table over that of the inner one. Here a plan borrows the tree and has its frames
    // before it stores, so an inner split cannot happen.
    let split = Op::Split { at: 4 * MIB, len: 2 * MIB, to: Level::L3 };
    for bbm in [BbmLevel::L2, BbmLevel::L3] {
        let rule = instead(bbm, split, Who::Nobody, |edit| {
            let spare = 0x1_0000_0000 + 500 * 0x1000;
            let link = edit.iter().rposition(|event| match event {
                Event::Store { value, .. } | Event::Fill { first: value, .. } => value & 0xfff == 3,
                _ => false,
            });
            let link = link.unwrap();
            let (Event::Store { pa, .. } | Event::Fill { pa, .. }) = edit[link] else { unreachable!() };
            let first = Descriptor::page(Geometry::K4_48, Pa(0x40_0040_0000), Attributes::KERNEL_DATA);
            let outer = [
                Event::Fill { cpu: 0, pa: spare, count: 512, first: first.0, step: 0x1000 },
                Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores },
                Event::Store { cpu: 0, pa, value: spare | 3, via: None },
            ];
            edit.splice(link + 1..link + 1, outer);
        });
        assert_eq!(rule, Rule::NextTable);
    }
}

#[test]
fn a_dry_run_that_an_updater_slips_past() {
    // aarch64-paging 0.12.3: the dry run sees an updater that changes nothing, and the live block
    // is split by one store.
    let rule =
        instead(BbmLevel::L0, Op::Split { at: 4 * MIB, len: 2 * MIB, to: Level::L3 }, Who::Nobody, |edit| {
            // The link alone, without break, invalidation and make.
            let link = edit.iter().rposition(|event| match event {
                Event::Store { value, .. } | Event::Fill { first: value, .. } => value & 0xfff == 3,
                _ => false,
            });
            let link = edit[link.unwrap()];
            edit.retain(|event| match event {
                Event::Store { .. } | Event::Fill { .. } => true,
                event => *event == link || matches!(event, Event::Dsb { .. }),
            });
            edit.retain(|event| !matches!(event, Event::Tlbi { .. }));
            edit.retain(|event| !matches!(event, Event::Store { value: 0, .. }));
            edit.retain(|event| !matches!(event, Event::Fill { first, .. } if first & 1 == 0));
        });
    assert_eq!(rule, Rule::Size);
    // Our check judges the stores themselves, not what their author claims.
    let world = world(setting(BbmLevel::L0));
    let target = world.target(Op::Fold { at: 4 * MIB, len: 2 * MIB }, Who::Nobody);
    let va = world.setting.va(4 * MIB);
    let mut window = world.board.window(0, None);
    let table = Pa(world
        .words()
        .into_iter()
        .find(|(_, value)| value & 3 == 1 && *value << 12 >> 33 == 0x40_0040_0000 >> 21)
        .unwrap()
        .0
        & !0xfff);
    let geometry = world.setting.geometry;
    let store = Store {
        va,
        table,
        level: Level::L2,
        index: geometry.index(va, Level::L2) as u16,
        count: 1,
        edit: Edit::Write { first: Descriptor::table(geometry, Pa(0x1_0000_0000 + 500 * 0x1000)), step: 0 },
    };
    let steps = [Step::Dsb(Dsb::Ishst), Step::Store(store), Step::Dsb(Dsb::Ishst), Step::Isb];
    // SAFETY: the table that the store links lies on the board.
    let refused = unsafe { world.tree.check(target, &steps, &mut window) };
    let refused = refused.expect_err("a split by one store");
    println!("{refused}");
}

#[test]
fn only_the_ipa_is_invalidated_at_stage_2() {
    // aarch64-paging 0.12.3: TLBI IPAS2E1IS without the VMALLE1IS that removes what combines both
    // stages. linmap has no stage 2; the model has it for kernels that do.
    let ram = vec![(0x4000_0000, 0x1_0000)];
    let config = Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits: 39,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let dsb = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All };
    let store = |pa, value| Event::Store { cpu: 0, pa, value, via: None };
    let tlbi = |scope| Event::Tlbi { cpu: 0, tlbi: Tlbi { scope, broadcast: true }, operand: 0 };
    let remap = |tlbis: &[TlbiScope]| {
        let mut machine = Machine::new(&config).unwrap();
        let mut events: Vec<Event> = (0..3)
            .map(|nth| Event::Fill { cpu: 0, pa: 0x4000_0000 + nth * 0x1000, count: 512, first: 0, step: 0 })
            .collect();
        events.extend([store(0x4000_0000, 0x4000_1003), store(0x4000_1000, 0x4000_2003)]);
        events.extend([store(0x4000_2000, 0x8000_07ff), dsb]);
        events.push(Event::Write { cpu: 0, register: Register::Vttbr, value: 0x4000_0000 });
        events.extend([Event::Isb { cpu: 0 }, store(0x4000_2000, 0), dsb]);
        for scope in tlbis {
            events.extend([tlbi(*scope), dsb]);
        }
        events.extend([store(0x4000_2000, 0x9000_07ff), dsb, Event::Isb { cpu: 0 }, Event::Settled]);
        events.push(Event::Access { cpu: 0, va: 0, kind: Use::Read, pa: 0x9000_0000 });
        events.iter().try_for_each(|event| machine.step(event))
    };
    assert_eq!(remap(&[TlbiScope::Ipa]).unwrap_err().rule, Rule::OutputAddress);
    assert_eq!(remap(&[TlbiScope::Ipa, TlbiScope::AllEl1]), Ok(()));
}

#[test]
fn a_misaligned_contiguous_run() {
    let setting = Setting { window_leaves: Leaves::Pages, ..setting(BbmLevel::L0) };
    let attributes = Attributes::KERNEL_DATA;
    let map = |shift| Op::Map { at: 0, len: MIB, shift, attributes, leaves: Leaves::ContiguousBlocks };
    // Ours leaves the bit out where the address does not fit.
    for shift in [0, 0x1000, 0x8000] {
        let mut world = World::new(setting, &[], true);
        let from = events(&world);
        assert_eq!(world.apply(map(shift), Who::Anybody, 0), Ok(Done::Applied));
        world.agree().unwrap();
        if shift != 0 {
            let verdict = spoilt(&world, from, |edit| {
                for event in edit {
                    if let Event::Store { value, .. } | Event::Fill { first: value, .. } = event
                        && *value & 0x403 == 0x403
                    {
                        *value |= 1 << 52;
                    }
                }
            });
            assert_eq!(verdict.unwrap_err().rule, Rule::MisalignedRun);
        }
    }
}

#[test]
fn a_table_freed_while_walks_may_go_through_it() {
    // aarch64-paging before 0.12.3: last-level invalidation, and walk caches that still lead to the
    // freed table.
    let fold = Op::Fold { at: 4 * MIB, len: 2 * MIB };
    let mut world = world(setting(BbmLevel::L3));
    world.apply(Op::Split { at: 4 * MIB, len: 2 * MIB, to: Level::L3 }, Who::Anybody, 0).unwrap();
    let from = events(&world);
    assert_eq!(world.apply(fold, Who::Anybody, 0), Ok(Done::Applied));
    let verdict = spoilt(&world, from, |edit| {
        for event in edit {
            if let Event::Tlbi { tlbi, .. } = event {
                tlbi.scope = match tlbi.scope {
                    TlbiScope::VaAnyAsid => TlbiScope::VaAnyAsidLast,
                    other => other,
                };
            }
        }
    });
    assert_eq!(verdict.unwrap_err().rule, Rule::TableReachable);
}

#[test]
fn a_table_published_before_it_is_filled() {
    let split = Op::Split { at: 4 * MIB, len: 2 * MIB, to: Level::L3 };
    let rule = instead(BbmLevel::L3, split, Who::Anybody, |edit| {
        let link = edit.iter().rposition(|event| match event {
            Event::Store { value, .. } | Event::Fill { first: value, .. } => value & 0xfff == 3,
            _ => false,
        });
        let link = edit.remove(link.unwrap());
        edit.insert(0, link);
    });
    assert_eq!(rule, Rule::UnknownEntry);
}

#[test]
fn a_break_without_an_invalidation() {
    let split = Op::Split { at: 4 * MIB, len: 2 * MIB, to: Level::L3 };
    let rule = instead(BbmLevel::L0, split, Who::Nobody, |edit| {
        edit.retain(|event| !matches!(event, Event::Tlbi { .. }));
    });
    assert_eq!(rule, Rule::Size);
}

#[test]
fn a_page_mapped_without_the_barriers_of_another_cpu() {
    // A new page is read by another CPU: the DSB is the editor's, the context synchronization the
    // reader's own.
    let mut world = world(setting(BbmLevel::L0));
    world.apply(Op::Unmap { at: 0, len: 2 * MIB }, Who::Anybody, 0).unwrap();
    let attributes = Attributes::KERNEL_DATA;
    let map = Op::Map { at: 0, len: 2 * MIB, shift: 0, attributes, leaves: Leaves::Blocks };
    assert_eq!(world.apply(map, Who::Anybody, 0), Ok(Done::Applied));
    world.probe(1, 0x1234).unwrap();
    let (va, pa) = (world.setting.va(0).0, crate::world::AREA_PA);
    world.apply(Op::Unmap { at: 0, len: 2 * MIB }, Who::Anybody, 0).unwrap();
    assert_eq!(world.apply(map, Who::Anybody, 0), Ok(Done::Applied));
    world.board.event(Event::Access { cpu: 1, va, kind: Use::Read, pa });
    assert_eq!(world.board.verdict().unwrap_err().rule, Rule::NoIsb);
}

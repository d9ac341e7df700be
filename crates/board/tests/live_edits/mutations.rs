//! Deliberate mistakes in real plans, one at a time: the machine finds every one.
//!
//! Each plan is made, checked and applied on the machine and recorded; then its events are replayed
//! with one change, and with what software does afterwards: it relies on the edit, and every CPU
//! looks at both sides of it.

use crate::recorded::{
    MIB, Recorded, is_dsb, is_free, is_isb, is_tlbi, mapped, moved, read_only, record, setting, without,
};
use crate::world::{Op, Setting, Who};
use linmap_model::Event;
use linmap_model::event::{Access as Barrier, Domain, TlbiScope};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, HardwareUpdates, Level};

const CONTIGUOUS: u64 = 1 << 52;

/// A page of a 2 MiB block becomes read-only at level 3: split, link, protect, invalidate.
fn split() -> Recorded {
    let page = read_only(2 * MIB + 0x5000, 0x1000);
    record(setting(Granule::K4, BbmLevel::L3), mapped(Leaves::Blocks), &[page], Who::Anybody)
}

/// The same by full break-before-make.
fn broken_split() -> Recorded {
    let to = Level::L3;
    let split = Op::Split { at: 2 * MIB, len: 2 * MIB, to };
    record(setting(Granule::K4, BbmLevel::L0), mapped(Leaves::Blocks), &[split], Who::Nobody)
}

/// The same in place at level 2, with the invalidation that it needs there.
fn split_at_level_2() -> Recorded {
    let split = Op::Split { at: 2 * MIB, len: 2 * MIB, to: Level::L3 };
    record(setting(Granule::K4, BbmLevel::L2), mapped(Leaves::Blocks), &[split], Who::Nobody)
}

/// A table of pages becomes a block again.
fn fold() -> Recorded {
    let split = Op::Split { at: 2 * MIB, len: 2 * MIB, to: Level::L3 };
    let fold = Op::Fold { at: 2 * MIB, len: 2 * MIB };
    record(setting(Granule::K4, BbmLevel::L3), mapped(Leaves::Blocks), &[split, fold], Who::Anybody)
}

/// A page of a contiguous run becomes read-only.
fn unfold() -> Recorded {
    let unblocked = Op::Split { at: 0, len: 2 * MIB, to: Level::L2 };
    let split = read_only(0x2_0000, 0x1_0000);
    let page = read_only(0x4_3000, 0x1000);
    record(
        setting(Granule::K4, BbmLevel::L3),
        mapped(Leaves::ContiguousBlocks),
        &[unblocked, split, page],
        Who::Anybody,
    )
}

/// Sixteen pages become a contiguous run.
fn fold_run() -> Recorded {
    let fold = Op::Fold { at: 0x4_0000, len: 0x1_0000 };
    record(setting(Granule::K4, BbmLevel::L3), mapped(Leaves::Pages), &[fold], Who::Anybody)
}

/// Three pages become read-only.
fn protect(granule: Granule) -> Recorded {
    let page = Geometry::new(granule, 36, 48).unwrap().granule().bytes();
    record(
        setting(granule, BbmLevel::L0),
        mapped(Leaves::Pages),
        &[read_only(7 * page, 3 * page)],
        Who::Anybody,
    )
}

/// Two hundred pages go, invalidated by ranges.
fn unmap() -> Recorded {
    let setting = Setting { range_invalidation: true, ..setting(Granule::K4, BbmLevel::L0) };
    record(setting, mapped(Leaves::Pages), &[Op::Unmap { at: 0x8000, len: 200 << 12 }], Who::Anybody)
}

/// A whole table of pages goes.
fn unmap_table() -> Recorded {
    let unmap = Op::Unmap { at: 4 * MIB, len: 2 * MIB };
    record(setting(Granule::K4, BbmLevel::L0), mapped(Leaves::Pages), &[unmap], Who::Anybody)
}

/// Pages come where nothing was, with a table for them.
fn map() -> Recorded {
    let unmap = Op::Unmap { at: 4 * MIB, len: 2 * MIB };
    let attributes = Attributes::KERNEL_DATA;
    let map = Op::Map { at: 4 * MIB, len: 2 * MIB, shift: 0, attributes, leaves: Leaves::Pages };
    record(setting(Granule::K4, BbmLevel::L0), mapped(Leaves::Pages), &[unmap, map], Who::Anybody)
}

/// Pages come into a table that is there.
fn map_pages() -> Recorded {
    let unmap = Op::Unmap { at: 4 * MIB, len: 0x1_0000 };
    let attributes = Attributes::KERNEL_DATA;
    let map = Op::Map { at: 4 * MIB, len: 0x1_0000, shift: 0x1000, attributes, leaves: Leaves::Pages };
    record(setting(Granule::K4, BbmLevel::L0), mapped(Leaves::Pages), &[unmap, map], Who::Anybody)
}

/// Edits of a tree whose leaves hardware updates.
fn updated(initial: Leaves, ops: &[Op], who: Who) -> Recorded {
    let setting =
        Setting { updates: HardwareUpdates::AccessedAndDirty, ..setting(Granule::K4, BbmLevel::L3) };
    let access = Access::KernelReadWriteClean;
    let attributes = Attributes { access, ..Attributes::KERNEL_DATA };
    let mapped = Op::Map { at: 0, len: 64 * MIB, shift: 0, attributes, leaves: initial };
    record(setting, mapped, ops, who)
}

/// Clean pages become read-only.
fn updated_protect() -> Recorded {
    updated(Leaves::Pages, &[read_only(7 << 12, 3 << 12)], Who::Anybody)
}

/// A clean block becomes a table.
fn updated_split() -> Recorded {
    let split = Op::Split { at: 2 * MIB, len: 2 * MIB, to: Level::L3 };
    updated(Leaves::Blocks, &[split], Who::Anybody)
}

/// A clean page goes.
fn updated_unmap() -> Recorded {
    updated(Leaves::Pages, &[Op::Unmap { at: 4 * MIB, len: 0x1000 }], Who::Anybody)
}

/// Atomic updates as plain stores.
fn stored_plainly(events: &[Event]) -> Vec<Event> {
    let plain = |event: &Event| match *event {
        Event::Update { cpu, pa, value, via, .. } => Event::Store { cpu, pa, value, via },
        event => event,
    };
    events.iter().map(plain).collect()
}

/// The index of the first, or the last, event of a kind.
fn first(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().position(is).unwrap()
}

fn last(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().rposition(is).unwrap()
}

/// The index of the one store of a table descriptor.
fn link(events: &[Event]) -> usize {
    let is = |event: &Event| matches!(event, Event::Store { value, .. } if value & 0xfff == 3);
    events.iter().rposition(is).unwrap()
}

/// Every TLBI changed.
fn tlbis(events: &[Event], change: fn(&mut TlbiScope, &mut bool, &mut u64)) -> Vec<Event> {
    let mut events = events.to_vec();
    for event in &mut events {
        if let Event::Tlbi { tlbi, operand, .. } = event {
            change(&mut tlbi.scope, &mut tlbi.broadcast, operand);
        }
    }
    events
}

/// One store changed; the last that `pick` selects.
fn stored(events: &[Event], pick: fn(u64) -> bool, change: fn(&mut u64, &mut u64)) -> Vec<Event> {
    let mut events = events.to_vec();
    let store = events.iter_mut().rev().find_map(|event| match event {
        Event::Store { pa, value, .. } if pick(*value) => Some((pa, value)),
        _ => None,
    });
    let (pa, value) = store.unwrap();
    change(pa, value);
    events
}

fn any(_: u64) -> bool {
    true
}

fn is_page(value: u64) -> bool {
    value & 3 == 3 && value & 0x400 != 0
}

type Mistake = (&'static str, fn() -> Recorded, fn(&[Event]) -> Vec<Event>);

/// The hint that the leaf is at level 2, 4K.
const HINT_LEVEL_2: u64 = (0b01 << 2 | 2) << 44;
/// The hint that the leaf is at level 3, 4K.
const HINT_LEVEL_3: u64 = (0b01 << 2 | 3) << 44;

const MISTAKES: &[Mistake] = &[
    // Barriers.
    ("split: no DSB before the link", split, |e| without(e, first(e, is_dsb))),
    ("split: no DSB between protect and TLBI", split, |e| without(e, first(e, is_tlbi) - 1)),
    ("split: no DSB after the TLBI", split, |e| without(e, last(e, is_dsb))),
    ("protect: no DSB before the TLBI", || protect(Granule::K4), |e| without(e, first(e, is_dsb))),
    ("protect: no DSB after the TLBI", || protect(Granule::K4), |e| without(e, last(e, is_dsb))),
    ("map: no DSB before the link", map, |e| without(e, first(e, is_dsb))),
    ("map: no DSB after the link", map, |e| without(e, last(e, is_dsb))),
    ("map: no ISB", map, |e| without(e, last(e, is_isb))),
    ("map into a table: no DSB", map_pages, |e| without(e, last(e, is_dsb))),
    ("map into a table: no ISB", map_pages, |e| without(e, last(e, is_isb))),
    ("unmap: DSB ISHST after the TLBI", unmap, |e| {
        let mut events = e.to_vec();
        let nth = last(e, is_dsb);
        events[nth] = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Barrier::Stores };
        events
    }),
    ("unmap: DSB NSH after the TLBI", unmap, |e| {
        let mut events = e.to_vec();
        let nth = last(e, is_dsb);
        events[nth] = Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Barrier::All };
        events
    }),
    // Invalidations left out, too small, or too early.
    ("split: no TLBI", split, |e| without(e, first(e, is_tlbi))),
    (
        "protect: no TLBI",
        || protect(Granule::K4),
        |e| e.iter().copied().filter(|event| !is_tlbi(event)).collect(),
    ),
    ("protect: the last page is not invalidated", || protect(Granule::K4), |e| without(e, last(e, is_tlbi))),
    ("protect: local TLBI", || protect(Granule::K4), |e| tlbis(e, |_, broadcast, _| *broadcast = false)),
    ("protect: the TLBI names the next page", || protect(Granule::K4), |e| tlbis(e, |_, _, va| *va += 1)),
    (
        "protect: the TLBI's address shifted by the granule",
        || protect(Granule::K16),
        |e| tlbis(e, |_, _, va| *va = *va >> 2 | 0x3ff << 34),
    ),
    ("protect: a level hint of 2", || protect(Granule::K4), |e| tlbis(e, |_, _, va| *va |= HINT_LEVEL_2)),
    ("split: a level hint of 3, while the block may be cached", split, |e| {
        tlbis(e, |_, _, va| *va |= HINT_LEVEL_3)
    }),
    (
        "protect: a hint of another granule",
        || protect(Granule::K16),
        |e| tlbis(e, |_, _, va| *va |= HINT_LEVEL_3),
    ),
    (
        "protect: the TLBI before the DSB",
        || protect(Granule::K4),
        |e| {
            let dsb = first(e, is_dsb);
            moved(e, dsb, last(e, is_tlbi))
        },
    ),
    ("protect: the TLBI before the store", || protect(Granule::K4), |e| moved(e, last(e, is_tlbi), 0)),
    (
        "protect: one CPU forgotten",
        || protect(Granule::K4),
        |e| {
            // Each CPU but the last invalidates for itself: with two, that is the editor alone.
            tlbis(e, |scope, broadcast, va| (*scope, *broadcast, *va) = (TlbiScope::AllEl1, false, 0))
        },
    ),
    ("unmap: one page too few in the range", unmap, |e| {
        tlbis(e, |scope, _, operand| {
            if *scope == TlbiScope::RangeAnyAsidLast {
                *operand -= 1 << 39;
            }
        })
    }),
    ("unmap: a range of another scale", unmap, |e| {
        tlbis(e, |scope, _, operand| {
            if *scope == TlbiScope::RangeAnyAsidLast {
                *operand &= !(3 << 44);
            }
        })
    }),
    ("unmap: a range of another granule", unmap, |e| tlbis(e, |_, _, operand| *operand |= 0b11 << 46)),
    ("unmap of a table: last levels only", unmap_table, |e| {
        tlbis(e, |scope, _, _| {
            if *scope == TlbiScope::VaAnyAsid {
                *scope = TlbiScope::VaAnyAsidLast;
            }
        })
    }),
    ("split in place at level 2: no TLBI", split_at_level_2, |e| {
        e.iter().copied().filter(|event| !is_tlbi(event)).collect()
    }),
    // Frames.
    ("unmap of a table: freed before the TLBI", unmap_table, |e| {
        moved(e, last(e, is_free), first(e, is_tlbi))
    }),
    ("unmap of a table: freed before the last DSB", unmap_table, |e| {
        moved(e, last(e, is_free), last(e, is_dsb))
    }),
    ("fold: freed before the TLBI", fold, |e| moved(e, last(e, is_free), first(e, is_tlbi))),
    ("fold: freed before the last DSB", fold, |e| moved(e, last(e, is_free), last(e, is_dsb))),
    ("fold: last levels only", fold, |e| {
        tlbis(e, |scope, _, _| {
            if *scope == TlbiScope::VaAnyAsid {
                *scope = TlbiScope::VaAnyAsidLast;
            }
        })
    }),
    ("fold: no TLBI", fold, |e| e.iter().copied().filter(|event| !is_tlbi(event)).collect()),
    ("map: the link goes before the table is filled", map, |e| moved(e, link(e), 0)),
    ("split: the link goes before the DSB", split, |e| moved(e, link(e), first(e, is_dsb))),
    // Break-before-make.
    ("break-before-make: no break", broken_split, |e| without(e, first_break(e))),
    ("break-before-make: no TLBI after the break", broken_split, |e| without(e, first(e, is_tlbi))),
    ("break-before-make: made before the DSB that ends the TLBI", broken_split, |e| {
        moved(e, link(e), first(e, is_tlbi) + 1)
    }),
    // What is stored.
    ("split: the last entry of the new table is forgotten", split, |e| {
        let nth = e.iter().position(|event| matches!(event, Event::Store { pa, .. } if pa & 0xfff == 0xff8));
        without(e, nth.unwrap())
    }),
    ("split: an entry of the new table has its neighbour's address", split, |e| {
        let nth = e.iter().position(|event| matches!(event, Event::Store { pa, .. } if pa & 0xfff == 0x800));
        let mut events = e.to_vec();
        if let Event::Store { value, .. } = &mut events[nth.unwrap()] {
            *value += 0x1000;
        }
        events
    }),
    ("split: an entry of the new table has another memory type", split, |e| {
        let nth = e.iter().position(|event| matches!(event, Event::Store { pa, .. } if pa & 0xfff == 0x800));
        let mut events = e.to_vec();
        if let Event::Store { value, .. } = &mut events[nth.unwrap()] {
            *value |= 0b100;
        }
        events
    }),
    ("split: an entry of the new table is not shareable", split, |e| {
        let nth = e.iter().position(|event| matches!(event, Event::Store { pa, .. } if pa & 0xfff == 0x800));
        let mut events = e.to_vec();
        if let Event::Store { value, .. } = &mut events[nth.unwrap()] {
            *value &= !0x300;
        }
        events
    }),
    ("split: the link is stored in the next entry", split, |e| {
        let mut events = e.to_vec();
        let nth = link(e);
        if let Event::Store { pa, .. } = &mut events[nth] {
            *pa += 8;
        }
        events
    }),
    ("protect: the next page is written", || protect(Granule::K4), |e| stored(e, is_page, |pa, _| *pa += 8)),
    (
        "protect: the memory type changes too",
        || protect(Granule::K4),
        |e| stored(e, is_page, |_, value| *value |= 0b100),
    ),
    ("map into a table: stored over what is not invalidated", map_pages, |e| {
        stored(e, is_page, |pa, _| *pa += 8)
    }),
    ("unmap: one page is left", unmap, |e| {
        let events = e.to_vec();
        let nth = events.iter().rposition(|event| matches!(event, Event::Store { .. })).unwrap();
        without(&events, nth)
    }),
    // Updates by hardware.
    ("protect what hardware updates: plain stores", updated_protect, stored_plainly),
    ("split what hardware updates: a plain store", updated_split, stored_plainly),
    ("unmap what hardware updates: a plain store", updated_unmap, stored_plainly),
    // Contiguous runs.
    ("unfold: one entry keeps the bit", unfold, |e| {
        let events = e.to_vec();
        let cleared = |event: &Event| matches!(event, Event::Store { value, .. } if value & CONTIGUOUS == 0);
        let nth = events.iter().position(cleared).unwrap();
        without(&events, nth)
    }),
    ("unfold: the changed page keeps the bit", unfold, |e| {
        stored(e, is_page, |_, value| *value |= CONTIGUOUS)
    }),
    ("fold to a run: one entry stays without the bit", fold_run, |e| {
        let events = e.to_vec();
        let nth = events.iter().rposition(|event| matches!(event, Event::Store { .. })).unwrap();
        without(&events, nth)
    }),
    ("fold to a run: one page further", fold_run, |e| {
        let mut events = e.to_vec();
        for event in &mut events {
            if let Event::Store { pa, value, .. } = event {
                *pa += 8;
                *value += 0x1000;
            }
        }
        events
    }),
    ("fold to a run: an address out of step", fold_run, |e| stored(e, any, |_, value| *value += 0x1000)),
];

/// The store that makes something invalid.
fn first_break(events: &[Event]) -> usize {
    let is = |event: &Event| matches!(event, Event::Store { value, .. } if value & 1 == 0);
    events.iter().position(is).unwrap()
}

#[test]
fn every_deliberate_mistake_in_a_real_plan_is_found() {
    let mut missed = Vec::new();
    for (name, recorded, mistake) in MISTAKES {
        let recorded = recorded();
        let edit = mistake(&recorded.edit);
        assert_ne!(edit, recorded.edit, "{name}: nothing was changed");
        match recorded.verdict(&edit) {
            Ok(()) => missed.push(*name),
            Err(violation) => println!("{name:60} {violation}"),
        }
    }
    println!("{} of {} mistakes found", MISTAKES.len() - missed.len(), MISTAKES.len());
    assert!(MISTAKES.len() >= 30);
    assert!(missed.is_empty(), "missed: {missed:#?}");
}

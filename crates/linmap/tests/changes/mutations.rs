//! Deliberate mistakes in changes of the linear map, one at a time: the machine finds every one.
//!
//! They are those of the model's own list (`crates/model/tests/mutations.rs`). Each change is
//! traced as the kernel traces it; then its events are replayed with one mistake, and with what
//! comes afterwards: software relies on the change, and every CPU looks at both sides of it. What
//! the list has of break-before-make is tried on parked changes, which do the same for all CPUs at
//! once: the linear map never breaks what is in use.

use linmap::Protection;
use linmap_model::event::{Access as Barrier, Domain, TlbiScope};
use linmap_model::trace::text;
use linmap_model::{Config, Event, Machine, Violation};
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, PaRange};

use crate::machine::Running;
use crate::machine::op::Op;
use crate::machine::setting::{Setting, range};

const MIB: u64 = 1 << 20;
const CONTIGUOUS: u64 = 1 << 52;
/// A block of 2 MiB in the first region.
const BLOCK: PaRange = range(0x4120_0000, 2 * MIB);

/// The events of one change, of all before it, and of all that relies on it.
struct Recorded {
    config: Config,
    before: Vec<Event>,
    edit: Vec<Event>,
    after: Vec<Event>,
}

impl Recorded {
    fn verdict(&self, edit: &[Event]) -> Result<(), Violation> {
        let mut machine = Machine::new(&self.config).expect("a machine that can be");
        for event in &self.before {
            machine.step(event).expect("what came before is legal");
        }
        edit.iter().chain(&self.after).try_for_each(|event| machine.step(event))
    }
}

/// Makes all of `ops`, and traces the last of them.
fn record(setting: &Setting, ops: &[Op]) -> Recorded {
    let mut running = Running::new(setting, 1, false);
    running.start_trace();
    let events = |running: &Running| {
        let text = running.editor.trace.as_deref().expect("a trace");
        text::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut before = 0;
    for op in ops {
        before = events(&running).events.len();
        running.call(*op).unwrap_or_else(|error| panic!("{op:x?}: {error}"));
        running.note(*op);
        running.agree().unwrap_or_else(|reason| panic!("{op:x?}: {reason}"));
    }
    let trace = events(&running);
    let edit = single(&trace.events[before..trace.events.len() - 1]);
    // What comes after the change: it ends with `settled`.
    let mut after = trace.events[trace.events.len() - 1..].to_vec();
    assert_eq!(after[0], Event::Settled);
    let changed = ops.last().and_then(|op| op.range()).expect("a change of a range");
    let page = setting.page();
    let middle = (changed.start.0 + changed.len() / 2) & !(page - 1);
    let (first, last) = (changed.start.0, changed.end.0 - page);
    for cpu in 0..setting.cpus {
        for pa in [first, middle, last, last + page, first - page] {
            for access in running.accesses(cpu, running.shadow.linear(linmap_vmsa::Pa(pa))) {
                after.extend([Event::Isb { cpu }, access]);
            }
        }
    }
    let before = trace.events[..before].to_vec();
    let recorded = Recorded { config: trace.config, before, edit, after };
    assert_eq!(recorded.verdict(&recorded.edit), Ok(()));
    recorded
}

/// Fills of more than one word as single stores, so that one of them can be changed.
fn single(events: &[Event]) -> Vec<Event> {
    let mut singles = Vec::new();
    for event in events {
        match *event {
            Event::Fill { cpu, pa, count, first, step } => {
                singles.extend((0..count).map(|nth| Event::Store {
                    cpu,
                    pa: pa + 8 * nth,
                    value: first.wrapping_add(step.wrapping_mul(nth)),
                    via: None,
                }));
            }
            event => singles.push(event),
        }
    }
    singles
}

fn blocks() -> Setting {
    Setting::joined().with_leaves(Leaves::Blocks)
}

fn pages() -> Setting {
    Setting::joined().with_leaves(Leaves::Pages).with_bbm(BbmLevel::L0)
}

fn read_only(start: u64, len: u64) -> Op {
    Op::Protect(range(start, len), Protection::ReadOnly)
}

/// The last page but one of a 2 MiB block becomes read-only at level 3: split, link, protect,
/// invalidate.
fn split() -> Recorded {
    record(&blocks(), &[read_only(BLOCK.end.0 - 0x2000, 0x1000)])
}

/// A block becomes pages at level 0, parked.
fn parked_split() -> Recorded {
    record(&blocks().with_bbm(BbmLevel::L0), &[Op::Split(BLOCK, Level::L3)])
}

/// The same at level 2.
fn split_at_level_2() -> Recorded {
    record(&blocks().with_bbm(BbmLevel::L2), &[Op::Split(BLOCK, Level::L3)])
}

/// A table of pages becomes a block again.
fn fold() -> Recorded {
    record(&blocks(), &[Op::Split(BLOCK, Level::L3), Op::Fold(BLOCK)])
}

/// A page of a contiguous run becomes read-only.
fn unfold() -> Recorded {
    let start = BLOCK.start.0;
    let run = read_only(start + 0x2_0000, 0x1_0000);
    let page = read_only(start + 0x4_3000, 0x1000);
    record(&Setting::joined(), &[Op::Split(BLOCK, Level::L2), run, page])
}

/// Sixteen pages become a contiguous run.
fn fold_run() -> Recorded {
    let run = range(BLOCK.start.0 + 0x4_0000, 0x1_0000);
    record(&Setting::joined(), &[Op::Split(BLOCK, Level::L3), Op::Fold(run)])
}

/// Three pages become read-only.
fn protect() -> Recorded {
    record(&pages(), &[read_only(BLOCK.start.0 + 0x7000, 0x3000)])
}

fn protect_16k() -> Recorded {
    let setting = Setting::pages_of_16k().with_leaves(Leaves::Pages).with_bbm(BbmLevel::L0);
    record(&setting, &[read_only(BLOCK.start.0 + 7 * 0x4000, 3 * 0x4000)])
}

/// Two hundred pages go, invalidated by ranges.
fn unmap() -> Recorded {
    let setting = Setting { range_invalidation: true, ..pages() };
    record(&setting, &[Op::Remove(range(BLOCK.start.0 + 0x8000, 200 << 12))])
}

/// A whole table of pages goes.
fn unmap_table() -> Recorded {
    record(&pages(), &[Op::Remove(BLOCK)])
}

/// Memory comes where nothing was, with a table for its pages.
fn map() -> Recorded {
    let spare = pages().spare;
    record(&pages(), &[Op::Add(range(spare.start.0 + 4 * MIB, 2 * MIB))])
}

/// Memory is added again below a table that exists.
fn map_pages() -> Recorded {
    let memory = range(BLOCK.start.0 + 0x2_0000, 0x1_0000);
    record(&pages(), &[Op::Remove(memory), Op::Add(memory)])
}

fn is_dsb(event: &Event) -> bool {
    matches!(event, Event::Dsb { .. })
}

fn is_tlbi(event: &Event) -> bool {
    matches!(event, Event::Tlbi { .. })
}

fn is_free(event: &Event) -> bool {
    matches!(event, Event::Free { .. })
}

fn is_isb(event: &Event) -> bool {
    matches!(event, Event::Isb { .. })
}

/// The index of the first, or the last, event of a kind.
fn first(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().position(is).expect("one of them")
}

fn last(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().rposition(is).expect("one of them")
}

/// The index of the one store of a table descriptor.
fn link(events: &[Event]) -> usize {
    let is = |event: &Event| matches!(event, Event::Store { value, .. } if value & 0xfff == 3);
    events.iter().rposition(is).expect("a link")
}

/// The part of a parked change by which the other CPU leaves: its first five events.
fn without_leaving(events: &[Event]) -> Vec<Event> {
    assert!(matches!(events[0], Event::Write { cpu: 1, .. }), "the other CPU leaves first");
    events[5..].to_vec()
}

fn moved(events: &[Event], from: usize, to: usize) -> Vec<Event> {
    let mut events = events.to_vec();
    let event = events.remove(from);
    events.insert(to, event);
    events
}

fn without(events: &[Event], nth: usize) -> Vec<Event> {
    let mut events = events.to_vec();
    events.remove(nth);
    events
}

fn without_all(events: &[Event], is: fn(&Event) -> bool) -> Vec<Event> {
    events.iter().copied().filter(|event| !is(event)).collect()
}

fn replaced(events: &[Event], nth: usize, event: Event) -> Vec<Event> {
    let mut events = events.to_vec();
    events[nth] = event;
    events
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

/// Last levels alone are invalidated.
fn last_levels(events: &[Event]) -> Vec<Event> {
    tlbis(events, |scope, _, _| {
        if *scope == TlbiScope::VaAnyAsid {
            *scope = TlbiScope::VaAnyAsidLast;
        }
    })
}

/// One store changed; the last that `pick` selects.
fn stored(events: &[Event], pick: fn(u64) -> bool, change: fn(&mut u64, &mut u64)) -> Vec<Event> {
    let mut events = events.to_vec();
    let store = events.iter_mut().rev().find_map(|event| match event {
        Event::Store { pa, value, .. } if pick(*value) => Some((pa, value)),
        _ => None,
    });
    let (pa, value) = store.expect("such a store");
    change(pa, value);
    events
}

/// The store to entry `index` of the new table, which is filled first, changed.
fn filled(events: &[Event], index: u64, change: fn(&mut u64)) -> Vec<Event> {
    let mut events = events.to_vec();
    let store = events.iter_mut().find_map(|event| match event {
        Event::Store { pa, value, .. } if *pa & 0xfff == 8 * index => Some(value),
        _ => None,
    });
    change(store.expect("such an entry"));
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
    ("protect: no DSB before the TLBI", protect, |e| without(e, first(e, is_dsb))),
    ("protect: no DSB after the TLBI", protect, |e| without(e, last(e, is_dsb))),
    ("map: no DSB before the link", map, |e| without(e, first(e, is_dsb))),
    ("map: no DSB after the link", map, |e| without(e, last(e, is_dsb))),
    ("map: no ISB", map, |e| without(e, last(e, is_isb))),
    ("map into a table: no DSB", map_pages, |e| without(e, last(e, is_dsb))),
    ("map into a table: no ISB", map_pages, |e| without(e, last(e, is_isb))),
    ("unmap: DSB ISHST after the TLBI", unmap, |e| {
        replaced(e, last(e, is_dsb), Event::Dsb { cpu: 0, domain: Domain::Ish, access: Barrier::Stores })
    }),
    ("unmap: DSB NSH after the TLBI", unmap, |e| {
        replaced(e, last(e, is_dsb), Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Barrier::All })
    }),
    // Invalidations left out, too small, or too early.
    ("split: no TLBI", split, |e| without(e, first(e, is_tlbi))),
    ("protect: no TLBI", protect, |e| without_all(e, is_tlbi)),
    ("protect: the last page is not invalidated", protect, |e| without(e, last(e, is_tlbi))),
    ("protect: local TLBI", protect, |e| tlbis(e, |_, broadcast, _| *broadcast = false)),
    ("protect: the TLBI names the next page", protect, |e| tlbis(e, |_, _, va| *va += 1)),
    ("protect: the TLBI's address shifted by the granule", protect_16k, |e| {
        tlbis(e, |_, _, va| *va = *va >> 2 | 0x3ff << 34)
    }),
    ("protect: a level hint of 2", protect, |e| tlbis(e, |_, _, va| *va |= HINT_LEVEL_2)),
    ("split: a level hint of 3, while the block may be cached", split, |e| {
        tlbis(e, |_, _, va| *va |= HINT_LEVEL_3)
    }),
    ("protect: a hint of another granule", protect_16k, |e| tlbis(e, |_, _, va| *va |= HINT_LEVEL_3)),
    ("protect: the TLBI before the DSB", protect, |e| moved(e, first(e, is_dsb), last(e, is_tlbi))),
    ("protect: the TLBI before the store", protect, |e| moved(e, last(e, is_tlbi), 0)),
    ("protect: one CPU forgotten", protect, |e| {
        // The editor invalidates for itself alone.
        tlbis(e, |scope, broadcast, va| (*scope, *broadcast, *va) = (TlbiScope::AllEl1, false, 0))
    }),
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
    ("unmap of a table: last levels only", unmap_table, last_levels),
    ("parked split at level 2: no TLBI", split_at_level_2, |e| without_all(e, is_tlbi)),
    // Frames.
    ("unmap of a table: freed before the TLBI", unmap_table, |e| {
        moved(e, last(e, is_free), first(e, is_tlbi))
    }),
    ("unmap of a table: freed before the last DSB", unmap_table, |e| {
        moved(e, last(e, is_free), last(e, is_dsb))
    }),
    ("fold: freed before the TLBI", fold, |e| moved(e, last(e, is_free), first(e, is_tlbi))),
    ("fold: freed before the last DSB", fold, |e| moved(e, last(e, is_free), last(e, is_dsb))),
    ("fold: last levels only", fold, last_levels),
    ("fold: no TLBI", fold, |e| without_all(e, is_tlbi)),
    ("map: the link goes before the table is filled", map, |e| moved(e, link(e), 0)),
    ("split: the link goes before the DSB", split, |e| moved(e, link(e), first(e, is_dsb))),
    // Parked, where the list breaks before it makes.
    ("parked: a CPU stays", parked_split, without_leaving),
    ("parked: no TLBI after leaving", parked_split, |e| without(e, first(e, is_tlbi))),
    ("parked: no ISB behind the DSB that ends the TLBI", parked_split, |e| {
        let behind = first(e, is_tlbi) + 2;
        assert!(is_isb(&e[behind]));
        without(e, behind)
    }),
    ("parked: made before the DSB that ends the TLBI", parked_split, |e| {
        moved(e, link(e), first(e, is_tlbi) + 1)
    }),
    // What is stored.
    ("split: the last entry of the new table is forgotten", split, |e| filled(e, 511, |value| *value = 0)),
    ("split: an entry of the new table has its neighbour's address", split, |e| {
        filled(e, 256, |value| *value += 0x1000)
    }),
    ("parked: an entry of the new table has its neighbour's address", parked_split, |e| {
        filled(e, 256, |value| *value += 0x1000)
    }),
    ("split: an entry of the new table has another memory type", split, |e| {
        filled(e, 256, |value| *value |= 0b100)
    }),
    ("split: an entry of the new table is not shareable", split, |e| {
        filled(e, 256, |value| *value &= !0x300)
    }),
    ("split: the link is stored in the next entry", split, |e| {
        let mut events = e.to_vec();
        if let Event::Store { pa, .. } = &mut events[link(e)] {
            *pa += 8;
        }
        events
    }),
    ("protect: the next page is written", protect, |e| stored(e, is_page, |pa, _| *pa += 8)),
    ("protect: the memory type changes too", protect, |e| stored(e, is_page, |_, value| *value |= 0b100)),
    ("map into a table: stored over what is not invalidated", map_pages, |e| {
        stored(e, is_page, |pa, _| *pa += 8)
    }),
    ("unmap: one page is left", unmap, |e| without(e, last(e, |event| matches!(event, Event::Store { .. })))),
    // Contiguous runs.
    ("unfold: one entry keeps the bit", unfold, |e| {
        without(e, first(e, |event| matches!(event, Event::Store { value, .. } if value & CONTIGUOUS == 0)))
    }),
    ("unfold: the changed page keeps the bit", unfold, |e| {
        stored(e, is_page, |_, value| *value |= CONTIGUOUS)
    }),
    ("fold to a run: one entry stays without the bit", fold_run, |e| {
        without(e, last(e, |event| matches!(event, Event::Store { .. })))
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

#[test]
fn every_deliberate_mistake_in_a_change_of_the_linear_map_is_found() {
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
    assert!(missed.is_empty(), "missed: {missed:#?}");
}

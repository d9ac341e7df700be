//! Going on behind a violation: each mistake is reported once, and hides no other.

mod scene;

use linmap_model::event::{Access, Domain, Register, TlbiScope};
use linmap_model::{Config, Event, Machine, Resumed, Rule, Violation};
use proptest::prelude::*;
use scene::*;

const ORDER: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores };
const WAIT: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All };
const ISB: Event = Event::Isb { cpu: 0 };
/// `AP[2]`: read-only.
const READ_ONLY: u64 = 1 << 7;

fn store(pa: u64, value: u64) -> Event {
    Event::Store { cpu: 0, pa, value, via: None }
}

fn tlbi(scope: TlbiScope, operand: u64) -> Event {
    Event::Tlbi { cpu: 0, tlbi: broadcast(scope), operand }
}

/// All violations of `events`.
fn all(config: &Config, events: &[Event]) -> Vec<Violation> {
    all_and_steps(config, events).0
}

/// All violations of `events`, and the steps of the model's searches.
fn all_and_steps(config: &Config, events: &[Event]) -> (Vec<Violation>, u64) {
    let mut machine = Machine::new(config).unwrap();
    let mut found = Vec::new();
    for event in events {
        let mut judged = machine.step(event);
        while let Err(violation) = judged {
            found.push(violation);
            judged = match machine.resume(event) {
                Resumed::Done => Ok(()),
                Resumed::Broken(violation) => Err(violation),
                Resumed::Stuck => panic!("{violation}"),
            };
        }
    }
    (found, machine.steps())
}

/// `tables` tables of pages that two CPUs walk, and an edit of one page in every table, over and
/// over: `edits` of them, every third without its TLBI. Software relies on the tables after each,
/// or on all of them `at_once`.
fn many_edits(tables: u64, edits: u64, at_once: bool) -> (Config, Vec<Event>) {
    let first = RAM + 0x10_0000;
    let ram = vec![(RAM, 0x10_0000 + tables * 0x1000)];
    let config = Config {
        cpus: 2,
        bbm: 3,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let leaf = |table: u64, page: u64| (PAGE & 0xfff) + 0x8000_0000 + (512 * table + page) * 0x1000;
    let fill = |pa, first, step| Event::Fill { cpu: 0, pa, count: 512, first, step };
    let mut events = vec![fill(ROOT, 0, 0), fill(L1, 0, 0), fill(L2, 0, 0)];
    for table in 0..tables {
        events.push(fill(first + table * 0x1000, leaf(table, 0), 0x1000));
        events.push(store(L2 + 8 * table, (first + table * 0x1000) | TABLE));
    }
    events.extend([store(L1, L2 | TABLE), store(ROOT, L1 | TABLE), ORDER]);
    for cpu in 0..2 {
        events.extend([Event::Write { cpu, register: Register::Ttbr1, value: ROOT }, Event::Isb { cpu }]);
    }
    for nth in 0..edits {
        let (table, page) = (nth % tables, nth / tables);
        let va = VA + (512 * table + page) * 0x1000;
        events.extend([store(first + table * 0x1000 + 8 * page, leaf(table, page) | READ_ONLY), ORDER]);
        if nth % 3 != 0 {
            events.push(tlbi(TlbiScope::VaAnyAsidLast, va >> 12 & 0xfff_ffff_ffff));
        }
        events.extend([WAIT, ISB]);
        if !at_once {
            events.push(Event::Settled);
        }
    }
    events.push(Event::Settled);
    (config, events)
}

#[test]
fn the_work_follows_from_the_events_and_the_mistakes_not_from_the_tables() {
    for at_once in [false, true] {
        let steps = |tables, edits| {
            let (config, events) = many_edits(tables, edits, at_once);
            let (found, steps) = all_and_steps(&config, &events);
            assert_eq!(found.len() as u64, edits.div_ceil(3));
            (steps, events.len() as u64)
        };
        let (few, _) = steps(256, 1_500);
        let (many, events) = steps(256, 3_000);
        println!("at once {at_once}: {few} and {many} steps, {events} events");
        assert!(many < 3 * few, "{few} and {many} steps");
        // The tables are read once, when they are linked.
        assert!(many < 6 * events, "{many} steps for {events} events");
        let (larger, _) = steps(512, 1_500);
        assert!(larger < few + 2_000, "{few} and {larger} steps");
    }
}

/// 512 pages at the first addresses of TTBR1's half, walked by two CPUs.
fn start(bbm: u8) -> (Config, Vec<Event>) {
    let config = Config {
        cpus: 2,
        bbm,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram: vec![(RAM, 0x10_0000)],
        leniency: linmap_model::Leniency::Strict,
    };
    let zeros = |pa| Event::Fill { cpu: 0, pa, count: 512, first: 0, step: 0 };
    let mut events = vec![zeros(ROOT), zeros(L1), zeros(L2)];
    events.push(Event::Fill { cpu: 0, pa: L3, count: 512, first: PAGE, step: 0x1000 });
    events.extend([store(L2, L3 | TABLE), store(L1, L2 | TABLE), store(ROOT, L1 | TABLE), ORDER]);
    for cpu in 0..2 {
        events.extend([Event::Write { cpu, register: Register::Ttbr1, value: ROOT }, Event::Isb { cpu }]);
    }
    events.push(Event::Settled);
    (config, events)
}

/// What an edit does to its pages.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Protect,
    Unmap,
    Move,
}

/// What is left out of an edit.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mistake {
    None,
    Order,
    Tlbi,
    Wait,
    Isb,
}

/// An edit of `pages` pages from page `first` on. The events that a mistake leaves out are not
/// there.
fn edit(edit: Edit, first: u64, pages: u64, mistake: Mistake) -> Vec<Event> {
    let mut events = Vec::new();
    let entry = |page: u64| L3 + 8 * page;
    let page = |page: u64| PAGE + 0x1000 * page;
    let pages_of = || first..first + pages;
    let push = |events: &mut Vec<Event>, event, which| {
        if mistake != which {
            events.push(event);
        }
    };
    for nth in pages_of() {
        events.push(store(entry(nth), if let Edit::Protect = edit { page(nth) | READ_ONLY } else { 0 }));
    }
    push(&mut events, ORDER, Mistake::Order);
    // (NUM + 1) << 1 pages.
    push(
        &mut events,
        tlbi(TlbiScope::RangeAnyAsidLast, range(VA + 0x1000 * first, pages / 2 - 1, 0)),
        Mistake::Tlbi,
    );
    push(&mut events, WAIT, Mistake::Wait);
    if let Edit::Move = edit {
        for nth in pages_of() {
            events.push(store(entry(nth), page(nth) + 0x40_0000));
        }
        events.push(ORDER);
    }
    push(&mut events, ISB, Mistake::Isb);
    events.push(Event::Settled);
    events
}

fn edits() -> impl Strategy<Value = (Edit, u64, Mistake)> {
    let edit = prop_oneof![Just(Edit::Protect), Just(Edit::Unmap), Just(Edit::Move)];
    let mistake = prop_oneof![
        3 => Just(Mistake::None),
        1 => Just(Mistake::Order),
        1 => Just(Mistake::Tlbi),
        1 => Just(Mistake::Wait),
        1 => Just(Mistake::Isb),
    ];
    (edit, 1_u64..5, mistake)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_of_several_independent_mistakes_is_reported_once_at_its_place(
        bbm in 0_u8..4,
        edits in proptest::collection::vec(edits(), 1..20),
    ) {
        let (config, mut events) = start(bbm);
        let mut expected = Vec::new();
        // Edits side by side, each of its own pages.
        let mut first = 0;
        for (what, half, mistake) in edits {
            let from = events.len();
            events.extend(edit(what, first, 2 * half, mistake));
            if mistake != Mistake::None {
                let addresses = VA + 0x1000 * first..VA + 0x1000 * (first + 2 * half);
                expected.push((mistake, from..events.len(), addresses));
            }
            first += 2 * half;
        }
        let found = all(&config, &events);
        for violation in &found {
            println!("{violation}");
        }
        prop_assert_eq!(found.len(), expected.len());
        for (violation, (mistake, at, pages)) in found.iter().zip(expected) {
            prop_assert!(at.contains(&violation.event), "{} in {:?}", violation, at);
            let va = violation.va.unwrap();
            prop_assert!(pages.contains(&va), "{} in {:x?}", violation, pages);
            if mistake == Mistake::Isb {
                prop_assert_eq!(violation.rule, Rule::NoIsb);
            }
        }
    }
}

#[test]
fn a_table_linked_before_it_was_filled_is_one_mistake() {
    let (config, mut events) = start(0);
    events.push(store(L2 + 8, SPARE | TABLE));
    events.extend([ORDER, ISB, Event::Settled]);
    events.push(Event::Fill { cpu: 0, pa: SPARE, count: 512, first: PAGE, step: 0x1000 });
    events.extend([ORDER, ISB, Event::Settled]);
    let rules: Vec<_> = all(&config, &events).iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::UnknownEntry]);
}

#[test]
fn an_uneven_run_is_reported_once_until_it_is_even() {
    const CONTIGUOUS: u64 = 1 << 52;
    let (config, mut events) = start(3);
    // One entry of the run is left without the bit.
    for nth in (0..16).filter(|nth| *nth != 5) {
        events.push(store(L3 + 8 * nth, (PAGE + 0x1000 * nth) | CONTIGUOUS));
    }
    events.extend([ORDER, tlbi(TlbiScope::RangeAnyAsidLast, range(VA, 7, 0)), WAIT, ISB, Event::Settled]);
    events.extend([
        store(L3 + 15 * 8, (PAGE + 0xf000) | CONTIGUOUS | 1 << 55),
        ORDER,
        WAIT,
        ISB,
        Event::Settled,
    ]);
    let found = all(&config, &events);
    let rules: Vec<_> = found.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::IncompleteRun], "{found:?}");
}

#[test]
fn a_frame_that_is_freed_too_early_is_one_mistake() {
    let (config, mut events) = start(0);
    events.extend([store(L2, 0), ORDER, WAIT, ISB, Event::Free { pa: L3, len: 0x1000 }]);
    // It is data from here on.
    events.extend((0..512).map(|nth| store(L3 + 8 * nth, 0x1234_5678_9abc_def3 + nth)));
    events.extend([ORDER, WAIT, ISB, Event::Settled]);
    let rules: Vec<_> = all(&config, &events).iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::TableReachable]);
}

//! What `settled` accepts every access agrees with, whatever is cached, and what it accepts step by
//! step it accepts as a whole: on random edits of a contiguous run, of the pages beside it, and of
//! a block that is split and folded, below tables that take permissions away.

mod scene;

use linmap_model::event::{Access, Domain, Use};
use linmap_model::{Config, Event, Machine};
use proptest::prelude::*;
use proptest::sample::select;
use scene::*;

/// Pages that are edited and accessed: two runs.
const PAGES: u64 = 32;

const ACCESSED: u64 = 1 << 10;

const PXN: u64 = 1 << 53;

/// Table descriptors above the pages, from the root on, and where the bits 62:59 begin.
const TABLES: [(u64, u64); 3] = [(ROOT, L1 | TABLE), (L1, L2 | TABLE), (L2, L3 | TABLE)];
const HIERARCHICAL: u32 = 59;

fn leaf() -> impl Strategy<Value = u64> {
    let run = PAGE | CONTIGUOUS;
    select(vec![
        run,
        run,
        run | READ_ONLY,
        run & !ACCESSED,
        run | NON_GLOBAL,
        PAGE,
        PAGE | READ_ONLY,
        PAGE & !PXN,
        PAGE & !ACCESSED,
        0,
    ])
}

/// Stores, or barriers and invalidations.
fn step() -> impl Strategy<Value = Vec<Event>> {
    let fill = |page: u64, count: u64, leaf: u64| {
        let (first, step) = if leaf == 0 { (0, 0) } else { (leaf | page << 12, 0x1000) };
        vec![Event::Fill { cpu: 0, pa: L3 + 8 * page, count, first, step }]
    };
    let tlbi = |tlbi, operand| Event::Tlbi { cpu: 0, tlbi, operand };
    let dsb = |access| Event::Dsb { cpu: 0, domain: Domain::Ish, access };
    let isb = Event::Isb { cpu: 0 };
    let published = move |tlbi| vec![dsb(Access::Stores), tlbi, dsb(Access::All), isb];
    prop_oneof![
        3 => (0..PAGES, leaf()).prop_map(move |(page, leaf)| fill(page, 1, leaf)),
        3 => (select(vec![0, 16]), leaf()).prop_map(move |(page, leaf)| fill(page, 16, leaf)),
        1 => (0..PAGES).prop_map(move |page| published(tlbi(BY_VA, va(VA + (page << 12))))),
        3 => Just(published(tlbi(ALL, 0))),
        1 => Just(vec![dsb(Access::Stores), isb]),
        2 => select(vec![SPARE | TABLE, BLOCK | 0x20_0000, BLOCK | READ_ONLY | 0x20_0000, 0])
            .prop_map(|value| vec![Event::Store { cpu: 0, pa: L2 + 8, value, via: None }]),
        1 => (select(TABLES.to_vec()), select(vec![0, 0b1000, 0b0001, 0b1001])).prop_map(
            |((pa, value), bits)| {
                vec![Event::Store { cpu: 0, pa, value: value | bits << HIERARCHICAL, via: None }]
            },
        ),
        1 => (0..512_u64, select(vec![0, READ_ONLY])).prop_map(|(page, more)| {
            let value = PAGE | more | (0x20_0000 + (page << 12));
            vec![Event::Store { cpu: 0, pa: SPARE + 8 * page, value, via: None }]
        }),
    ]
}

/// A machine whose TTBR1 tree has the table `L3` at level 3, and what was done to it.
fn machine(bbm: u8, events: &[Event]) -> Machine {
    let ram = vec![(RAM, 0x10_0000)];
    let config = Config {
        cpus: 2,
        bbm,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let mut scene = Scene::bare(&config);
    for table in [ROOT, L1, L2, L3] {
        scene.zero(table);
    }
    scene.pages(SPARE, 0x20_0000);
    scene.store(ROOT, L1 | TABLE).store(L1, L2 | TABLE).store(L2, L3 | TABLE).ordered();
    scene.root(0, ROOT).root(1, ROOT);
    for event in events {
        scene.event(*event);
    }
    scene.legal();
    scene.machine
}

/// What the tables say of an access now.
fn expected(machine: &Machine, cpu: usize, page: u64, kind: Use) -> Event {
    let word = machine.word(L3 + 8 * page).unwrap();
    let va = VA + (page << 12);
    let valid = word & 1 == 1 && word & ACCESSED != 0;
    let taken = TABLES.iter().fold(0, |taken, (pa, _)| taken | machine.word(*pa).unwrap() >> HIERARCHICAL);
    let allowed = match kind {
        Use::Read => true,
        Use::Write => word & READ_ONLY == 0 && taken & 0b1000 == 0,
        Use::Execute => word & PXN == 0 && taken & 0b0001 == 0,
    };
    if valid && allowed {
        Event::Access { cpu, va, kind, pa: page << 12 }
    } else {
        Event::Faults { cpu, va, kind }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_settled_every_access_agrees_with(
        bbm in 0..4_u8,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        // Events that break a rule are left out.
        let mut legal = Vec::new();
        let mut present = machine(bbm, &legal);
        for event in steps.into_iter().flatten() {
            if present.step(&event).is_ok() {
                legal.push(event);
            } else {
                present = machine(bbm, &legal);
            }
        }
        if present.step(&Event::Settled).is_err() {
            return Ok(());
        }
        for cpu in 0..2 {
            present.step(&Event::Isb { cpu }).unwrap();
            for page in 0..PAGES {
                for kind in [Use::Read, Use::Write, Use::Execute] {
                    let access = expected(&present, cpu, page, kind);
                    prop_assert_eq!(present.step(&access), Ok(()), "{} after {:#?}", access, legal);
                }
            }
        }
    }

    #[test]
    fn what_is_settled_step_by_step_is_settled_as_a_whole(
        bbm in 0..4_u8,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        // `present` looks only at what changed since its last `settled`, `whole` at everything.
        let mut legal = Vec::new();
        let mut present = machine(bbm, &legal);
        for step in steps {
            let mut accepted = step.iter().all(|event| present.step(event).is_ok());
            if accepted {
                let mut whole = machine(bbm, &legal);
                let judged = step.iter().chain([&Event::Settled]).try_for_each(|event| whole.step(event));
                let at_once = judged.map_err(|violation| violation.rule);
                let stepwise = present.step(&Event::Settled).map_err(|violation| violation.rule);
                prop_assert_eq!(stepwise.is_ok(), at_once.is_ok(), "{:?} or {:?}", stepwise, at_once);
                accepted = stepwise.is_ok();
            }
            if accepted {
                legal.extend(step);
            } else {
                present = machine(bbm, &[]);
                for event in &legal {
                    present.step(event).unwrap();
                }
                // Whatever was settled before is settled.
                present.step(&Event::Settled).unwrap();
            }
        }
    }
}

//! Witnesses: the fewest events that make a mistake, with every TLBI and DSB that missed.

mod scene;

use std::fs;
use std::path::Path;

use linmap_model::event::{Access, Domain, Register, TlbiScope};
use linmap_model::trace::text;
use linmap_model::{Config, Event, Miss, Missed, Rule, Trace, Violation, Witness};
use scene::*;

fn dsb(cpu: usize, domain: Domain, access: Access) -> Event {
    Event::Dsb { cpu, domain, access }
}

const ORDER: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores };
const WAIT: Event = Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All };
const ISB: Event = Event::Isb { cpu: 0 };

fn store(pa: u64, value: u64) -> Event {
    Event::Store { cpu: 0, pa, value, via: None }
}

fn tlbi(scope: TlbiScope, operand: u64) -> Event {
    Event::Tlbi { cpu: 0, tlbi: broadcast(scope), operand }
}

/// A page at the first address of `register`'s half on two CPUs, after `more`.
fn trace(register: Register, leaf: u64, more: &[Event]) -> Trace {
    let config = Config {
        cpus: 2,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram: vec![(RAM, 0x10_0000)],
        leniency: linmap_model::Leniency::Strict,
    };
    let mut events: Vec<Event> =
        [ROOT, L1, L2, L3, SPARE].map(|pa| Event::Fill { cpu: 0, pa, count: 512, first: 0, step: 0 }).into();
    events.extend([store(ROOT, L1 | TABLE), store(L1, L2 | TABLE), store(L2, L3 | TABLE), store(L3, leaf)]);
    events.push(ORDER);
    let asid = if register == Register::Ttbr0 { 1 << 48 } else { 0 };
    for cpu in 0..2 {
        events.extend([Event::Write { cpu, register, value: ROOT | asid }, Event::Isb { cpu }]);
    }
    events.extend(more);
    Trace { config, events }
}

/// The witness of unmapping the page of `trace` in vain.
#[track_caller]
fn unmapped(register: Register, leaf: u64, steps: &[Event]) -> Witness {
    let mut more = vec![store(L3, 0)];
    more.extend(steps);
    more.extend([ISB, Event::Isb { cpu: 1 }, Event::Settled]);
    let witness = trace(register, leaf, &more).witness().unwrap().unwrap();
    assert_eq!(witness.violation.rule, Rule::StaleTranslation, "{witness}");
    println!("{witness}");
    witness
}

/// What is said of the witness's TLBIs and DSBs that missed, each with its event.
fn said(witness: &Witness) -> Vec<(Event, Miss)> {
    witness.missed.iter().map(|&Missed { event, why }| (witness.trace.events[event], why)).collect()
}

#[test]
fn a_wrong_operand_or_scope_is_kept_and_explained() {
    let hint = |granule: u64, level: u64| va(VA) | (granule << 2 | level) << 44;
    let high = [
        (TlbiScope::VaAnyAsidLast, hint(0b01, 2), Miss::Level { hint: 2, level: 3 }),
        (TlbiScope::VaAnyAsidLast, hint(0b10, 3), Miss::Granule),
        (TlbiScope::VaAnyAsid, va(VA + 0x5000), Miss::OtherAddress { first: VA + 0x5000, last: VA + 0x5fff }),
        (
            TlbiScope::RangeAnyAsid,
            range(VA + 0x4000, 1, 0),
            Miss::OtherAddress { first: VA + 0x4000, last: VA + 0x7fff },
        ),
        (TlbiScope::AllEl2, 0, Miss::OtherRegime),
        (TlbiScope::Asid, asid(1), Miss::Global),
    ];
    for (scope, operand, why) in high {
        let missed = tlbi(scope, operand);
        let witness = unmapped(Register::Ttbr1, PAGE, &[ORDER, missed, WAIT]);
        assert_eq!(said(&witness), [(missed, why)], "{witness}");
        assert!(witness.trace.events.contains(&WAIT), "the DSB that completes it:\n{witness}");
    }
    let low = [
        (TlbiScope::Va, asid(2), Miss::OtherId { given: 2, held: 1 }),
        (TlbiScope::Asid, asid(2), Miss::OtherId { given: 2, held: 1 }),
    ];
    for (scope, operand, why) in low {
        let missed = tlbi(scope, operand);
        let witness = unmapped(Register::Ttbr0, PAGE | NON_GLOBAL, &[ORDER, missed, WAIT]);
        assert_eq!(said(&witness), [(missed, why)], "{witness}");
    }
    let missed = tlbi(TlbiScope::Va, va(VA));
    let witness = unmapped(Register::Ttbr1, PAGE | NON_GLOBAL, &[ORDER, missed, WAIT]);
    assert_eq!(said(&witness), [(missed, Miss::IdOfLowHalf)], "{witness}");
}

#[test]
fn a_local_invalidation_says_which_cpu_holds_the_entry() {
    let local = Event::Tlbi { cpu: 0, tlbi: ALL_LOCAL, operand: 0 };
    let witness = unmapped(Register::Ttbr1, PAGE, &[ORDER, local, WAIT]);
    assert_eq!(said(&witness), [(local, Miss::Local { holder: 1 })]);
    assert_eq!(witness.violation.cpu, Some(1));
}

#[test]
fn barriers_that_are_too_weak_or_on_the_wrong_cpu_are_explained() {
    let right = tlbi(TlbiScope::VaAnyAsidLast, va(VA));
    let witness = unmapped(Register::Ttbr1, PAGE, &[ORDER, right]);
    assert_eq!(said(&witness), [(right, Miss::Incomplete)]);
    let weak = [
        (ORDER, Miss::StoresOnly),
        (dsb(0, Domain::Nsh, Access::All), Miss::NonShareable),
        (dsb(1, Domain::Ish, Access::All), Miss::OtherCpu { needed: 0 }),
    ];
    for (barrier, why) in weak {
        let witness = unmapped(Register::Ttbr1, PAGE, &[ORDER, right, barrier]);
        assert_eq!(said(&witness), [(right, Miss::Incomplete), (barrier, why)], "{witness}");
    }
    // The store was not ordered when the TLBI was issued.
    let witness = unmapped(Register::Ttbr1, PAGE, &[right, WAIT]);
    assert_eq!(said(&witness), [(right, Miss::BeforeOrdered)]);
    let early = dsb(0, Domain::Nsh, Access::Stores);
    let witness = unmapped(Register::Ttbr1, PAGE, &[early, right, WAIT]);
    assert_eq!(said(&witness), [(early, Miss::NonShareable), (right, Miss::BeforeOrdered)]);
}

#[test]
fn a_pointer_that_last_levels_leave_is_explained() {
    let last = tlbi(TlbiScope::RangeAnyAsidLast, range(VA, 7, 1));
    let more = [store(L2, 0), ORDER, last, WAIT, ISB, Event::Free { pa: L3, len: 0x1000 }];
    let witness = trace(Register::Ttbr1, PAGE, &more).witness().unwrap().unwrap();
    assert_eq!(witness.violation.rule, Rule::TableReachable);
    assert_eq!(said(&witness), [(last, Miss::LeavesAlone)], "{witness}");
}

#[test]
fn a_tree_that_was_left_is_held_until_its_whole_asid_goes() {
    let left = |tlbi: Event, late: bool| {
        let mut more = vec![];
        for cpu in 0..2 {
            more.push(Event::Write { cpu, register: Register::Ttbr1, value: SPARE });
            if late || cpu == 1 {
                more.push(Event::Isb { cpu });
            }
        }
        more.extend([tlbi, WAIT, ISB, Event::Settled]);
        trace(Register::Ttbr1, PAGE, &more).witness().unwrap().unwrap()
    };
    let by_va = tlbi(TlbiScope::VaAnyAsid, va(VA));
    let witness = left(by_va, true);
    assert_eq!(said(&witness), [(by_va, Miss::PartOfTree)], "{witness}");
    let all = tlbi(TlbiScope::AllEl1, 0);
    let witness = left(all, false);
    assert_eq!(said(&witness), [(all, Miss::BeforeLeft)], "{witness}");
}

#[test]
fn of_many_invalidations_of_other_addresses_the_nearest_are_kept() {
    let far = |page: u64| tlbi(TlbiScope::VaAnyAsidLast, va(VA + page * 0x1000));
    let mut steps = vec![ORDER];
    steps.extend((1..=40).rev().map(far));
    steps.push(WAIT);
    let witness = unmapped(Register::Ttbr1, PAGE, &steps);
    let kept: Vec<Event> = said(&witness).iter().map(|(event, _)| *event).collect();
    assert_eq!(kept, (1..=16).rev().map(far).collect::<Vec<_>>());
    assert_eq!(witness.left_out, 24);
    assert!(witness.to_string().contains("and 24 more TLBIs"), "{witness}");
}

#[test]
fn a_witness_of_a_file_says_what_its_tlbi_misses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/ttl-wrong-level-16k-l2.bad.trace");
    let trace = text::read(&fs::read(path).unwrap()).unwrap();
    let witness = trace.witness().unwrap().unwrap();
    assert_eq!(said(&witness)[0].1, Miss::Level { hint: 3, level: 2 });
    let shown = witness.to_string();
    assert!(shown.contains("tlbi vaale1is 0xbff800000000"), "{shown}");
    assert!(shown.contains("misses: TTL says level 3, the entry is at level 2"), "{shown}");
}

#[test]
fn a_witness_holds_nothing_that_does_not_matter() {
    let mut more = Vec::new();
    for page in 0..100 {
        more.extend([store(L3 + 8 * page, PAGE | page << 12), ORDER, ISB]);
    }
    // Page 7 gets another address after a local invalidation alone.
    more.extend([store(L3 + 56, 0), ORDER, Event::Tlbi { cpu: 0, tlbi: ALL_LOCAL, operand: 0 }, WAIT]);
    more.extend([store(L3 + 56, PAGE | 0x9_9000), Event::Settled]);
    let witness = trace(Register::Ttbr1, 0, &more).witness().unwrap().unwrap();
    assert_eq!(witness.violation.rule, Rule::OutputAddress);
    assert_eq!(said(&witness)[0].1, Miss::Local { holder: 1 });
    for nth in 0..witness.trace.events.len() {
        let mut less = witness.trace.clone();
        let event = less.events.remove(nth);
        let same = |violation: Violation| violation.same_mistake(&witness.violation);
        // What missed is kept, with the store that it should have followed.
        let explained =
            matches!(event, Event::Tlbi { .. } | Event::Dsb { .. } | Event::Store { value: 0, .. });
        assert!(explained || !less.check().unwrap().is_err_and(same), "event {nth} could go:\n{witness}");
    }
    assert!(witness.trace.events.len() < 16, "{witness}");
}

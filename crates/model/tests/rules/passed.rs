//! Order without a DSB of the CPU that stores: DMB, store-release and load-acquire.

use linmap_model::event::{Access, Domain, Register};
use linmap_model::{Config, Event, Leniency, Rule};

use crate::scene::*;

const LOCK: u64 = 0x9000_0000;
const STORES: Access = Access::Stores;

fn dmb(cpu: usize, domain: Domain, access: Access) -> Event {
    Event::Dmb { cpu, domain, access }
}

fn dsb(cpu: usize, access: Access) -> Event {
    Event::Dsb { cpu, domain: Domain::Ish, access }
}

fn store(cpu: usize, pa: u64, value: u64) -> Event {
    Event::Store { cpu, pa, value, via: None }
}

/// Two CPUs that walk one tree, whose table of pages maps a page at `VA`.
fn walked(leniency: Leniency) -> Scene {
    let ram = vec![(RAM, 0x10_0000)];
    let config = Config { cpus: 2, bbm: 0, granule: 0x1000, va_bits: 48, pa_bits: 48, ram, leniency };
    let mut scene = Scene::bare(&config);
    for table in [ROOT, L1, L2, L3] {
        scene.zero(table);
    }
    scene.store(ROOT, L1 | TABLE).store(L1, L2 | TABLE).store(L2, L3 | TABLE).store(L3, PAGE).ordered();
    scene.root(0, ROOT).root(1, ROOT);
    scene
}

/// `SPARE` holds what another system left there. CPU 0 clears it, `events` happen, and CPU 0 links
/// it.
fn cleared(left: u64, events: &[Event]) -> Scene {
    let mut scene = walked(Leniency::Strict);
    for pa in (SPARE..SPARE + 0x1000).step_by(8) {
        scene.store(pa, left);
    }
    scene.ordered();
    scene.zero(SPARE);
    for event in events {
        scene.event(*event);
    }
    scene.event(store(0, L1 + 8, SPARE | TABLE)).event(dsb(0, STORES)).isb(0);
    scene
}

#[test]
fn zeros_are_ordered_before_the_pointer_to_them_if_memory_held_what_walks_can_use() {
    // An output address that is too large, and nothing valid.
    for (left, is_usable) in [(0xffff_ffff_f703, true), (0xffff_ffff_f700, false)] {
        let scene = cleared(left, &[]);
        if is_usable {
            scene.breaks(Rule::Unordered);
        } else {
            scene.legal();
        }
        cleared(left, &[dmb(0, Domain::Ish, STORES)]).legal();
        cleared(left, &[dsb(0, STORES)]).legal();
    }
}

/// CPU 0 fills a table, then `events` happen, and CPU `linker` links it.
fn linked(leniency: Leniency, events: &[Event], linker: usize) -> Scene {
    let mut scene = walked(leniency);
    scene.zero(SPARE).store(SPARE, PAGE | 0x2000);
    for event in events {
        scene.event(*event);
    }
    scene.event(store(linker, L2 + 8, SPARE | TABLE)).event(dsb(linker, STORES)).isb(linker);
    scene
}

#[test]
fn a_dmb_orders_what_is_in_a_table_before_the_pointer_to_it() {
    for (event, is_ordered) in [
        (dmb(0, Domain::Ish, STORES), true),
        (dmb(0, Domain::Sy, Access::All), true),
        (dmb(0, Domain::Ish, Access::Loads), false),
        (dmb(0, Domain::Nsh, STORES), false),
        (dmb(1, Domain::Ish, Access::All), false),
    ] {
        let scene = linked(Leniency::Strict, &[event], 0);
        if is_ordered {
            scene.legal();
        } else {
            scene.breaks(Rule::UnknownEntry);
        }
    }
    linked(Leniency::Strict, &[], 0).breaks(Rule::UnknownEntry);
    // A store behind the DMB.
    let mut scene = walked(Leniency::Strict);
    scene.store(SPARE, PAGE).event(dmb(0, Domain::Ish, STORES)).zero(SPARE);
    scene.event(store(0, L2 + 8, SPARE | TABLE)).breaks(Rule::UnknownEntry);
}

#[test]
fn a_dmb_completes_no_store_for_walks_that_a_register_begins() {
    let begun = |event| {
        let mut scene = walked(Leniency::Kernels);
        scene.zero(OTHER).event(event).root(0, OTHER);
        scene
    };
    begun(dsb(0, STORES)).legal();
    begun(dmb(0, Domain::Ish, Access::All)).breaks(Rule::UnknownEntry);
}

#[test]
fn a_table_is_linked_by_the_cpu_that_acquired_what_another_released() {
    let release = Event::Release { cpu: 0, pa: LOCK };
    let acquire = |pa| Event::Acquire { cpu: 1, pa };
    linked(Leniency::Strict, &[release, acquire(LOCK)], 1).legal();
    for events in [&[release][..], &[acquire(LOCK), release], &[release, acquire(LOCK + 8)], &[acquire(LOCK)]]
    {
        linked(Leniency::Strict, events, 1).breaks(Rule::UnknownEntry);
    }
}

#[test]
fn a_barrier_takes_nothing_over_from_a_cpu_that_it_did_not_read_of() {
    let release = Event::Release { cpu: 0, pa: LOCK };
    for offered in [dmb(0, Domain::Ish, STORES), dmb(0, Domain::Sy, Access::All), release] {
        for barrier in [
            dmb(1, Domain::Ish, Access::Loads),
            dmb(1, Domain::Ish, Access::All),
            dsb(1, Access::Loads),
            dsb(1, Access::All),
        ] {
            linked(Leniency::Kernels, &[offered, barrier], 1).breaks(Rule::UnknownEntry);
            // The invalidation is of the CPU that stored: the other's barrier is an unrelated one.
            let mut scene = walked(Leniency::Kernels);
            scene.store(L3, 0).event(offered).event(barrier).tlbi(ALL, 0).dsb(Access::All).isb(0);
            scene.store(L3, PAGE | 0x5000).breaks(Rule::OutputAddress);
            // A lock that the other took over is related.
            let taken = Event::Acquire { cpu: 1, pa: LOCK };
            let mut scene = walked(Leniency::Kernels);
            scene.store(L3, 0).event(release).event(taken).event(dsb(1, Access::All));
            scene.tlbi(ALL, 0).dsb(Access::All).isb(0).store(L3, PAGE | 0x5000).legal();
        }
    }
}

/// CPU 0 makes the page invalid, then `events` happen, CPU 1 invalidates it behind a DSB of
/// `access`, and another page takes its place.
fn unmapped(leniency: Leniency, events: &[Event], access: Access) -> Scene {
    let mut scene = walked(leniency);
    scene.store(L3, 0);
    for event in events {
        scene.event(*event);
    }
    scene.event(dsb(1, access)).event(Event::Tlbi {
        cpu: 1,
        tlbi: BY_VA,
        operand: VA >> 12 & 0xfff_ffff_ffff,
    });
    scene.event(dsb(1, Access::All)).isb(1).event(store(1, L3, PAGE | 0x5000));
    scene
}

#[test]
fn a_dsb_orders_the_stores_that_its_cpu_has_acquired() {
    let passed = [Event::Release { cpu: 0, pa: LOCK }, Event::Acquire { cpu: 1, pa: LOCK }];
    unmapped(Leniency::Strict, &passed, Access::All).legal();
    unmapped(Leniency::Strict, &[], Access::All).breaks(Rule::OutputAddress);
    unmapped(Leniency::Kernels, &passed[..1], STORES).breaks(Rule::OutputAddress);
    unmapped(Leniency::Kernels, &passed[1..], Access::All).breaks(Rule::OutputAddress);
    // DSB ISHST behind the acquire, as of a flush.
    unmapped(Leniency::Kernels, &passed, STORES).legal();
    unmapped(Leniency::Strict, &passed, STORES).breaks(Rule::OutputAddress);
    // What is stored behind the release is not known.
    let late = [passed[0], store(0, L3, PAGE), store(0, L3, 0), passed[1]];
    unmapped(Leniency::Kernels, &late, STORES).breaks(Rule::OutputAddress);
}

#[test]
fn an_acquire_passes_on_what_others_passed_before() {
    let ram = vec![(RAM, 0x10_0000)];
    let leniency = Leniency::Strict;
    let config = Config { cpus: 3, bbm: 0, granule: 0x1000, va_bits: 48, pa_bits: 48, ram, leniency };
    let chained = |second: u64| {
        let mut scene = Scene::bare(&config);
        for table in [ROOT, L1, L2] {
            scene.zero(table);
        }
        scene.store(ROOT, L1 | TABLE).store(L1, L2 | TABLE).ordered().root(2, ROOT);
        scene.zero(L3).event(Event::Release { cpu: 0, pa: LOCK }).event(Event::Acquire { cpu: 1, pa: LOCK });
        scene.event(Event::Release { cpu: 1, pa: LOCK + 8 }).event(Event::Acquire { cpu: 2, pa: second });
        scene.event(store(2, L2, L3 | TABLE)).event(dsb(2, STORES)).isb(2);
        scene
    };
    chained(LOCK + 8).legal();
    chained(LOCK + 16).breaks(Rule::UnknownEntry);
    let register = Register::Ttbr1;
    chained(LOCK + 8).event(Event::Write { cpu: 0, register, value: ROOT }).legal();
}

#[test]
fn what_is_ordered_before_one_pointer_is_not_before_another_way_to_the_table() {
    let led = |events: &[Event]| {
        let mut scene = walked(Leniency::Strict);
        scene.zero(SPARE).event(dmb(0, Domain::Ish, STORES)).event(store(0, L2 + 8, SPARE | TABLE));
        for event in events {
            scene.event(*event);
        }
        scene
    };
    let root = Event::Write { cpu: 0, register: Register::Ttbr0, value: SPARE };
    led(&[root]).breaks(Rule::Unordered);
    led(&[dsb(0, STORES), root]).legal();
    // Another CPU's pointer, without and with what it has to know.
    let other = store(1, L2 + 16, SPARE | TABLE);
    led(&[other]).breaks(Rule::Unordered);
    led(&[Event::Release { cpu: 0, pa: LOCK }, Event::Acquire { cpu: 1, pa: LOCK }, other]).legal();
    led(&[store(0, L2 + 16, SPARE | TABLE), dsb(0, STORES)]).legal();
}

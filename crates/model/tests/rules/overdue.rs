//! Access that a thread took back, and that is cached when it returns to EL0.

use linmap_model::event::{Access, Register, TlbiScope};
use linmap_model::{Event, TakenBack};
use linmap_trace::Recorded;

use crate::scene::*;

const THREAD: u64 = 0xffff_8000_0001_4000;
const USER: u64 = PAGE | NON_GLOBAL | 1 << 6;
/// Not UXN: EL0 executes it.
const USER_TEXT: u64 = USER & !(1 << 54) | READ_ONLY;
/// Not PXN: EL1 executes it.
const TEXT: u64 = PAGE & !(1 << 53) | READ_ONLY;

fn returned(cpu: usize, thread: u64) -> Event {
    Event::User { cpu, thread }
}

/// How often access was taken back, and how often that was overdue.
#[track_caller]
fn counts(scene: &Scene) -> (u64, u64) {
    scene.legal();
    scene.machine.taken_back().fold((0, 0), |(of, overdue), own| (of + own.count, overdue + own.overdue))
}

/// Two CPUs walk a tree of ASID 1, and CPU 0 changes a leaf of user space.
fn changed(from: u64, to: u64) -> Scene {
    let mut scene = user(from, 2);
    scene.store(A3, to);
    scene
}

/// CPU 0 changes a leaf of the kernel.
fn changed_in_kernel(from: u64, to: u64) -> Scene {
    let mut scene = Scene::new(3, 2);
    scene.store(L3, from).ordered().store(L3, to);
    scene
}

#[test]
fn what_a_thread_took_back_is_overdue_at_its_return_unless_a_tlbi_is_complete() {
    let tlbi = broadcast(TlbiScope::Va);
    let mut scene = changed(USER, 0);
    assert_eq!(counts(scene.ordered().event(returned(0, THREAD))), (1, 1));
    let mut scene = changed(USER, 0);
    assert_eq!(counts(scene.invalidated(tlbi, asid(1)).event(returned(0, THREAD))), (1, 0));
    // No DSB behind the TLBI, or none before it.
    let mut scene = changed(USER, 0);
    assert_eq!(counts(scene.ordered().tlbi(tlbi, asid(1)).event(returned(0, THREAD))), (1, 1));
    let mut scene = changed(USER, 0);
    assert_eq!(counts(scene.tlbi(tlbi, asid(1)).dsb(Access::All).event(returned(0, THREAD))), (1, 1));
    // Of this CPU alone, of another ASID, of another address.
    for (tlbi, operand) in [(ALL_LOCAL, 0), (tlbi, asid(2)), (tlbi, asid(1) | va(0x1000))] {
        let mut scene = changed(USER, 0);
        assert_eq!(counts(scene.invalidated(tlbi, operand).event(returned(0, THREAD))), (1, 1));
    }
}

#[test]
fn access_of_el0_is_taken_back_by_invalid_entries_and_by_fewer_permissions() {
    let overdue = |mut scene: Scene| counts(scene.ordered().event(returned(0, THREAD)));
    assert_eq!(overdue(changed(USER, USER | READ_ONLY)), (1, 1));
    assert_eq!(overdue(changed(USER_TEXT, USER_TEXT | 1 << 54)), (1, 1));
    assert_eq!(overdue(changed(USER_TEXT, 0)), (1, 1));
    // More than before, the access flag alone, no access before.
    assert_eq!(overdue(changed(USER | READ_ONLY, USER)), (0, 0));
    assert_eq!(overdue(changed(USER, USER & !(1 << 10))), (0, 0));
    assert_eq!(overdue(changed(0, USER)), (0, 0));
}

#[test]
fn of_the_kernel_s_access_permissions_count_and_invalid_entries_do_not() {
    let overdue = |mut scene: Scene| counts(scene.ordered().event(returned(1, THREAD)));
    let of_thread = |mut scene: Scene| {
        scene.event(Event::Thread { cpu: 0, thread: THREAD });
        overdue(scene)
    };
    assert_eq!(of_thread(changed_in_kernel(PAGE, PAGE | READ_ONLY)), (1, 1));
    assert_eq!(of_thread(changed_in_kernel(TEXT, TEXT | 1 << 53)), (1, 1));
    // Its address is nobody's until it is mapped again.
    assert_eq!(of_thread(changed_in_kernel(PAGE, 0)), (0, 0));
    let mut scene = changed_in_kernel(PAGE, PAGE | READ_ONLY);
    scene.ordered().store(L3, 0).event(Event::Thread { cpu: 0, thread: THREAD });
    assert_eq!(overdue(scene), (1, 0));
    // It was given again.
    let mut scene = changed_in_kernel(PAGE, PAGE | READ_ONLY);
    scene.ordered().store(L3, PAGE).event(Event::Thread { cpu: 0, thread: THREAD });
    assert_eq!(overdue(scene), (1, 0));
}

#[test]
fn a_thread_that_has_not_returned_may_still_invalidate() {
    let other = THREAD + 0x8000;
    // It was preempted, and another thread of the same tree returns, on either CPU.
    for cpu in [0, 1] {
        let mut scene = changed(USER, 0);
        scene.event(Event::Thread { cpu: 0, thread: THREAD }).ordered().event(returned(cpu, other));
        assert_eq!(counts(&scene), (1, 0));
        scene.tlbi(broadcast(TlbiScope::Va), asid(1)).dsb(Access::All);
        assert_eq!(counts(scene.event(returned(1, THREAD))), (1, 0));
    }
    let mut scene = changed(USER, 0);
    scene.event(Event::Thread { cpu: 0, thread: THREAD }).ordered().event(returned(0, other));
    assert_eq!(counts(scene.event(returned(1, THREAD))), (1, 1));
    // Once is enough.
    assert_eq!(counts(scene.event(returned(1, THREAD))), (1, 1));
}

#[test]
fn what_no_cpu_can_use_is_not_overdue() {
    // Every CPU has left the tree before, as after exec.
    let mut scene = user(USER, 2);
    for cpu in [0, 1] {
        scene.write(cpu, Register::Ttbr0, B | asid(2)).isb(cpu);
    }
    assert_eq!(counts(scene.store(A3, 0).ordered().event(returned(0, THREAD))), (1, 0));
    let mut scene = changed(USER, 0);
    scene.ordered().write(0, Register::Ttbr0, B | asid(2)).isb(0);
    assert_eq!(counts(scene.event(returned(0, THREAD))), (1, 1), "CPU 1 walks under it");
}

#[test]
fn the_asid_of_the_kernel_for_the_same_tree_is_invalidated_too() {
    for (ids, overdue) in [(&[1, 2][..], 0), (&[1], 1), (&[2], 1)] {
        let mut scene = user(USER, 1);
        // As KPTI has it: EL0 has ASID 2.
        let switch = |scene: &mut Scene, id| {
            scene.write(0, Register::Ttbr0, A | asid(id)).isb(0);
        };
        switch(&mut scene, 2);
        switch(&mut scene, 1);
        scene.store(A3, 0).ordered();
        for id in ids {
            scene.tlbi(broadcast(TlbiScope::Va), asid(*id));
        }
        scene.dsb(Access::All);
        switch(&mut scene, 2);
        assert_eq!(counts(scene.event(returned(0, THREAD))), (1, overdue), "{ids:?}");
    }
}

#[test]
fn a_store_to_a_table_of_two_trees_counts_once_and_has_its_place() {
    let mut scene = Scene::new(3, 1);
    scene.tree(A).zero(B).store(B, (A + 0x1000) | TABLE).ordered();
    scene.write(0, Register::Ttbr0, A | asid(1)).isb(0);
    scene.write(0, Register::Ttbr0, B | asid(2)).isb(0);
    scene.write(0, Register::Ttbr0, A | asid(1)).isb(0);
    scene.store(A3 + 8, USER).ordered();
    let event = Event::Store { cpu: 0, pa: A3 + 8, value: 0, via: None };
    let number = scene.machine.events();
    scene.machine.step_recorded(&Recorded { event, pc: Some(0x1234) }).unwrap();
    scene.event(returned(0, THREAD));
    let found: Vec<_> = scene.machine.taken_back().copied().collect();
    let expected = TakenBack { pc: Some(0x1234), count: 1, overdue: 1, first: Some((number, 0x1000)) };
    assert_eq!(found, [expected]);
}

#[test]
fn threads_that_never_return_take_back_as_well_and_are_never_overdue() {
    let mut scene = user(USER, 1);
    for thread in 0..20_000 {
        scene.store(A3, 0).event(Event::Thread { cpu: 0, thread });
        scene.invalidated(broadcast(TlbiScope::Va), asid(1)).store(A3, USER).ordered();
    }
    assert_eq!((counts(&scene), scene.machine.returns()), ((20_000, 0), 0));
    assert_eq!(counts(scene.event(returned(0, THREAD))), (20_000, 0));
    assert_eq!(scene.machine.returns(), 1);
}

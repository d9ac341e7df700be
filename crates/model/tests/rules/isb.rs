//! What is certain only with a context synchronization: an invalidation on the CPU that issued it,
//! without FEAT_ETS2 (Arm ARM D8.17, RBLDZX). For other CPUs the DSB is enough (RYNJCP).

use crate::scene::*;
use linmap_model::event::{Access, Domain, Register, TlbiScope, Use};
use linmap_model::{Event, Rule};

/// Makes CPU `cpu` drop a tree that it left, except for the ISB at the end.
fn forgets(scene: &mut Scene, cpu: usize) -> &mut Scene {
    scene.event(Event::Tlbi { cpu, tlbi: ALL_LOCAL, operand: 0 });
    scene.event(Event::Dsb { cpu, domain: Domain::Nsh, access: Access::All })
}

/// A page at `VA`, and both CPUs on the way off the tree: CPU 0 has nothing of it, CPU 1 lacks the
/// last ISB.
fn both_left() -> Scene {
    let mut scene = Scene::new(3, 2);
    scene.store(L3, PAGE).zero(SPARE).tree(A).ordered().isb(1).root(0, SPARE).root(1, SPARE);
    forgets(&mut scene, 0).isb(0);
    forgets(&mut scene, 1);
    scene
}

#[test]
fn a_cpu_may_hold_a_tree_that_it_left_until_the_isb_behind_the_dsb_of_its_invalidation() {
    both_left().settled().breaks(Rule::NoIsb);
    both_left().isb(1).settled().legal();
    both_left().faults(1, VA).breaks(Rule::MayPass);
    both_left().isb(1).faults(1, VA).legal();
    // An edit that no walker allows.
    both_left().store(L3, PAGE | 0x1000).breaks(Rule::OutputAddress);
    both_left().isb(1).store(L3, PAGE | 0x1000).ordered().settled().legal();
    // The frames of the tree.
    both_left().event(free(L3)).breaks(Rule::TableReachable);
    both_left().isb(1).event(free(ROOT)).event(free(L3)).legal();
    // Another tree in the same register.
    both_left().root(1, A).breaks(Rule::NextTable);
    both_left().isb(1).root(1, A).legal();
    // CPU 0 has synchronised its own context and holds nothing of the tree.
    both_left().faults(0, VA).root(0, A).legal();
}

#[test]
fn an_isb_before_the_dsb_makes_nothing_certain() {
    let left = || {
        let mut scene = Scene::new(3, 1);
        scene.store(L3, PAGE).zero(SPARE).ordered().root(0, SPARE);
        scene.event(Event::Tlbi { cpu: 0, tlbi: ALL_LOCAL, operand: 0 }).isb(0);
        scene.event(Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Access::All });
        scene
    };
    left().faults(0, VA).breaks(Rule::MayPass);
    left().settled().breaks(Rule::NoIsb);
    left().isb(0).faults(0, VA).settled().legal();
}

#[test]
fn an_invalidation_by_another_cpu_is_finished_with_its_dsb() {
    // CPU 1 left the tree and did nothing more about it, or all but its last ISB.
    let left = |own: bool| {
        let mut scene = Scene::new(3, 2);
        scene.store(L3, PAGE).zero(SPARE).ordered().isb(1).root(0, SPARE).root(1, SPARE);
        if own {
            forgets(&mut scene, 1);
        }
        scene.tlbi(ALL, 0).dsb(Access::All);
        scene
    };
    for own in [false, true] {
        left(own).faults(1, VA).legal();
        left(own).faults(0, VA).breaks(Rule::MayPass);
        left(own).store(L3, PAGE | 0x1000).breaks(Rule::OutputAddress);
        left(own).isb(1).store(L3, PAGE | 0x1000).breaks(Rule::OutputAddress);
        left(own).isb(0).store(L3, PAGE | 0x1000).ordered().settled().legal();
    }
    // What a register left for certain only afterwards was not reached.
    let mut scene = Scene::new(3, 2);
    scene.store(L3, PAGE).zero(SPARE).ordered().isb(1).root(0, SPARE).write(1, Register::Ttbr1, SPARE);
    scene.tlbi(ALL, 0).dsb(Access::All).isb(0).isb(1).faults(1, VA).breaks(Rule::MayPass);
}

#[test]
fn an_invalidation_by_asid_is_synchronised_like_any_other() {
    let reused = |synchronised: bool| {
        let mut scene = user(PAGE | NON_GLOBAL, 1);
        scene.zero(SPARE).store(B3, PAGE | NON_GLOBAL | 0x1000).ordered();
        scene.write(0, Register::Ttbr0, SPARE | asid(3)).isb(0);
        scene.tlbi(broadcast(TlbiScope::Asid), asid(1)).dsb(Access::All);
        if synchronised {
            scene.isb(0);
        }
        scene.write(0, Register::Ttbr0, B | asid(1)).isb(0);
        scene
    };
    reused(false).breaks(Rule::NextTable);
    reused(true).reaches(0, 0, Use::Read, 0x1000).settled().legal();
}

#[test]
fn tcr_and_mair_change_after_the_isb_behind_the_last_invalidation() {
    // T0SZ = 25, T1SZ = 16, TG1 = 4K.
    let tcr = 25 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let left = || {
        let mut scene = user(PAGE | NON_GLOBAL, 1);
        scene.zero(SPARE).ordered().write(0, Register::Ttbr0, SPARE).isb(0);
        forgets(&mut scene, 0);
        scene
    };
    left().write(0, Register::Tcr, tcr).breaks(Rule::TranslationControl);
    left().isb(0).write(0, Register::Tcr, tcr).legal();
    let empty = || {
        let mut scene = Scene::new(0, 1);
        scene.store(ROOT, 0).invalidated(ALL, 0).write(0, Register::Mair, 0xff).store(ROOT, L1 | TABLE);
        scene.ordered().store(ROOT, 0).dsb(Access::Stores).tlbi(ALL, 0).dsb(Access::All);
        scene
    };
    empty().write(0, Register::Mair, 0x44).breaks(Rule::MemoryAttributes);
    empty().isb(0).write(0, Register::Mair, 0x44).legal();
}

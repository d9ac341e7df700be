//! CnP: CPUs that set it may use each other's entries.

use crate::scene::*;
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

const CNP: u64 = 1;
const LOCAL: u64 = PAGE | NON_GLOBAL;

/// Two CPUs with the tree `A` in TTBR1, with CnP where `common` says.
fn mapped(common: [u64; 2]) -> Scene {
    let config = Config {
        cpus: 2,
        bbm: 3,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram: vec![(RAM, 0x10_0000)],
        leniency: linmap_model::Leniency::Strict,
    };
    let mut scene = Scene::bare(&config);
    scene.tree(A).tree(B).zero(SPARE).store(A3, PAGE).store(B3, LOCAL | 0x1000).ordered();
    for (cpu, bits) in common.into_iter().enumerate() {
        scene.root(cpu, A | bits);
    }
    scene.settled();
    scene
}

/// TLBI by each of `cpus` for itself.
fn invalidated_locally(scene: &mut Scene, cpus: &[usize]) {
    for &cpu in cpus {
        scene.event(Event::Tlbi { cpu, tlbi: ALL_LOCAL, operand: 0 });
        scene.event(Event::Dsb { cpu, domain: Domain::Nsh, access: Access::All }).isb(cpu);
    }
}

#[test]
fn a_local_tlbi_proves_nothing_of_what_cpus_have_in_common() {
    let unmapped = |common, cpus: &[usize]| {
        let mut scene = mapped(common);
        scene.store(A3, 0).ordered();
        invalidated_locally(&mut scene, cpus);
        scene.settled();
        scene
    };
    for alone in [[0, 0], [CNP, 0], [0, CNP]] {
        unmapped(alone, &[0, 1]).legal();
    }
    // One takes the entry from the other again.
    unmapped([CNP, CNP], &[0, 1]).breaks(Rule::StaleTranslation);
    unmapped([CNP, CNP], &[0, 1, 0, 1]).breaks(Rule::StaleTranslation);
    for common in [[0, 0], [CNP, CNP]] {
        let mut scene = mapped(common);
        scene.store(A3, 0).invalidated(BY_VA, va(VA)).faults(1, VA).settled().legal();
    }
}

#[test]
fn a_cpu_whose_mmu_is_off_gives_what_it_held_until_it_is_invalidated() {
    let unmapped = |broadcast: bool| {
        let mut scene = mapped([CNP, CNP]);
        scene.write(1, Register::Sctlr, 0).isb(1);
        if broadcast {
            scene.tlbi(ALL, 0).dsb(Access::All).isb(0);
        }
        scene.store(A3, 0).ordered();
        invalidated_locally(&mut scene, &[0]);
        scene.settled();
        scene
    };
    unmapped(false).breaks(Rule::StaleTranslation);
    // It holds nothing, and takes nothing more.
    unmapped(true).legal();
}

#[test]
fn a_tree_that_one_cpu_left_is_used_by_another() {
    // CPU 1 goes to a reserved table. What it held is gone from it, if it is its own.
    let left = |common: [u64; 2]| {
        let mut scene = mapped(common);
        scene.root(1, SPARE);
        invalidated_locally(&mut scene, &[1]);
        scene.faults(1, VA);
        scene
    };
    left([0, 0]).legal();
    left([CNP, 0]).legal();
    left([CNP, CNP]).breaks(Rule::MayPass);
    // Both left, and it was broadcast: nothing is left to share.
    let mut scene = mapped([CNP, CNP]);
    scene.root(1, SPARE).root(0, SPARE).tlbi(ALL, 0).dsb(Access::All).isb(0).faults(1, VA).faults(0, VA);
    scene.event(free(A3)).settled().legal();
    // As long as the other walks the tree it finds its entries again.
    let mut scene = mapped([CNP, CNP]);
    scene.root(1, SPARE).tlbi(ALL, 0).dsb(Access::All).isb(0).faults(1, VA).breaks(Rule::MayPass);
}

#[test]
fn trees_that_cpus_have_in_common_are_one_for_each_asid() {
    let both = |ids: [u64; 2], bits: [u64; 2], leaf| {
        let mut scene = mapped([0, 0]);
        scene.root(0, SPARE).root(1, SPARE).tlbi(ALL, 0).dsb(Access::All).isb(0);
        scene.store(A3, leaf).ordered().isb(1);
        for (cpu, root) in [A, B].into_iter().enumerate() {
            scene.write(cpu, Register::Ttbr0, root | asid(ids[cpu]) | bits[cpu]).isb(cpu);
        }
        scene
    };
    both([1, 2], [CNP, CNP], LOCAL).reaches(1, 0, Use::Read, 0x1000).settled().legal();
    both([1, 1], [0, 0], LOCAL).settled().legal();
    both([1, 1], [CNP, 0], LOCAL).settled().legal();
    both([1, 1], [CNP, CNP], LOCAL).breaks(Rule::NextTable);
    // What is global holds for every ASID.
    both([1, 2], [CNP, CNP], PAGE).breaks(Rule::OutputAddress);
    both([1, 2], [0, 0], PAGE).settled().legal();
    // What the other CPU has in use.
    let in_use = |bits| {
        let mut scene = both([1, 2], bits, PAGE & !3);
        scene.store(B3, 0).invalidated(ALL, 0);
        scene.store(A3, PAGE | 0x5000).store(B3, PAGE | 0x5000).ordered().isb(1);
        scene.event(Event::Uses { cpu: 1, va: 0, len: 0x1000, kind: Use::Write });
        scene.store(A3, PAGE | READ_ONLY | 0x5000);
        scene
    };
    in_use([0, 0]).legal();
    in_use([CNP, CNP]).breaks(Rule::MayFault);
    // An edit of the one meets what the other may hold.
    let mut scene = both([1, 2], [CNP, CNP], LOCAL);
    scene.store(A3, PAGE).breaks(Rule::Global);
    let mut scene = both([1, 2], [0, 0], LOCAL);
    scene.store(A3, 0).invalidated(ALL, 0).store(A3, PAGE).ordered().settled().legal();
}

#[test]
fn a_cpu_that_sets_cnp_shares_what_others_held_before() {
    // CPU 1 has the tree by itself and sets CnP when CPU 0 has an old entry.
    let joined = |bits| {
        let mut scene = mapped([CNP, 0]);
        scene.store(A3, PAGE | READ_ONLY).ordered();
        invalidated_locally(&mut scene, &[1]);
        scene.event(Event::Faults { cpu: 1, va: VA, kind: Use::Write }).root(1, A | bits);
        scene.event(Event::Faults { cpu: 1, va: VA, kind: Use::Write });
        scene
    };
    joined(0).legal();
    joined(CNP).breaks(Rule::MayPass);
    let mut scene = mapped([CNP, 0]);
    scene.root(1, A | CNP).store(A3, 0).invalidated(BY_VA, va(VA)).settled().legal();
}

/// CPU 0 walks `A` with CnP, CPU 1 `B` without, each under its ASID. CPU 0 has unlinked all of `A`.
fn apart(ids: [u64; 2]) -> Scene {
    let mut scene = mapped([0, 0]);
    scene.root(0, SPARE).root(1, SPARE).tlbi(ALL, 0).dsb(Access::All).isb(0);
    scene.store(A3, LOCAL).ordered().isb(1);
    scene.write(0, Register::Ttbr0, A | asid(ids[0]) | CNP).isb(0);
    scene.write(1, Register::Ttbr0, B | asid(ids[1])).isb(1);
    scene.store(A, 0).ordered();
    scene
}

#[test]
fn a_cpu_that_sets_cnp_uses_what_others_held_beside_its_own_trees() {
    let join = |scene: &mut Scene, root: u64, id: u64| {
        scene.write(1, Register::Ttbr0, root | asid(id) | CNP).isb(1);
    };
    // CPU 0 may hold the pointer to the table below `A`, where CPU 1 walks `B`.
    for (ids, is_legal) in [([1, 2], true), ([1, 1], false)] {
        let mut scene = apart(ids);
        scene.legal();
        join(&mut scene, B, ids[1]);
        match is_legal {
            true => scene.reaches(1, 0, Use::Read, 0x1000).invalidated(ALL, 0).settled().legal(),
            false => scene.breaks(Rule::NextTable),
        }
    }
    // It left `B` for another, and holds parts of it.
    for (ids, is_legal) in [([1, 2], true), ([1, 1], false)] {
        let mut scene = apart(ids);
        join(&mut scene, SPARE, 3);
        match is_legal {
            true => scene.invalidated(ALL, 0).settled().legal(),
            false => scene.breaks(Rule::NextTable),
        }
    }
    // Nothing is held any more.
    let mut scene = apart([1, 1]);
    scene.tlbi(ALL, 0).dsb(Access::All).isb(0);
    join(&mut scene, B, 1);
    scene.reaches(1, 0, Use::Read, 0x1000).legal();
}

#[test]
fn overwritten_entries_of_two_cpus_meet_when_they_have_them_in_common() {
    let both = |ids: [u64; 2]| {
        let mut scene = apart(ids);
        // `B` is unlinked as well: each CPU may hold a pointer that no table has.
        scene.store(B, 0).ordered().legal();
        scene.write(1, Register::Ttbr0, B | asid(ids[1]) | CNP).isb(1);
        scene
    };
    both([1, 2]).invalidated(ALL, 0).settled().legal();
    both([1, 1]).breaks(Rule::NextTable);
}

#[test]
fn what_a_cpu_has_in_use_may_be_translated_by_what_others_held_before() {
    let joined = |bits| {
        let mut scene = mapped([CNP, 0]);
        scene.store(A3, PAGE | READ_ONLY).ordered();
        invalidated_locally(&mut scene, &[1]);
        scene.store(A3, PAGE).ordered();
        invalidated_locally(&mut scene, &[1]);
        scene.event(Event::Uses { cpu: 1, va: VA, len: 0x1000, kind: Use::Write }).legal();
        scene.root(1, A | bits);
        scene
    };
    joined(0).legal();
    joined(CNP).breaks(Rule::MayFault);
}

#[test]
fn guests_have_entries_in_common_too() {
    let unmapped = |bits, tlbi: Tlbi| {
        let ram = vec![(RAM, 0x10_0000)];
        let config = Config {
            cpus: 2,
            bbm: 0,
            granule: 0x1000,
            va_bits: 39,
            pa_bits: 48,
            ram,
            leniency: linmap_model::Leniency::Strict,
        };
        let mut scene = Scene::bare(&config);
        scene.zero(A).store(A, 0x7fd).ordered();
        for cpu in 0..2 {
            scene.write(cpu, Register::Vttbr, A | asid(1) | bits).isb(cpu);
        }
        scene.store(A, 0).ordered();
        for cpu in 0..2 {
            scene.event(Event::Tlbi { cpu, tlbi, operand: 0 });
            scene.event(Event::Dsb { cpu, domain: Domain::Ish, access: Access::All }).isb(cpu);
        }
        scene.settled();
        scene
    };
    let local = Tlbi { scope: TlbiScope::AllStagesVmid, broadcast: false };
    unmapped(0, local).legal();
    unmapped(CNP, local).breaks(Rule::StaleTranslation);
    unmapped(CNP, broadcast(TlbiScope::AllStagesVmid)).legal();
}

#[test]
fn with_one_cpu_the_bit_says_nothing() {
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).ordered().write(0, Register::Ttbr1, ROOT | CNP).isb(0).store(L3, 0);
    scene.invalidated(ALL_LOCAL, 0).faults(0, VA).settled().legal();
}

//! Trees that CPUs left under an ASID or VMID that is not current: edited and freed at will, and
//! invalidated before anything is walked under it again.

use linmap_model::event::{Access, Register, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

use crate::scene::*;

const LOCAL: u64 = PAGE | NON_GLOBAL;

/// Both CPUs walked `A` under ASID 1. CPU 0 walks it under ASID 3, as after a rollover, and CPU 1
/// `B` under ASID `other`.
fn rolled_over(leaf: u64, other: u64) -> Scene {
    let mut scene = user(leaf, 2);
    scene.write(1, Register::Ttbr0, B | asid(other)).isb(1).write(0, Register::Ttbr0, A | asid(3)).isb(0);
    scene
}

#[test]
fn a_tree_is_edited_under_its_new_asid_alone() {
    let remapped = |leaf, other| {
        let mut scene = rolled_over(leaf, other);
        scene.store(A3, 0).invalidated(broadcast(TlbiScope::Va), asid(3));
        scene.store(A3, leaf | 0x1000).ordered().reaches(0, 0, Use::Read, 0x1000).settled();
        scene
    };
    remapped(LOCAL, 2).legal();
    // CPU 1 may use what it holds of the tree: its leaf is global, or the ASID is current.
    remapped(PAGE, 2).breaks(Rule::StaleTranslation);
    let mut scene = user(LOCAL, 2);
    scene.write(0, Register::Ttbr0, A | asid(3)).isb(0).store(A3, 0);
    scene.invalidated(broadcast(TlbiScope::Va), asid(3)).store(A3, LOCAL | 0x1000);
    scene.breaks(Rule::OutputAddress);
    // Before it is used again, the earlier ASID is invalidated, on that CPU at least.
    for table in [A, B] {
        let again = |tlbi, operand| {
            let mut scene = remapped(LOCAL, 2);
            scene.tlbi(tlbi, operand).dsb(Access::All).isb(0);
            scene.write(1, Register::Ttbr0, table | asid(1)).isb(1);
            scene
        };
        again(broadcast(TlbiScope::Asid), asid(1)).settled().legal();
        again(ALL, 0).settled().legal();
        again(broadcast(TlbiScope::Asid), asid(2)).breaks(Rule::StaleTranslation);
        again(ALL_LOCAL, 0).breaks(Rule::StaleTranslation);
    }
    remapped(LOCAL, 2).write(1, Register::Ttbr0, A | asid(3)).isb(1).settled().legal();
}

#[test]
fn tables_are_freed_after_an_invalidation_under_the_new_asid_alone() {
    let freed = |leaf, other| {
        let mut scene = rolled_over(leaf, other);
        scene.store(A + 0x2000, 0).invalidated(broadcast(TlbiScope::Va), asid(3)).event(free(A3));
        scene
    };
    freed(LOCAL, 2).settled().legal();
    // A global leaf behind the old pointer may be held, though none is in the tree any more.
    freed(PAGE, 2).breaks(Rule::TableReachable);
    freed(LOCAL, 2).write(1, Register::Ttbr0, A | asid(1)).breaks(Rule::StaleTranslation);
    // The frame is anybody's.
    freed(LOCAL, 2).store(A3, !0).settled().legal();
    let mut scene = rolled_over(LOCAL, 2);
    scene.store(A + 0x2000, 0).ordered().event(free(A3)).breaks(Rule::TableReachable);
    // Nobody walks the tree any more.
    let mut scene = user(LOCAL, 2);
    for cpu in 0..2 {
        scene.write(cpu, Register::Ttbr0, B | asid(2)).isb(cpu);
    }
    for frame in [A, A + 0x1000, A3] {
        scene.event(free(frame));
    }
    scene.settled().legal();
    scene.write(0, Register::Ttbr0, B | asid(1)).breaks(Rule::StaleTranslation);
    // Until the ISB the old register may be the current one.
    let mut scene = user(LOCAL, 1);
    scene.write(0, Register::Ttbr0, B | asid(2)).event(free(A3)).breaks(Rule::TableReachable);
}

#[test]
fn how_many_bits_an_asid_has_does_not_change_before_the_invalidation() {
    let tcr = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let freed = |invalidated: bool| {
        let mut scene = Scene::new(3, 1);
        scene.tree(A).tree(B).zero(SPARE).store(A3, LOCAL).ordered().write(0, Register::Tcr, tcr).isb(0);
        scene.write(0, Register::Ttbr0, A | asid(1)).isb(0);
        scene.write(0, Register::Ttbr0, SPARE | asid(2)).isb(0).event(free(A3));
        if invalidated {
            scene.invalidated(ALL, 0);
        }
        scene.write(0, Register::Tcr, tcr | 1 << 36);
        scene
    };
    freed(true).legal();
    freed(false).breaks(Rule::TranslationControl);
}

#[test]
fn vmids_roll_over_in_the_same_way() {
    let remapped = |current| {
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
        scene.zero(A).zero(B).store(A, 0x7fd).ordered();
        for cpu in 0..2 {
            scene.write(cpu, Register::Vttbr, A | asid(1)).isb(cpu);
        }
        scene.write(1, Register::Vttbr, B | asid(current)).isb(1);
        scene.write(0, Register::Vttbr, A | asid(3)).isb(0).store(A, 0);
        scene.invalidated(broadcast(TlbiScope::AllStagesVmid), 0).store(A, 0x4000_07fd).ordered();
        scene.event(Event::Settled);
        scene
    };
    remapped(2).legal();
    remapped(2).write(1, Register::Vttbr, B | asid(1)).breaks(Rule::StaleTranslation);
    remapped(2).write(1, Register::Vttbr, A | asid(3)).isb(1).settled().legal();
}

#[test]
fn the_root_of_a_dead_process_is_reused_without_an_invalidation() {
    const DATA: u64 = 0x0009_0000_0003;
    // The process ends: its table is cleared and its ASID invalidated while a CPU still walks it.
    let ended = |empties: &[u64], tlbi| {
        let mut scene = user(LOCAL, 2);
        for entry in empties {
            scene.store(*entry, 0);
        }
        scene.invalidated(tlbi, asid(1));
        scene.write(0, Register::Ttbr0, B | asid(2)).isb(0).write(1, Register::Ttbr0, B | asid(2)).isb(1);
        scene
    };
    let of_asid = broadcast(TlbiScope::Asid);
    // A page of data; then a table of the other process.
    let reused = |scene: &mut Scene| {
        scene.store(A, DATA).store(A + 8, !0).store(A, 0).store(A + 8, 0).ordered();
        scene.store(B3 + 8, LOCAL | 0x2000).store(B + 0x2008, A | TABLE).ordered();
        scene.store(A, LOCAL | 0x5000).store(A + 8, LOCAL | 0x6000).ordered().settled();
    };
    let mut scene = ended(&[A], of_asid);
    reused(&mut scene);
    scene.legal();
    // Before the ISB behind the DSB, too, since no CPU uses the ASID; also where CPUs share TLBs.
    for common in [0, 1] {
        let mut scene = user(LOCAL, 2);
        for root in [A | asid(1), B | asid(2)] {
            scene.write(0, Register::Ttbr0, root | common).isb(0);
            scene.write(1, Register::Ttbr0, root | common).isb(1);
        }
        scene.store(A, 0).dsb(Access::All).tlbi(of_asid, asid(1)).dsb(Access::All);
        scene.store(A, DATA).store(A, 0).ordered().settled().legal();
    }
    // Not while a CPU walks it, nor before what was there is invalidated.
    let mut scene = user(LOCAL, 2);
    scene.store(A, 0).invalidated(of_asid, asid(1)).write(1, Register::Ttbr0, B | asid(2)).isb(1);
    scene.store(A, DATA).breaks(Rule::NotMemory);
    let mut scene = user(LOCAL, 2);
    scene.store(A, 0).ordered();
    scene.write(0, Register::Ttbr0, B | asid(2)).isb(0).write(1, Register::Ttbr0, B | asid(2)).isb(1);
    scene.store(A, DATA).store(A, 0).ordered();
    scene.write(0, Register::Ttbr0, A | asid(1)).breaks(Rule::StaleTranslation);
    // A tree that holds something is not dead.
    let mut scene = ended(&[], of_asid);
    scene.write(0, Register::Ttbr0, A | asid(1)).isb(0).reaches(0, 0, Use::Read, 0).settled().legal();
}

//! TCR_EL1: walks that are off (EPD), and the ASID of TTBR1 (A1).

use crate::scene::*;
use linmap_model::event::{Register, TlbiScope, Use};
use linmap_model::{Event, Rule};

/// T0SZ = T1SZ = 16, TG1 = 4K, IPS = 48 bits, AS: ASIDs of 16 bits.
const TCR: u64 = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32 | 1 << 36;
const EPD0: u64 = 1 << 7;
const A1: u64 = 1 << 22;
const EPD1: u64 = 1 << 23;

const LOCAL: u64 = PAGE | NON_GLOBAL;

fn read_faults(va: u64) -> Event {
    Event::Faults { cpu: 0, va, kind: Use::Read }
}

/// `A` and `B` map page 0 at address 0, `A` in TTBR0 with ASID 1; then TCR has `bits`.
fn turned(bits: u64) -> Scene {
    let mut scene = Scene::new(3, 1);
    scene.tree(A).tree(B).store(A3, LOCAL).store(B3, LOCAL | 0x1000).ordered();
    scene.write(0, Register::Tcr, TCR).isb(0).write(0, Register::Ttbr0, A | asid(1)).isb(0);
    scene.store(L3, PAGE).ordered().settled().write(0, Register::Tcr, TCR | bits);
    scene
}

#[test]
fn walks_that_are_off_find_nothing_once_the_tlb_holds_nothing() {
    for (epd, at) in [(EPD0, 0), (EPD1, VA)] {
        turned(epd).isb(0).invalidated(ALL, 0).event(read_faults(at)).settled().legal();
        turned(epd).isb(0).invalidated(ALL, 0).reaches(0, at, Use::Read, 0).breaks(Rule::MayFault);
        turned(epd).isb(0).event(read_faults(at)).breaks(Rule::MayPass);
        turned(epd).isb(0).settled().breaks(Rule::StaleTranslation);
        // Until the ISB walks go on.
        turned(epd).invalidated(ALL, 0).event(read_faults(at)).breaks(Rule::MayPass);
        // What is in use.
        let mut scene = turned(0);
        scene.uses(at, 0x1000, Use::Read).write(0, Register::Tcr, TCR | epd).breaks(Rule::MayFault);
    }
    // The other half is walked.
    turned(EPD0).isb(0).invalidated(ALL, 0).reaches(0, VA, Use::Write, 0).settled().legal();
    turned(EPD1).isb(0).invalidated(ALL, 0).reaches(0, 0, Use::Write, 0).settled().legal();
}

#[test]
fn a_tree_without_walks_is_written_like_memory_after_an_invalidation() {
    let mut scene = turned(EPD0);
    scene.isb(0).invalidated(ALL, 0).store(A3, LOCAL | 0x5000).event(free(A3)).legal();
    turned(EPD0).isb(0).store(A3, LOCAL | 0x5000).breaks(Rule::OutputAddress);
    turned(EPD0).isb(0).event(free(A3)).breaks(Rule::TableReachable);
    // The base register may hold anything, until walks are on.
    let garbage = || {
        let mut scene = turned(EPD0);
        scene.isb(0).invalidated(ALL, 0).write(0, Register::Ttbr0, 0xdead_b000).isb(0);
        scene
    };
    garbage().settled().legal();
    garbage().write(0, Register::Tcr, TCR).breaks(Rule::NotMemory);
    let mut scene = garbage();
    scene.write(0, Register::Ttbr0, B | asid(2)).isb(0).write(0, Register::Tcr, TCR).isb(0);
    scene.reaches(0, 0, Use::Read, 0x1000).settled().legal();
    // The same ASID: what the CPU may hold of the first tree counts.
    let on = |id| {
        let mut scene = turned(EPD0);
        scene.isb(0).write(0, Register::Ttbr0, B | asid(id)).isb(0).write(0, Register::Tcr, TCR).isb(0);
        scene
    };
    on(2).reaches(0, 0, Use::Read, 0x1000).settled().legal();
    on(1).breaks(Rule::NextTable);
}

/// With A1, `A` in TTBR0 under the ASID 1 of TTBR1.
fn named_by_ttbr1(leaf: u64) -> Scene {
    let mut scene = Scene::new(3, 1);
    scene.tree(A).tree(B).zero(SPARE).store(A3, leaf).store(B3, LOCAL | 0x1000).ordered();
    scene.write(0, Register::Tcr, TCR | A1).isb(0).write(0, Register::Ttbr1, ROOT | asid(1)).isb(0);
    // The field of TTBR0 means nothing.
    scene.write(0, Register::Ttbr0, A | asid(7)).isb(0);
    scene
}

#[test]
fn with_a1_a_switch_goes_through_a_reserved_table() {
    let switched = |leaf, reserved: bool, synchronized: bool| {
        let mut scene = named_by_ttbr1(leaf);
        if reserved {
            scene.write(0, Register::Ttbr0, SPARE).isb(0);
        }
        scene.write(0, Register::Ttbr1, ROOT | asid(2));
        if synchronized {
            scene.isb(0);
        }
        scene.write(0, Register::Ttbr0, B).isb(0);
        scene
    };
    switched(LOCAL, true, true).reaches(0, 0, Use::Read, 0x1000).settled().legal();
    // The old tree under the new ASID, or the new one under the old.
    switched(LOCAL, false, true).breaks(Rule::NextTable);
    switched(LOCAL, true, false).breaks(Rule::NextTable);
    switched(PAGE, true, true).breaks(Rule::OutputAddress);
}

#[test]
fn with_a1_an_asid_is_that_of_ttbr1() {
    let unmapped = |tlbi, operand| {
        let mut scene = named_by_ttbr1(LOCAL);
        scene.store(A3, 0).invalidated(broadcast(tlbi), operand).settled();
        scene
    };
    unmapped(TlbiScope::Va, asid(1)).legal();
    unmapped(TlbiScope::Asid, asid(1)).legal();
    unmapped(TlbiScope::Va, asid(7)).breaks(Rule::StaleTranslation);
    unmapped(TlbiScope::Asid, asid(7)).breaks(Rule::StaleTranslation);
    // It is not written with another A1 below a tree.
    turned(A1).breaks(Rule::TranslationControl);
    let mut scene = named_by_ttbr1(LOCAL);
    scene.write(0, Register::Tcr, TCR).breaks(Rule::TranslationControl);
    // With 8 bits it is cut like that of TTBR0.
    let eight = TCR & !(1 << 36) | A1;
    let switched = |tcr| {
        let mut scene = Scene::new(3, 1);
        scene.tree(A).tree(B).zero(SPARE).store(A3, LOCAL).store(B3, LOCAL | 0x1000).ordered();
        scene.write(0, Register::Tcr, tcr).isb(0).write(0, Register::Ttbr1, ROOT | asid(1)).isb(0);
        scene.write(0, Register::Ttbr0, A).isb(0).write(0, Register::Ttbr0, SPARE).isb(0);
        scene.write(0, Register::Ttbr1, ROOT | asid(0x101)).isb(0).write(0, Register::Ttbr0, B).isb(0);
        scene
    };
    switched(eight).breaks(Rule::NextTable);
    switched(TCR | A1).settled().legal();
}

#[test]
fn a_half_without_walks_may_have_any_size() {
    // As firmware leaves TCR: T1SZ = 0 and EPD1.
    let unsized_half = |epd| {
        let mut scene = Scene::new(3, 1);
        scene.tree(A).store(A3, LOCAL).ordered();
        scene.write(0, Register::Tcr, TCR & !(0x3f << 16) | epd);
        scene
    };
    let mut scene = unsized_half(EPD1);
    scene.isb(0).write(0, Register::Ttbr0, A).isb(0).reaches(0, 0, Use::Read, 0).legal();
    unsized_half(0).breaks(Rule::Unmodelled);
}

//! Hierarchical permissions: a table descriptor takes away from everything below it, and what it
//! took away stays until the pointer and what was found through it is invalidated.

use crate::scene::*;
use linmap_model::event::{Access, Register, TlbiScope, Use};
use linmap_model::{Event, Rule};

/// APTable[1], UXNTable and PXNTable.
const TABLE_READ_ONLY: u64 = 1 << 62;
const TABLE_NOT_EL0: u64 = 1 << 61;
const TABLE_UXN: u64 = 1 << 60;
const TABLE_PXN: u64 = 1 << 59;

const LEAF: u64 = L3 | TABLE;

/// The 2 MiB of the table of pages, as a range of TLBI.
const ALL_PAGES: u64 = 7;

fn faults(kind: Use, va: u64) -> Event {
    Event::Faults { cpu: 0, va, kind }
}

/// A whole table of pages below a table descriptor with `bits`, which is changed to `then`.
fn changed(bits: u64, then: u64) -> Scene {
    let mut scene = Scene::new(0, 1);
    scene.pages(L3, 0).store(L2, LEAF | bits).invalidated(ALL, 0).settled().store(L2, LEAF | then);
    scene
}

#[test]
fn what_a_table_takes_away_is_gone_after_an_invalidation_of_all_its_levels() {
    let page = VA + 0x5000;
    let restricted = |tlbi, operand| {
        let mut scene = changed(0, TABLE_READ_ONLY);
        scene.invalidated(tlbi, operand);
        scene
    };
    restricted(BY_RANGE, range(VA, ALL_PAGES, 1)).event(faults(Use::Write, page)).settled().legal();
    restricted(ALL, 0).event(faults(Use::Write, page)).reaches(0, page, Use::Read, 0x5000).settled().legal();
    // Leaves alone: a walk may go on from the cached pointer.
    let last = broadcast(TlbiScope::RangeAnyAsidLast);
    restricted(last, range(VA, ALL_PAGES, 1)).event(faults(Use::Write, page)).breaks(Rule::MayPass);
    restricted(last, range(VA, ALL_PAGES, 1)).settled().breaks(Rule::StaleTranslation);
    // One address: the pointer goes, and one of the pages.
    restricted(BY_VA, va(page)).event(faults(Use::Write, page)).legal();
    restricted(BY_VA, va(page)).event(faults(Use::Write, VA)).breaks(Rule::MayPass);
    restricted(BY_VA, va(page)).settled().breaks(Rule::StaleTranslation);
    // Nothing, or not yet.
    changed(0, TABLE_READ_ONLY).ordered().event(faults(Use::Write, page)).breaks(Rule::MayPass);
    changed(0, TABLE_READ_ONLY).ordered().reaches(0, page, Use::Write, 0x5000).breaks(Rule::MayFault);
    changed(0, TABLE_READ_ONLY).ordered().reaches(0, page, Use::Read, 0x5000).legal();
    changed(0, TABLE_READ_ONLY).tlbi(ALL, 0).dsb(Access::All).isb(0).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn what_a_table_gives_back_is_certain_after_an_invalidation_of_all_its_levels() {
    let page = VA + 0x5000;
    let given = || changed(TABLE_READ_ONLY, 0);
    given().invalidated(ALL, 0).reaches(0, page, Use::Write, 0x5000).settled().legal();
    given().ordered().reaches(0, page, Use::Write, 0x5000).breaks(Rule::MayFault);
    given().ordered().event(faults(Use::Write, page)).breaks(Rule::MayPass);
    given().ordered().settled().breaks(Rule::StaleTranslation);
    let last = broadcast(TlbiScope::RangeAnyAsidLast);
    given()
        .invalidated(last, range(VA, ALL_PAGES, 1))
        .reaches(0, page, Use::Write, 0x5000)
        .breaks(Rule::MayFault);
    // The CPU that invalidates may use its own pointer until an ISB.
    let unfinished = |kind| {
        let mut scene = given();
        scene.dsb(Access::Stores).tlbi(ALL, 0).dsb(Access::All).reaches(0, page, kind, 0x5000);
        scene
    };
    unfinished(Use::Write).breaks(Rule::MayFault);
    unfinished(Use::Read).legal();
    given().dsb(Access::Stores).tlbi(ALL, 0).dsb(Access::All).settled().breaks(Rule::NoIsb);
}

#[test]
fn a_page_keeps_what_each_pointer_to_its_table_left_it() {
    // The page is unmapped while both pointers may be cached, then the pointers go: the page may be
    // held as writable and as read-only.
    let other = VA + 0x5000;
    let unmapped = |tlbi, operand| {
        let mut scene = changed(0, TABLE_READ_ONLY);
        scene.ordered().store(L3, 0).invalidated(BY_VA, va(other)).invalidated(tlbi, operand);
        scene.event(faults(Use::Write, VA));
        scene
    };
    unmapped(BY_VA, va(VA)).event(faults(Use::Read, VA)).legal();
    unmapped(BY_VA, va(other + 0x1000)).breaks(Rule::MayPass);
    // Restricted by both, it may be held as read-only alone.
    let mut scene = changed(TABLE_READ_ONLY, TABLE_READ_ONLY | TABLE_PXN);
    scene.ordered().store(L3, 0).ordered().event(faults(Use::Write, VA)).legal();
    scene.event(faults(Use::Read, VA)).breaks(Rule::MayPass);
}

#[test]
fn tables_of_all_levels_restrict_together() {
    let mut scene = Scene::new(0, 1);
    let page = PAGE & !(0b11 << 53);
    scene.store(ROOT, L1 | TABLE | TABLE_PXN).store(L1, L2 | TABLE | TABLE_READ_ONLY).invalidated(ALL, 0);
    scene.store(L3, page).ordered().reaches(0, VA, Use::Read, 0).event(faults(Use::Write, VA));
    scene.event(faults(Use::Execute, VA)).settled().legal();
    // One of them is lifted: the other stays.
    scene.store(L1, L2 | TABLE).invalidated(ALL, 0).reaches(0, VA, Use::Write, 0);
    scene.event(faults(Use::Execute, VA)).settled().legal();
    scene.store(ROOT, L1 | TABLE).ordered().reaches(0, VA, Use::Execute, 0).breaks(Rule::MayFault);
    // A block is restricted like a page, and a leaf's own permissions stay restricted.
    let mut scene = Scene::new(0, 1);
    scene.store(L2 + 8, BLOCK | 0x20_0000).store(L3, page | READ_ONLY).ordered();
    scene.store(L1, L2 | TABLE | TABLE_READ_ONLY).invalidated(ALL, 0);
    scene.event(faults(Use::Write, VA + 0x20_0000)).event(faults(Use::Write, VA)).settled().legal();
    scene.store(L1, L2 | TABLE).invalidated(ALL, 0).reaches(0, VA + 0x20_0000, Use::Write, 0x20_0000);
    scene.event(faults(Use::Write, VA)).settled().legal();
}

#[test]
fn without_access_from_el0_el1_may_execute_what_el0_could_write() {
    let unprivileged = 1 << 6;
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE & !(0b11 << 53) | unprivileged).ordered().event(faults(Use::Execute, VA)).legal();
    scene.store(L2, LEAF | TABLE_NOT_EL0).ordered().event(faults(Use::Execute, VA)).breaks(Rule::MayPass);
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE & !(0b11 << 53) | unprivileged).store(L2, LEAF | TABLE_NOT_EL0);
    scene.invalidated(ALL, 0).reaches(0, VA, Use::Execute, 0).settled().legal();
    // UXNTable is for EL0 alone.
    scene.store(L2, LEAF | TABLE_NOT_EL0 | TABLE_UXN).ordered().reaches(0, VA, Use::Execute, 0).legal();
}

#[test]
fn a_change_of_what_a_table_takes_away_needs_no_break_before_make() {
    for bbm in 0..4 {
        let mut scene = Scene::new(bbm, 2);
        scene.run(0).ordered().store(L2, LEAF | TABLE_READ_ONLY).invalidated(ALL, 0).settled().legal();
        // Another table does.
        scene.pages(SPARE, 0).ordered().store(L2, SPARE | TABLE).breaks(Rule::NextTable);
    }
}

#[test]
fn what_is_in_use_is_checked_against_what_a_table_takes_away() {
    let used = |kind| {
        let mut scene = Scene::new(0, 1);
        scene.pages(L3, 0).ordered().uses(VA, 0x3000, kind).store(L2, LEAF | TABLE_READ_ONLY);
        scene
    };
    used(Use::Read).invalidated(ALL, 0).settled().legal();
    used(Use::Write).breaks(Rule::MayFault);
}

#[test]
fn tcr_hpd_makes_a_table_take_nothing_away() {
    // T0SZ = T1SZ = 16, TG1 = 4K, IPS = 48 bits.
    let tcr = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let walked = |tcr| {
        let mut scene = Scene::bare(&linmap_model::Config {
            cpus: 1,
            bbm: 0,
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram: vec![(RAM, 0x10_0000)],
            leniency: linmap_model::Leniency::Strict,
        });
        scene.tree(A).store(A3, PAGE).store(A + 0x2000, A3 | TABLE | TABLE_READ_ONLY).ordered();
        scene.write(0, Register::Tcr, tcr).isb(0).root(0, A);
        scene
    };
    walked(tcr | 1 << 42).reaches(0, VA, Use::Write, 0).settled().legal();
    walked(tcr | 1 << 41).event(faults(Use::Write, VA)).settled().legal();
    walked(tcr).event(faults(Use::Write, VA)).settled().legal();
    // It may be cached in TLBs, so it does not change below a tree.
    walked(tcr).write(0, Register::Tcr, tcr | 1 << 42).breaks(Rule::TranslationControl);
    walked(tcr).write(0, Register::Tcr, tcr | 1 << 41).legal();
}

#[test]
fn bits_that_a_regime_does_not_have_are_refused() {
    let set = |register, bits| {
        let mut scene = Scene::new(0, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0).write(0, register, ROOT).isb(0);
        scene.store(L2, LEAF | bits).ordered();
        scene
    };
    for bits in [TABLE_UXN, TABLE_READ_ONLY, TABLE_UXN | TABLE_READ_ONLY] {
        set(Register::Ttbr0El2, bits).legal();
        set(Register::Vttbr, bits).breaks(Rule::Unmodelled);
    }
    let mut scene = set(Register::Ttbr0El2, TABLE_UXN);
    scene.store(L3, PAGE & !(0b11 << 53)).invalidated(broadcast(TlbiScope::AllEl2), 0).settled();
    scene.event(faults(Use::Execute, 0)).reaches(0, 0, Use::Write, 0).legal();
    for bits in [TABLE_PXN, TABLE_NOT_EL0, 1 << 63] {
        set(Register::Ttbr0El2, bits).breaks(Rule::Unmodelled);
    }
    set(Register::Ttbr1, 1 << 63).breaks(Rule::Unmodelled);
}

#[test]
fn a_tree_that_was_left_is_held_with_what_its_tables_took_away() {
    // The other tree maps the same page under another ASID, or the same one.
    let left = |bits| {
        let mut scene = user(PAGE, 1);
        scene.store(A + 0x2000, A3 | TABLE | bits).invalidated(ALL, 0);
        scene.store(B3, PAGE).ordered().write(0, Register::Ttbr0, B | asid(2)).isb(0);
        scene
    };
    left(0).settled().legal();
    left(TABLE_READ_ONLY).settled().breaks(Rule::StaleTranslation);
    left(TABLE_READ_ONLY).reaches(0, 0, Use::Write, 0).breaks(Rule::MayFault);
    left(TABLE_READ_ONLY).invalidated(ALL, 0).reaches(0, 0, Use::Write, 0).settled().legal();
}

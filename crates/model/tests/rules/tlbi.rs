//! What a TLBI reaches and when it is complete: operands, several CPUs, entries that walkers may
//! still see.

use crate::scene::*;
use linmap_model::event::{Access, Domain, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

const LOCAL_BY_VA: Tlbi = Tlbi { scope: TlbiScope::VaAnyAsid, broadcast: false };
const BLOCK_VA: u64 = VA + 0x20_0000;

#[test]
fn an_invalidation_by_address_and_asid_reaches_global_leaves_and_no_other_asid() {
    let unmapped = |leaf, tlbi, operand| {
        let mut scene = user(leaf, 1);
        scene.store(A3, 0).invalidated(broadcast(tlbi), operand).settled();
        scene
    };
    for tlbi in [TlbiScope::Va, TlbiScope::VaLast] {
        unmapped(PAGE | NON_GLOBAL, tlbi, asid(1)).legal();
        unmapped(PAGE | NON_GLOBAL, tlbi, asid(2)).breaks(Rule::StaleTranslation);
        unmapped(PAGE, tlbi, asid(2)).legal();
    }
    // Pointers in walk caches have an ASID whatever they lead to.
    let freed = |operand| {
        let mut scene = user(PAGE, 1);
        scene.store(A3, 0).store(A + 0x2000, 0).invalidated(broadcast(TlbiScope::Va), operand);
        scene.event(free(A3));
        scene
    };
    freed(asid(1)).legal();
    freed(asid(2)).breaks(Rule::TableReachable);
}

#[test]
fn an_invalidation_of_other_leaves_that_pends_keeps_none_of_a_removed_table() {
    let mut scene = user(PAGE | NON_GLOBAL, 2);
    scene.store(A3 + 8, PAGE | NON_GLOBAL | 0x1000).ordered();
    let tlbi =
        |cpu, scope, address| Event::Tlbi { cpu, tlbi: broadcast(scope), operand: asid(1) | va(address) };
    // One CPU removes a table; another edits elsewhere at the same time.
    scene.store(A + 0x2000, 0).dsb(Access::Stores);
    scene.event(tlbi(0, TlbiScope::Va, 0)).event(tlbi(0, TlbiScope::Va, 0x1000));
    scene.event(tlbi(1, TlbiScope::VaLast, 0x20_0000));
    scene.dsb(Access::All).isb(0).event(free(A3));
    scene.faults(1, 0).faults(1, 0x1000).legal();
}

#[test]
fn what_is_not_global_in_ttbr1s_half_has_the_asid_of_ttbr0() {
    let unmapped = |tlbi| {
        let mut scene = Scene::new(0, 1);
        scene
            .store(L3, PAGE | NON_GLOBAL)
            .ordered()
            .store(L3, 0)
            .invalidated(broadcast(tlbi), va(VA))
            .settled();
        scene
    };
    unmapped(TlbiScope::Va).breaks(Rule::StaleTranslation);
    unmapped(TlbiScope::VaAnyAsid).legal();
    unmapped(TlbiScope::Asid).breaks(Rule::StaleTranslation);
}

#[test]
fn a_value_that_comes_back_is_as_it_was() {
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).ordered().store(L3, 0).store(L3, PAGE).ordered().reaches(0, VA, Use::Read, 0);
    scene.settled().legal();
    scene.store(L3, 0).store(L3, PAGE).ordered().store(L3, 0).ordered().settled();
    scene.breaks(Rule::StaleTranslation);
    // The same store by another CPU orders nothing of the first one's.
    let mut scene = Scene::new(0, 2);
    scene.store(L3, PAGE).event(Event::Store { cpu: 1, pa: L3, value: PAGE, via: None });
    scene.event(Event::Dsb { cpu: 1, domain: Domain::Ish, access: Access::All }).isb(1);
    scene.settled().breaks(Rule::Unordered);
}

#[test]
fn stores_of_two_cpus_to_one_entry_are_ordered_by_the_last_ones_dsb() {
    let dsb = |cpu| Event::Dsb { cpu, domain: Domain::Ish, access: Access::Stores };
    let stored = || {
        let mut scene = Scene::new(0, 2);
        scene.store(L3, PAGE).ordered().isb(1).store(L3, PAGE | READ_ONLY);
        scene.event(Event::Store { cpu: 1, pa: L3, value: 0, via: None });
        scene
    };
    stored().event(dsb(1)).tlbi(BY_VA, va(VA)).dsb(Access::All).isb(0).settled().legal();
    stored().event(dsb(0)).tlbi(BY_VA, va(VA)).dsb(Access::All).isb(0).settled().breaks(Rule::Unordered);
}

#[test]
fn a_tlbi_is_completed_by_the_cpu_that_issued_it() {
    let unmapped = || {
        let mut scene = Scene::new(0, 2);
        scene.store(L3, PAGE).ordered().store(L3, 0).dsb(Access::Stores).tlbi(BY_VA, va(VA));
        scene
    };
    let other = Event::Dsb { cpu: 1, domain: Domain::Ish, access: Access::All };
    unmapped().event(other).isb(0).isb(1).settled().breaks(Rule::StaleTranslation);
    unmapped().dsb(Access::All).isb(0).settled().legal();
}

#[test]
fn each_cpu_may_invalidate_for_itself() {
    let unmapped = |cpus: &[usize]| {
        let mut scene = Scene::new(0, 2);
        scene.store(L3, PAGE).ordered().store(L3, 0).dsb(Access::Stores);
        for &cpu in cpus {
            scene.event(Event::Tlbi { cpu, tlbi: LOCAL_BY_VA, operand: va(VA) });
            scene.event(Event::Dsb { cpu, domain: Domain::Nsh, access: Access::All }).isb(cpu);
        }
        scene.settled();
        scene
    };
    unmapped(&[0, 1]).legal();
    unmapped(&[0, 0]).breaks(Rule::StaleTranslation);
    unmapped(&[1]).breaks(Rule::StaleTranslation);
}

#[test]
fn a_broadcast_tlbi_needs_a_dsb_of_the_inner_domain() {
    for cpus in [1, 2] {
        let mut scene = Scene::new(0, cpus);
        scene.store(L3, PAGE).ordered().store(L3, 0).dsb(Access::Stores).tlbi(BY_VA, va(VA));
        scene.event(Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Access::All }).isb(0);
        scene.settled().breaks(Rule::StaleTranslation);
    }
}

#[test]
fn the_cpu_that_invalidates_has_to_synchronize_its_context() {
    let unmapped = || {
        let mut scene = Scene::new(0, 2);
        scene.store(L3, PAGE).ordered().store(L3, 0).dsb(Access::Stores).tlbi(BY_VA, va(VA)).dsb(Access::All);
        scene
    };
    unmapped().faults(0, VA).breaks(Rule::MayPass);
    unmapped().settled().breaks(Rule::NoIsb);
    unmapped().isb(0).faults(0, VA).settled().legal();
    // For another CPU the DSB is enough, and so it is for break-before-make.
    unmapped().faults(1, VA).store(L3, PAGE | 0x1000).legal();
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).ordered().store(L2, 0).dsb(Access::Stores).tlbi(ALL, 0).dsb(Access::All);
    scene.faults(0, VA).breaks(Rule::NoIsb);
}

#[test]
fn a_cached_block_with_nt_may_fault_after_the_bit_is_gone() {
    let cleared = || {
        let mut scene = Scene::new(1, 1);
        let block = BLOCK | 0x20_0000;
        scene.store(L2 + 8, block).ordered().store(L2 + 8, block | NO_TRANSLATION);
        scene.invalidated(BY_VA, va(BLOCK_VA)).store(L2 + 8, block);
        scene
    };
    cleared().ordered().reaches(0, BLOCK_VA, Use::Read, 0x20_0000).breaks(Rule::MayAbort);
    cleared().ordered().settled().breaks(Rule::MayAbort);
    let mut scene = cleared();
    scene.invalidated(BY_VA, va(BLOCK_VA)).reaches(0, BLOCK_VA, Use::Read, 0x20_0000).settled().legal();
}

#[test]
fn a_table_behind_a_cached_pointer_is_still_a_table() {
    // The table was empty, so nothing is overwritten; but what is stored there meets the block that
    // replaced it.
    let mut scene = Scene::new(3, 1);
    scene.store(L2, BLOCK).ordered().store(L3 + 5 * 8, PAGE | 0x77_7000).breaks(Rule::OutputAddress);
    let mut scene = Scene::new(3, 1);
    scene.store(L2, BLOCK).invalidated(BY_VA, va(VA)).store(L3 + 5 * 8, PAGE | 0x77_7000).settled().legal();
}

#[test]
fn a_level_hint_says_what_the_architecture_lets_it_say() {
    let unmapped = |ttl: u64| {
        let mut scene = Scene::new(0, 1);
        scene.store(L3, PAGE).ordered().store(L3, 0).invalidated(BY_VA, va(VA) | ttl << 44).settled();
        scene
    };
    // Level 0 of 4K: nothing on a CPU without FEAT_LPA2, level 0 on one that has it and does not
    // use it.
    unmapped(0b0100).breaks(Rule::StaleTranslation);
    // Level 0 of 16K and 64K is reserved, and taken as no hint.
    unmapped(0b1000).legal();
    unmapped(0b1100).legal();
    unmapped(0b0011).legal();
}

#[test]
fn a_hinted_range_begins_where_a_leaf_may() {
    let unmapped = |start: u64, level: u64| {
        let mut scene = Scene::new(0, 1);
        scene.store(L2 + 8, BLOCK | 0x20_0000).ordered().store(L2 + 8, 0);
        scene.invalidated(BY_RANGE, range(start, 7, 1) | level << 37).settled();
        scene
    };
    unmapped(BLOCK_VA, 2).legal();
    unmapped(BLOCK_VA + 0x1000, 0).legal();
    unmapped(BLOCK_VA + 0x1000, 2).breaks(Rule::StaleTranslation);
    unmapped(BLOCK_VA, 1).breaks(Rule::StaleTranslation);
}

#[test]
fn a_range_under_lpa2_begins_at_a_multiple_of_64_kib() {
    let ram = vec![(RAM, 0x10_0000)];
    let config = Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits: 52,
        pa_bits: 52,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let high = 0u64.wrapping_sub(1 << 52);
    let leaf = PAGE & !0x300;
    let unmapped = |operand| {
        let mut scene = Scene::bare(&config);
        scene.zero(SPARE).tree(ROOT).store(SPARE, ROOT | TABLE).ordered().root(0, SPARE);
        let page = ROOT + 0x3000 + 16 * 8;
        scene.store(page, leaf).ordered().reaches(0, high + 0x1_0000, Use::Read, 0).store(page, 0);
        scene.invalidated(BY_RANGE, operand | 0b01 << 46).settled();
        scene
    };
    let base = high + 0x1_0000;
    unmapped(base >> 16 & 0x1f_ffff_ffff).legal();
    unmapped(base >> 12 & 0x1f_ffff_ffff).breaks(Rule::StaleTranslation);
}

#[test]
fn the_last_page_of_the_address_space_is_like_any_other() {
    let last = 0u64.wrapping_sub(0x1000);
    let mapped = || {
        let mut scene = Scene::new(0, 1);
        scene.tree(A);
        for level in 0..3 {
            scene.store(A + 0x1000 * level, 0);
            scene.store(A + 0x1000 * level + 511 * 8, (A + 0x1000 * (level + 1)) | TABLE);
        }
        scene.ordered().store(ROOT + 511 * 8, (A + 0x1000) | TABLE).ordered();
        scene.store(A3 + 511 * 8, PAGE).ordered().uses(last, 0x1000, Use::Read).reaches(
            0,
            last,
            Use::Read,
            0,
        );
        scene.event(Event::Unuses { cpu: 0, va: last, len: 0x1000, kind: Use::Read }).store(A3 + 511 * 8, 0);
        scene
    };
    mapped().invalidated(BY_VA, va(last)).faults(0, last).settled().legal();
    mapped().invalidated(BY_RANGE, range(last, 31, 3)).faults(0, last).settled().legal();
    mapped().invalidated(BY_RANGE, range(last - 0x2000, 0, 0)).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn leaves_that_another_cpu_invalidates_come_back_by_a_pointer() {
    // Both TLBIs are issued before either DSB: the second may be done first, and the leaf cached
    // again by the pointer.
    let unlinked = |tlbi, operand| {
        let mut scene = Scene::new(0, 2);
        scene.pages(L3, 0).ordered().store(L2, 0).dsb(Access::Stores).tlbi(BY_VA, va(VA));
        scene.event(Event::Tlbi { cpu: 1, tlbi, operand }).dsb(Access::All).isb(0);
        scene.event(Event::Dsb { cpu: 1, domain: Domain::Ish, access: Access::All }).isb(1).settled();
        scene
    };
    let last_levels = broadcast(TlbiScope::RangeAnyAsidLast);
    unlinked(BY_RANGE, range(VA, 7, 1)).legal();
    unlinked(last_levels, range(VA, 7, 1)).breaks(Rule::StaleTranslation);
}

#[test]
fn guarded_pages_and_dirty_tracking_are_attributes_like_permissions() {
    for bit in [50, 51] {
        let mut scene = Scene::new(0, 1);
        scene.store(L3, PAGE).ordered().store(L3, PAGE | 1 << bit).ordered().settled();
        scene.breaks(Rule::StaleTranslation);
        let mut scene = Scene::new(0, 1);
        scene
            .store(L3, PAGE)
            .ordered()
            .store(L3, PAGE | 1 << bit)
            .invalidated(BY_VA, va(VA))
            .settled()
            .legal();
    }
}

#[test]
fn a_leaf_without_access_flag_is_in_no_tlb() {
    let unaccessed = PAGE & !(1 << 10);
    let mut scene = Scene::new(0, 1);
    scene.store(L3, unaccessed).ordered().faults(0, VA).store(L3, PAGE | 0x1000).ordered();
    scene.reaches(0, VA, Use::Read, 0x1000).settled().legal();
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).ordered().store(L3, unaccessed).ordered().faults(0, VA).breaks(Rule::MayPass);
    // Nor is what is not valid, whatever else it says.
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE & !1).ordered().faults(0, VA).store(L3, PAGE | 0x1000).ordered().settled().legal();
}

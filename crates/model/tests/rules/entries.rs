//! What the machine accepts and what it refuses: each mistake beside the form that is right.

use crate::scene::*;
use linmap_model::event::{Access, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Event, Rule};

#[test]
fn an_entry_becomes_valid_with_a_dsb_and_an_isb_and_no_tlbi() {
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).ordered().reaches(0, VA, Use::Write, 0).settled().legal();
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).isb(0).reaches(0, VA, Use::Write, 0).breaks(Rule::Unordered);
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).dsb(Access::Stores).reaches(0, VA, Use::Write, 0).breaks(Rule::NoIsb);
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE).dsb(Access::Stores).settled().breaks(Rule::NoIsb);
}

#[test]
fn another_cpu_needs_its_own_context_synchronization() {
    let mut scene = Scene::new(0, 2);
    scene.store(L3, PAGE).ordered().reaches(1, VA, Use::Read, 0).breaks(Rule::NoIsb);
    let mut scene = Scene::new(0, 2);
    scene.store(L3, PAGE).ordered().isb(1).reaches(1, VA, Use::Read, 0).legal();
}

#[test]
fn a_page_is_unmapped_everywhere_only_by_dsb_broadcast_tlbi_dsb() {
    let mapped = |cpus| {
        let mut scene = Scene::new(0, cpus);
        scene.store(L3, PAGE).ordered().store(L3, 0);
        scene
    };
    mapped(2).invalidated(BY_VA_LAST, va(VA)).faults(1, VA).settled().legal();
    mapped(2).dsb(Access::All).settled().breaks(Rule::StaleTranslation);
    // No DSB before the TLBI: a walker may cache the old entry after it.
    mapped(1).tlbi(BY_VA_LAST, va(VA)).dsb(Access::All).settled().breaks(Rule::StaleTranslation);
    // A local TLBI on a machine with two CPUs.
    mapped(2).invalidated(ALL_LOCAL, 0).faults(1, VA).breaks(Rule::MayPass);
    mapped(1).invalidated(ALL_LOCAL, 0).faults(0, VA).settled().legal();
    // DSB ISHST orders stores but completes no TLBI.
    mapped(1)
        .dsb(Access::Stores)
        .tlbi(BY_VA_LAST, va(VA))
        .dsb(Access::Stores)
        .settled()
        .breaks(Rule::StaleTranslation);
    // Another page.
    mapped(1).invalidated(BY_VA_LAST, va(VA + 0x1000)).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn the_tlbi_address_field_is_never_shifted_by_the_granule() {
    let page = VA + 5 * 0x4000;
    let unmapped = || {
        // Two levels suffice to 16K's L2: the scene's L1 and L2 tables are at levels 1 and 2.
        let mut scene = Scene::with_granule(0, 1, 0x4000);
        scene.store(L3 + 5 * 8, PAGE & !0x3000).ordered().store(L3 + 5 * 8, 0);
        scene
    };
    unmapped().invalidated(BY_VA_LAST, va(page)).settled().legal();
    unmapped().invalidated(BY_VA_LAST, page >> 14 & 0xfff_ffff_ffff).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_wrong_level_hint_leaves_the_entry() {
    let unmapped = || {
        let mut scene = Scene::new(0, 1);
        scene.store(L3, PAGE).ordered().store(L3, 0);
        scene
    };
    let hint = |granule: u64, level: u64| va(VA) | (granule << 2 | level) << 44;
    unmapped().invalidated(BY_VA, hint(0b01, 3)).settled().legal();
    unmapped().invalidated(BY_VA, hint(0b01, 2)).settled().breaks(Rule::StaleTranslation);
    unmapped().invalidated(BY_VA, hint(0b10, 3)).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_range_reaches_what_its_operand_says() {
    let unmapped = || {
        let mut scene = Scene::new(0, 1);
        scene.pages(L3, 0).ordered().zero(L3);
        scene
    };
    // 512 pages: (num + 1) << (5 * 1 + 1), num = 7.
    unmapped().invalidated(BY_RANGE, range(VA, 7, 1)).settled().legal();
    unmapped().invalidated(BY_RANGE, range(VA, 6, 1)).settled().breaks(Rule::StaleTranslation);
    let other_granule = range(VA, 7, 1) | 0b11 << 46;
    unmapped().invalidated(BY_RANGE, other_granule).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_new_output_address_needs_break_before_make() {
    for bbm in 0..4 {
        let mut scene = Scene::new(bbm, 1);
        scene.store(L3, PAGE).ordered().store(L3, PAGE | 0x1000).breaks(Rule::OutputAddress);
        // Break without invalidate.
        let mut scene = Scene::new(bbm, 1);
        scene.store(L3, PAGE).ordered().store(L3, 0).dsb(Access::All).store(L3, PAGE | 0x1000);
        scene.breaks(Rule::OutputAddress);
        let mut scene = Scene::new(bbm, 1);
        scene.store(L3, PAGE).ordered().store(L3, 0).invalidated(BY_VA_LAST, va(VA));
        scene.store(L3, PAGE | 0x1000).ordered().reaches(0, VA, Use::Read, 0x1000).settled().legal();
    }
}

#[test]
fn another_physical_address_space_is_another_output_address() {
    const NON_SECURE: u64 = 1 << 5;
    for bbm in 0..=3 {
        let mut scene = Scene::new(bbm, 1);
        scene.store(L3, PAGE).ordered().store(L3, PAGE | NON_SECURE).breaks(Rule::OutputAddress);
        let mut scene = Scene::new(bbm, 1);
        scene.store(L3, PAGE).ordered().store(L3, 0).invalidated(BY_VA_LAST, va(VA));
        scene.store(L3, PAGE | NON_SECURE).ordered().settled().legal();
    }
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE | CONTIGUOUS).store(L3 + 8, PAGE | CONTIGUOUS | NON_SECURE | 0x1000);
    scene.breaks(Rule::MixedRun);
}

#[test]
fn memory_type_and_shareability_need_break_before_make() {
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE).ordered().store(L3, PAGE | DEVICE).breaks(Rule::MemoryType);
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE).ordered().store(L3, PAGE & !0x300).breaks(Rule::Shareability);
}

#[test]
fn a_global_entry_never_covers_a_non_global_one() {
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE | NON_GLOBAL).ordered().store(L3, PAGE).breaks(Rule::Global);
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE).ordered().store(L3, PAGE | NON_GLOBAL).invalidated(BY_VA, va(VA)).settled().legal();
}

#[test]
fn permissions_change_in_place_and_are_invalidated_afterwards() {
    let mut scene = Scene::new(0, 2);
    scene.store(L3, PAGE).ordered().store(L3, PAGE | READ_ONLY).invalidated(BY_VA_LAST, va(VA));
    scene.event(Event::Faults { cpu: 1, va: VA, kind: Use::Write }).settled().legal();
    let mut scene = Scene::new(0, 2);
    scene.store(L3, PAGE).ordered().store(L3, PAGE | READ_ONLY).ordered();
    scene.event(Event::Faults { cpu: 1, va: VA, kind: Use::Write }).breaks(Rule::MayPass);
}

/// A block at level 2 where the scene's table of pages would be.
fn block(bbm: u8, cpus: usize) -> Scene {
    let mut scene = Scene::new(bbm, cpus);
    scene.store(L2 + 8, BLOCK | 0x20_0000).pages(SPARE, 0x20_0000).ordered();
    scene
}

const BLOCK_VA: u64 = VA + 0x20_0000;

#[test]
fn a_block_is_split_in_place_only_where_the_bbm_level_allows() {
    for bbm in [0, 1] {
        block(bbm, 2).store(L2 + 8, SPARE | TABLE).breaks(Rule::Size);
    }
    // Level 2 needs an invalidation, because accesses may abort until it is done; level 3 needs
    // nothing.
    block(2, 2).store(L2 + 8, SPARE | TABLE).ordered().settled().breaks(Rule::MayAbort);
    block(2, 2).store(L2 + 8, SPARE | TABLE).invalidated(BY_VA, va(BLOCK_VA)).settled().legal();
    let mut scene = block(3, 2);
    scene.store(L2 + 8, SPARE | TABLE).ordered().reaches(0, BLOCK_VA + 0x5000, Use::Write, 0x20_5000);
    scene.settled().legal();
    for bbm in 0..4 {
        let mut scene = block(bbm, 2);
        scene.store(L2 + 8, 0).invalidated(BY_VA, va(BLOCK_VA)).store(L2 + 8, SPARE | TABLE).ordered();
        scene.settled().legal();
    }
}

#[test]
fn a_level_hint_after_an_uninvalidated_split_leaves_the_block() {
    let hint = (0b01 << 2 | 3) << 44;
    let split = |operand| {
        let mut scene = block(3, 2);
        scene.store(L2 + 8, SPARE | TABLE).ordered().store(SPARE, PAGE | 0x20_0000 | READ_ONLY);
        scene.invalidated(BY_VA_LAST, operand);
        scene
    };
    split(va(BLOCK_VA)).settled().legal();
    split(va(BLOCK_VA) | hint).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_table_of_other_pages_never_takes_a_blocks_place() {
    let mut scene = block(3, 1);
    scene.pages(OTHER, 0x60_0000).ordered().store(L2 + 8, OTHER | TABLE).breaks(Rule::OutputAddress);
}

#[test]
fn the_nt_bit_splits_at_level_1() {
    let nt = BLOCK | 0x20_0000 | NO_TRANSLATION;
    let mut scene = block(1, 2);
    scene.store(L2 + 8, nt).invalidated(BY_VA, va(BLOCK_VA)).store(L2 + 8, SPARE | TABLE);
    scene.invalidated(BY_VA, va(BLOCK_VA)).settled().legal();
    // Without the first invalidation the block without nT may still be cached.
    block(1, 2).store(L2 + 8, nt).ordered().store(L2 + 8, SPARE | TABLE).breaks(Rule::Size);
    // Level 0 does not have the bit.
    block(0, 2).store(L2 + 8, nt).breaks(Rule::NoTranslation);
    // And back.
    let back = |first: bool| {
        let mut scene = Scene::new(1, 1);
        scene.pages(L3, 0).ordered().store(L2, BLOCK | NO_TRANSLATION);
        if first {
            scene.invalidated(BY_RANGE, range(VA, 7, 1));
        }
        scene.store(L2, BLOCK).invalidated(BY_RANGE, range(VA, 7, 1)).settled();
        scene
    };
    back(true).legal();
    back(false).breaks(Rule::Size);
}

#[test]
fn a_fold_invalidates_every_page_and_the_pointer_before_the_table_goes() {
    let folded = || {
        let mut scene = Scene::new(3, 2);
        scene.pages(L3, 0).ordered().store(L2, BLOCK);
        scene
    };
    let free = Event::Free { pa: L3, len: 0x1000 };
    folded().invalidated(BY_RANGE, range(VA, 7, 1)).event(free).settled().legal();
    folded().invalidated(ALL, 0).event(free).settled().legal();
    folded().ordered().event(free).breaks(Rule::TableReachable);
    // Last level only: walk caches still lead to the table.
    let last = Tlbi { scope: TlbiScope::RangeAnyAsidLast, broadcast: true };
    folded().invalidated(last, range(VA, 7, 1)).event(free).breaks(Rule::TableReachable);
    // Before the DSB that completes the TLBI.
    folded().dsb(Access::Stores).tlbi(ALL, 0).event(free).breaks(Rule::TableReachable);
    // One page's address takes the pointer, and leaves the other pages, which still agree with the
    // block.
    folded().invalidated(BY_VA, va(VA)).event(free).settled().legal();
    let mut scene = folded();
    scene.invalidated(BY_VA, va(VA)).store(L2, BLOCK | READ_ONLY).invalidated(BY_VA, va(VA));
    scene.settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_frame_that_walk_caches_lead_to_is_not_reused() {
    let mut scene = Scene::new(3, 2);
    scene.pages(L3, 0).ordered().store(L2, 0).ordered().event(Event::Free { pa: L3, len: 0x1000 });
    scene.breaks(Rule::TableReachable);
    // Nor is it written to as something else without being freed.
    let mut scene = Scene::new(3, 2);
    scene.pages(L3, 0).ordered().store(L2, 0).ordered().store(L3, PAGE | 0x77_7000);
    scene.breaks(Rule::OutputAddress);
}

#[test]
fn a_table_is_filled_and_ordered_before_it_is_linked() {
    let mut scene = Scene::new(3, 1);
    scene.store(L2 + 8, SPARE | TABLE).breaks(Rule::UnknownEntry);
    let mut scene = Scene::new(3, 1);
    scene.pages(SPARE, 0x20_0000).store(L2 + 8, SPARE | TABLE).breaks(Rule::UnknownEntry);
    let mut scene = Scene::new(3, 1);
    scene.pages(SPARE, 0x20_0000).dsb(Access::Stores).store(L2 + 8, SPARE | TABLE).ordered();
    scene.reaches(0, BLOCK_VA, Use::Read, 0x20_0000).settled().legal();
    // The last entry was forgotten.
    let mut scene = Scene::new(3, 1);
    let first = PAGE | 0x20_0000;
    scene.event(Event::Fill { cpu: 0, pa: SPARE, count: 511, first, step: 0x1000 });
    scene.dsb(Access::Stores).store(L2 + 8, SPARE | TABLE).breaks(Rule::UnknownEntry);
}

#[test]
fn a_pointer_to_another_table_needs_break_before_make() {
    let mut scene = Scene::new(3, 1);
    scene.pages(L3, 0).pages(OTHER, 0).ordered().store(L2, OTHER | TABLE).breaks(Rule::NextTable);
    let mut scene = Scene::new(3, 1);
    scene.pages(L3, 0).pages(OTHER, 0).ordered().store(L2, 0).invalidated(ALL, 0).store(L2, OTHER | TABLE);
    scene.ordered().settled().legal();
}

#[test]
fn what_the_editing_cpu_uses_stays_mapped_and_never_aborts() {
    // A table that the CPU writes through the block it is about to split: break-before-make unmaps
    // it.
    let mut scene = block(0, 1);
    scene.uses(BLOCK_VA + 0x7000, 0x1000, Use::Write).store(L2 + 8, 0).breaks(Rule::MayFault);
    // At level 2 the access may abort between the store and the invalidation.
    let mut scene = block(2, 1);
    scene.uses(BLOCK_VA + 0x7000, 0x1000, Use::Write).store(L2 + 8, SPARE | TABLE).breaks(Rule::MayAbort);
    let mut scene = block(3, 1);
    scene.uses(BLOCK_VA + 0x7000, 0x1000, Use::Write).store(L2 + 8, SPARE | TABLE).ordered();
    scene.settled().legal();
    // nT may fault at any time.
    let mut scene = block(1, 1);
    scene.uses(BLOCK_VA, 0x1000, Use::Read).store(L2 + 8, BLOCK | 0x20_0000 | NO_TRANSLATION);
    scene.breaks(Rule::MayAbort);
    // A stack that becomes read-only.
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE).ordered().uses(VA, 0x1000, Use::Write).store(L3, PAGE | READ_ONLY);
    scene.breaks(Rule::MayFault);
}

#[test]
fn a_root_changes_by_break_before_make() {
    let two_roots = || {
        let mut scene = Scene::new(3, 1);
        scene.pages(L3, 0).zero(SPARE).zero(OTHER).store(OTHER, (RAM + 0x6_0000) | TABLE);
        for table in [RAM + 0x6_0000, RAM + 0x7_0000] {
            scene.zero(table);
        }
        scene
            .store(RAM + 0x6_0000, (RAM + 0x7_0000) | TABLE)
            .store(RAM + 0x7_0000, BLOCK | 0x20_0000)
            .ordered();
        scene
    };
    two_roots().root(0, OTHER).breaks(Rule::NextTable);
    two_roots().root(0, SPARE).invalidated(ALL_LOCAL, 0).root(0, OTHER).settled().legal();
    two_roots().root(0, SPARE).root(0, OTHER).breaks(Rule::NextTable);
    // Without an ISB the old root may still be walked after the TLBI.
    let mut scene = two_roots();
    scene.event(Event::Write { cpu: 0, register: Register::Ttbr1, value: SPARE });
    scene.dsb(Access::All).tlbi(ALL_LOCAL, 0).dsb(Access::All).root(0, OTHER).breaks(Rule::NextTable);
    // TTBR1's ASID field means nothing.
    two_roots().root(0, OTHER | 1 << 48).breaks(Rule::NextTable);
    // The root's tables are not given away while they may be walked.
    let free = Event::Free { pa: L1, len: 0x1000 };
    two_roots().root(0, SPARE).event(free).breaks(Rule::TableReachable);
    two_roots().root(0, SPARE).invalidated(ALL_LOCAL, 0).event(free).legal();
}

#[test]
fn t0sz_changes_only_while_nothing_is_walked_through_ttbr0() {
    // T0SZ = 25, T1SZ = 16, TG1 = 4K, IPS = 48 bits.
    let tcr = 25 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let write = |register, value| Event::Write { cpu: 0, register, value };
    let mut scene = Scene::new(0, 1);
    scene.zero(SPARE).ordered().event(write(Register::Ttbr0, SPARE)).isb(0);
    scene.event(write(Register::Tcr, tcr)).isb(0).event(write(Register::Ttbr0, L1)).isb(0).legal();
    let mut scene = Scene::new(0, 1);
    scene.event(write(Register::Ttbr0, ROOT)).isb(0).event(write(Register::Tcr, tcr));
    scene.breaks(Rule::TranslationControl);
    // No ISB between the two.
    let mut scene = Scene::new(0, 1);
    scene.zero(SPARE).ordered().event(write(Register::Ttbr0, SPARE)).isb(0);
    scene.event(write(Register::Tcr, tcr)).event(write(Register::Ttbr0, L1)).breaks(Rule::TranslationControl);
}

#[test]
fn el2_without_vhe_has_no_asids() {
    let mut scene = Scene::new(0, 1);
    scene.event(Event::Write { cpu: 0, register: Register::Ttbr0El2, value: ROOT | 1 << 48 });
    scene.breaks(Rule::AsidInEl2);
}

#[test]
fn stage_2_needs_the_combined_entries_invalidated_too() {
    let stage2 = |combined: bool| {
        let mut scene = Scene::new(0, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0);
        scene.event(Event::Write { cpu: 0, register: Register::Vttbr, value: ROOT }).isb(0);
        scene.store(L3, 0x7ff).ordered().store(L3, 0).dsb(Access::All);
        scene.tlbi(Tlbi { scope: TlbiScope::Ipa, broadcast: true }, 0).dsb(Access::All);
        if combined {
            scene.tlbi(ALL, 0).dsb(Access::All);
        }
        scene.store(L3, 0x17ff);
        scene
    };
    stage2(true).legal();
    stage2(false).breaks(Rule::OutputAddress);
}

#[test]
fn the_memory_of_the_machine_ends_where_it_ends() {
    let mut scene = Scene::new(0, 1);
    scene.store(RAM + 0x10_0000, 0).breaks(Rule::NotMemory);
    let mut scene = Scene::new(0, 1);
    scene.store(RAM + 4, 0).breaks(Rule::NotMemory);
    let mut scene = Scene::new(0, 1);
    scene.isb(1).breaks(Rule::NoSuchCpu);
    let mut scene = Scene::new(0, 1);
    scene.store(L2 + 8, (RAM + 0x10_0000) | TABLE).breaks(Rule::NotMemory);
}

#[test]
fn a_table_that_leads_to_itself_ends_the_search() {
    let mut scene = Scene::new(0, 1);
    scene.event(Event::Fill { cpu: 0, pa: SPARE, count: 512, first: SPARE | TABLE, step: 0 }).ordered();
    scene.store(ROOT + 8, SPARE | TABLE).breaks(Rule::TooComplex);
}

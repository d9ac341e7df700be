//! Registers: trees that a TTBR left or leads to, ASIDs and VMIDs, TCR and MAIR.

use crate::scene::*;
use linmap_model::event::{Access, Domain, Register, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

#[test]
fn a_tree_that_was_left_may_be_cached_when_software_relies_on_its_absence() {
    let left = || {
        let mut scene = Scene::new(3, 2);
        scene.store(L3, PAGE).zero(SPARE).ordered().root(1, SPARE);
        scene
    };
    left().settled().breaks(Rule::StaleTranslation);
    let mut scene = left();
    scene.event(Event::Tlbi { cpu: 1, tlbi: ALL_LOCAL, operand: 0 });
    scene.event(Event::Dsb { cpu: 1, domain: Domain::Nsh, access: Access::All }).isb(1).settled().legal();
    // Before the ISB it may even be walked.
    let mut scene = Scene::new(3, 1);
    scene.store(L3, PAGE).zero(SPARE).ordered().write(0, Register::Ttbr1, SPARE).invalidated(ALL, 0);
    scene.settled().breaks(Rule::StaleTranslation);
}

#[test]
fn asids_keep_what_is_not_global_apart() {
    let switch = |leaf, other, id| {
        let mut scene = user(leaf, 1);
        scene.store(B3, other).ordered().write(0, Register::Ttbr0, B | asid(id)).isb(0);
        scene
    };
    let local = PAGE | NON_GLOBAL;
    switch(local, local | 0x1000, 2).reaches(0, 0, Use::Read, 0x1000).settled().legal();
    // The same ASID without an invalidation in between.
    switch(local, local | 0x1000, 1).breaks(Rule::NextTable);
    // A global leaf counts for every ASID.
    switch(PAGE, local | 0x1000, 2).breaks(Rule::OutputAddress);
    switch(local, PAGE, 2).breaks(Rule::Global);
    switch(PAGE, PAGE, 2).reaches(0, 0, Use::Read, 0).settled().legal();
    switch(PAGE, 0, 2).settled().breaks(Rule::StaleTranslation);
    switch(local, 0, 2).event(Event::Faults { cpu: 0, va: 0, kind: Use::Read }).settled().legal();
}

#[test]
fn a_global_leaf_stays_cached_although_its_asid_and_its_pointer_are_gone() {
    let gone = |leaf| {
        let mut scene = user(leaf, 1);
        scene.store(A + 0x2000, 0).ordered().write(0, Register::Ttbr0, B | asid(2)).isb(0);
        scene
    };
    let fault = Event::Faults { cpu: 0, va: 0, kind: Use::Read };
    gone(PAGE).event(fault).breaks(Rule::MayPass);
    gone(PAGE).settled().breaks(Rule::StaleTranslation);
    gone(PAGE | NON_GLOBAL).event(fault).settled().legal();
}

#[test]
fn an_asid_is_used_again_after_an_invalidation_of_it() {
    let reuse = |leaf, tlbi, operand| {
        let mut scene = user(leaf, 1);
        scene.zero(SPARE).store(B3, PAGE | NON_GLOBAL | 0x1000).ordered();
        scene.write(0, Register::Ttbr0, SPARE | asid(3)).isb(0).invalidated(tlbi, operand);
        scene.write(0, Register::Ttbr0, B | asid(1)).isb(0);
        scene
    };
    let by_asid = broadcast(TlbiScope::Asid);
    reuse(PAGE | NON_GLOBAL, by_asid, asid(1)).settled().legal();
    reuse(PAGE | NON_GLOBAL, by_asid, asid(2)).breaks(Rule::NextTable);
    // Global leaves are spared.
    reuse(PAGE, by_asid, asid(1)).breaks(Rule::NextTable);
    reuse(PAGE, ALL, 0).settled().legal();
}

#[test]
fn attributes_of_el2_and_stage_2_are_not_those_of_mair_el1() {
    for register in [Register::Ttbr0El2, Register::Vttbr] {
        let mut scene = Scene::new(3, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0).write(0, Register::Mair, 0).isb(0);
        scene.write(0, register, ROOT).isb(0).store(L3, PAGE).ordered().store(L3, PAGE | DEVICE);
        scene.breaks(Rule::MemoryType);
    }
}

#[test]
fn a_tlbi_of_the_current_vmid_waits_for_the_isb_that_makes_it_current() {
    let switched = |isb: bool| {
        let mut scene = Scene::new(0, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0);
        scene
            .write(0, Register::Vttbr, ROOT | asid(1))
            .isb(0)
            .store(L3, 0x7ff)
            .ordered()
            .store(L3, 0)
            .ordered();
        scene.write(0, Register::Vttbr, SPARE | asid(2)).isb(0).write(0, Register::Vttbr, ROOT | asid(1));
        if isb {
            scene.isb(0);
        }
        scene.invalidated(broadcast(TlbiScope::AllStagesVmid), 0).store(L3, 0x17ff);
        scene
    };
    switched(true).legal();
    switched(false).breaks(Rule::OutputAddress);
}

#[test]
fn a_table_of_stage_2_is_free_after_its_address_and_the_combined_entries_were_invalidated() {
    let unlinked = |combined: bool| {
        let mut scene = Scene::new(0, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0);
        scene.write(0, Register::Vttbr, ROOT).isb(0).store(L2, 0).invalidated(broadcast(TlbiScope::Ipa), 0);
        if combined {
            scene.invalidated(ALL, 0);
        }
        scene.event(free(L3));
        scene
    };
    unlinked(true).legal();
    unlinked(false).breaks(Rule::TableReachable);
}

#[test]
fn every_cpu_writes_its_own_tcr_before_it_walks_tables_of_another_size() {
    // T0SZ = 25, T1SZ = 16, TG1 = 4K, IPS = 48 bits.
    let tcr = 25 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let reserved = || {
        let mut scene = Scene::new(0, 2);
        scene.zero(SPARE).ordered();
        for cpu in 0..2 {
            scene.write(cpu, Register::Ttbr0, SPARE).isb(cpu);
        }
        scene.write(0, Register::Tcr, tcr).isb(0);
        scene
    };
    reserved().write(0, Register::Ttbr0, L1).isb(0).legal();
    reserved().write(1, Register::Ttbr0, L1).breaks(Rule::TranslationControl);
    reserved().write(1, Register::Tcr, tcr).isb(1).write(1, Register::Ttbr0, L1).isb(1).legal();
    // Storing an entry to the table that was empty breaks the same rule.
    reserved().store(SPARE, L2 | TABLE).breaks(Rule::TranslationControl);
    reserved().write(1, Register::Tcr, tcr).store(SPARE, L2 | TABLE).breaks(Rule::TranslationControl);
    reserved().write(1, Register::Tcr, tcr).isb(1).store(SPARE, L2 | TABLE).ordered().legal();
    // Two CPUs may read a half by different sizes, which the model can't.
    let mut scene = reserved();
    scene
        .write(0, Register::Ttbr0, L1)
        .isb(0)
        .write(1, Register::Tcr, tcr ^ 25 ^ 16)
        .breaks(Rule::Unmodelled);
}

#[test]
fn what_tcr_says_beyond_sizes_is_refused_where_it_would_matter() {
    let written = |value: u64| {
        let mut scene = Scene::new(0, 1);
        scene.write(0, Register::Tcr, 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32 | value);
        scene
    };
    written(0).legal();
    // Another granule.
    written(0b01 << 14).breaks(Rule::Unmodelled);
    // DS changes what the mapped half's descriptors mean.
    let mut scene = Scene::new(0, 1);
    scene.zero(SPARE).ordered().write(0, Register::Ttbr0, SPARE).isb(0);
    scene
        .write(0, Register::Tcr, 12 | 16 << 16 | 0b10 << 30 | 0b101 << 32 | 1 << 59)
        .breaks(Rule::TranslationControl);
}

#[test]
fn descriptors_get_the_lpa2_form_by_tcr_alone() {
    // As Linux turns LPA2 on: T1SZ first, DS and IPS while nothing is mapped.
    let tcr = |ds: u64, ips: u64| 16 | 12 << 16 | 0b10 << 30 | ips << 32 | ds << 59;
    let turned = |ds| {
        let ram = vec![(RAM, 0x10_0000)];
        let leniency = linmap_model::Leniency::Strict;
        let config = Config { cpus: 1, bbm: 0, granule: 0x1000, va_bits: 48, pa_bits: 48, ram, leniency };
        let mut scene = Scene::bare(&config);
        scene.zero(OTHER).zero(SPARE).ordered();
        scene.write(0, Register::Tcr, 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32).isb(0);
        scene.write(0, Register::Ttbr0, OTHER).write(0, Register::Ttbr1, OTHER).isb(0);
        scene.write(0, Register::Tcr, tcr(0, 0b101)).isb(0).write(0, Register::Tcr, tcr(ds, 0b110)).isb(0);
        // Level −1, and a page whose bits 9:8 are an address under DS.
        for table in [ROOT, L1, L2, L3, A] {
            scene.zero(table);
        }
        scene.store(ROOT, A | TABLE).store(A, L1 | TABLE).store(L1, L2 | TABLE);
        scene.store(L2, L3 | TABLE).store(L3, PAGE & !0x300).ordered();
        scene.write(0, Register::Ttbr1, ROOT).isb(0);
        scene
    };
    let first = u64::MAX << 52;
    turned(1).reaches(0, first, Use::Read, 0).settled().legal();
    turned(0).reaches(0, first, Use::Read, 0).breaks(Rule::MayFault);
    turned(1).store(L3, PAGE & !0x300 | 0x1000).breaks(Rule::OutputAddress);
}

#[test]
fn a_short_root_shares_its_page_with_anything() {
    // A root of 8 entries in the middle of a page whose other words change as they like.
    let config = |pa_bits, ram| Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits: 33,
        pa_bits,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let base = 0u64.wrapping_sub(1 << 33);
    let scene = |ram: u64, pa_bits, root: u64| {
        let mut scene = Scene::bare(&config(pa_bits, vec![(ram, 0x1_0000)]));
        scene.zero(ram).ordered().root(0, root);
        scene
    };
    let root = RAM + 0x7c0;
    let mut short = scene(RAM, 48, root);
    short.store(root - 8, PAGE).store(root - 8, DEVICE).store(root + 64, PAGE).store(root + 64, !0).legal();
    short.store(root, BLOCK).ordered().reaches(0, base, Use::Read, 0).settled().legal();
    short.store(root, BLOCK | 0x4000_0000).breaks(Rule::OutputAddress);
    short = scene(RAM, 48, root);
    short.event(free(RAM)).breaks(Rule::TableReachable);
    // At a 52-bit address: bits 51:48 are bits 5:2 of the register.
    let far = 0x000a_0000_4000_0000;
    let mut short = scene(far, 52, 0x4000_07c0 | 0xa << 2);
    short.store(far + 0x7c0, BLOCK & !0x300).ordered().reaches(0, base, Use::Read, 0).settled().legal();
}

#[test]
fn what_walkers_may_still_see_of_a_root_counts_when_it_is_installed() {
    // `B`, which maps another page, is installed with the ASID of `A` after its root was changed.
    let installed = |entry, ordered: bool| {
        let mut scene = user(PAGE | NON_GLOBAL, 1);
        scene.store(B3, PAGE | NON_GLOBAL | 0x1000).ordered().store(B, entry);
        if ordered {
            scene.ordered();
        }
        scene.write(0, Register::Ttbr0, B | asid(1)).isb(0);
        scene
    };
    installed(0, true).legal();
    installed(0, false).breaks(Rule::NextTable);
    installed((A + 0x1000) | TABLE, true).legal();
    installed((A + 0x1000) | TABLE, false).breaks(Rule::NextTable);
}

#[test]
fn a_cpu_that_joins_a_tree_sees_the_older_values_that_others_see() {
    // CPU 1 comes from `A` to `B`, which CPU 0 walks and cleared without a DSB.
    let joined = |ordered: bool| {
        let mut scene = user(PAGE | NON_GLOBAL, 2);
        scene.zero(SPARE).store(B3, PAGE | NON_GLOBAL | 0x1000).ordered();
        scene.write(0, Register::Ttbr0, SPARE | asid(3)).isb(0);
        scene.tlbi(broadcast(TlbiScope::Asid), asid(1)).dsb(Access::All).isb(0);
        scene.write(0, Register::Ttbr0, B | asid(1)).isb(0).store(B, 0);
        if ordered {
            scene.invalidated(ALL, 0);
        }
        scene.write(1, Register::Ttbr0, B | asid(1)).isb(1);
        scene
    };
    joined(true).legal();
    joined(false).breaks(Rule::NextTable);
}

#[test]
fn older_values_of_a_table_count_when_it_is_linked() {
    // The block is gone from the tables and may be cached. The table that takes its place held
    // other pages.
    let linked = |ordered: bool| {
        let mut scene = Scene::new(3, 1);
        scene.store(L2 + 8, BLOCK | 0x20_0000).pages(SPARE, 0x60_0000).ordered().zero(SPARE);
        if ordered {
            scene.ordered();
        }
        scene.store(L2 + 8, SPARE | TABLE);
        scene
    };
    linked(true).legal();
    linked(false).breaks(Rule::OutputAddress);
}

/// T0SZ = T1SZ = 12, TG1 = 4K, IPS = 52 bits, DS.
const LPA2: u64 = 12 | 12 << 16 | 0b10 << 30 | 0b110 << 32 | 1 << 59;

#[test]
fn shareability_in_tcr_changes_only_while_its_half_is_empty() {
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
    let mapped = |register| {
        let mut scene = Scene::bare(&config);
        scene.zero(SPARE).tree(ROOT).store(SPARE, ROOT | TABLE).ordered();
        scene.write(0, Register::Tcr, LPA2).isb(0).write(0, register, SPARE).isb(0);
        scene.store(ROOT + 0x3000, PAGE & !0x300).ordered();
        scene
    };
    let sh = [0b11 << 12, 0b11 << 28];
    for (nth, register) in [Register::Ttbr0, Register::Ttbr1].into_iter().enumerate() {
        mapped(register).write(0, Register::Tcr, LPA2).legal();
        mapped(register).write(0, Register::Tcr, LPA2 | sh[1 - nth]).legal();
        mapped(register).write(0, Register::Tcr, LPA2 | sh[nth]).breaks(Rule::TranslationControl);
        let mut scene = mapped(register);
        scene.store(SPARE, 0).invalidated(ALL, 0).write(0, Register::Tcr, LPA2 | sh[nth]).legal();
        // Until an ISB a walk may use either.
        scene.store(SPARE, ROOT | TABLE).breaks(Rule::TranslationControl);
    }
    // Without DS it is the shareability of the walks alone.
    let mut scene = Scene::new(0, 1);
    let tcr = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    scene.store(L3, PAGE).ordered().write(0, Register::Tcr, tcr).write(0, Register::Tcr, tcr | sh[1]).legal();
}

#[test]
fn asids_have_the_bits_that_tcr_says() {
    let tcr = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let sixteen = tcr | 1 << 36;
    let switched = |tcr| {
        let mut scene = Scene::new(0, 1);
        scene.tree(A).tree(B).store(A3, PAGE | NON_GLOBAL).store(B3, PAGE | NON_GLOBAL | 0x1000).ordered();
        scene.write(0, Register::Tcr, tcr).isb(0).write(0, Register::Ttbr0, A | asid(1)).isb(0);
        scene.write(0, Register::Ttbr0, B | asid(0x101)).isb(0);
        scene
    };
    switched(tcr).breaks(Rule::NextTable);
    switched(sixteen).settled().legal();
    // Which of them it is cannot change below a tree.
    switched(sixteen).write(0, Register::Tcr, tcr).breaks(Rule::TranslationControl);
    // The high bits of an operand must be 0 with 8: nothing need be invalidated.
    let unmapped = |operand| {
        let mut scene = user(PAGE | NON_GLOBAL, 1);
        scene.write(0, Register::Tcr, tcr).isb(0).store(A3, 0);
        scene.invalidated(broadcast(TlbiScope::Va), operand).settled();
        scene
    };
    unmapped(asid(1)).legal();
    unmapped(asid(0x101)).breaks(Rule::StaleTranslation);
    // Before TCR is written nobody knows.
    Scene::new(0, 1).write(0, Register::Ttbr0, ROOT | asid(0xff)).legal();
    Scene::new(0, 1).write(0, Register::Ttbr0, ROOT | asid(0x101)).breaks(Rule::Unmodelled);
}

#[test]
fn output_addresses_end_with_the_pa_size() {
    let config = |pa_bits| Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits,
        ram: vec![(RAM, 0x10_0000)],
        leniency: linmap_model::Leniency::Strict,
    };
    let mapped = |pa_bits, pa| {
        let mut scene = Scene::bare(&config(pa_bits));
        scene.tree(ROOT).root(0, ROOT).store(ROOT + 0x3000, PAGE | pa);
        scene
    };
    for pa_bits in [32, 36, 40, 42, 44] {
        mapped(pa_bits, (1 << pa_bits) - 0x1000).legal();
        mapped(pa_bits, 1 << pa_bits).breaks(Rule::AddressSize);
    }
    // The same in a table that is linked afterwards.
    let mut scene = Scene::bare(&config(40));
    scene.tree(ROOT).store(ROOT + 0x3000, PAGE | 1 << 40).ordered().root(0, ROOT).breaks(Rule::AddressSize);
    // Or with what IPS says, if that is less.
    let limited = |pa| {
        let mut scene = Scene::bare(&config(44));
        let tcr = 16 | 16 << 16 | 0b10 << 30 | 0b010 << 32;
        scene.tree(ROOT).write(0, Register::Tcr, tcr).isb(0).root(0, ROOT).store(ROOT + 0x3000, PAGE | pa);
        scene
    };
    limited((1 << 40) - 0x1000).legal();
    limited(1 << 40).breaks(Rule::AddressSize);
    // 64K has blocks at level 1 with 52 bits alone.
    let ram = vec![(RAM, 0x10_0000)];
    let wide = Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1_0000,
        va_bits: 48,
        pa_bits: 52,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let tcr = |ips: u64| 16 | 16 << 16 | 0b01 << 14 | 0b11 << 30 | ips << 32;
    Scene::bare(&wide).write(0, Register::Tcr, tcr(0b110)).legal();
    Scene::bare(&wide).write(0, Register::Tcr, tcr(0b101)).breaks(Rule::Unmodelled);
}

#[test]
fn what_el0_may_write_el1_does_not_execute() {
    let executed = |page: u64| {
        let mut scene = Scene::new(0, 1);
        scene.store(L3, page).ordered().reaches(0, VA, Use::Execute, 0);
        scene
    };
    let unprivileged = 1 << 6;
    let page = PAGE & !(0b11 << 53);
    executed(page).legal();
    executed(page | unprivileged | READ_ONLY).legal();
    executed(page | unprivileged).breaks(Rule::MayFault);
    let mut scene = Scene::new(0, 1);
    scene.store(L3, page | unprivileged).ordered();
    scene.event(Event::Faults { cpu: 0, va: VA, kind: Use::Execute }).legal();
}

#[test]
fn a_slot_of_mair_changes_while_no_leaf_uses_it() {
    let second = 1 << 2;
    let written = |page: u64| {
        let mut scene = Scene::new(0, 1);
        scene.store(ROOT, 0).invalidated(ALL, 0).write(0, Register::Mair, 0xff).isb(0);
        scene.store(ROOT, L1 | TABLE).store(L3, page).ordered();
        scene
    };
    written(PAGE).write(0, Register::Mair, 0x44ff).isb(0).legal();
    written(PAGE).write(0, Register::Mair, 0x44).breaks(Rule::MemoryAttributes);
    written(PAGE | second).write(0, Register::Mair, 0x44ff).breaks(Rule::MemoryAttributes);
    // A leaf that is gone and may be cached, and one that walkers may still see.
    let mut scene = written(PAGE | second);
    scene.store(L3, 0).ordered().write(0, Register::Mair, 0x44ff).breaks(Rule::MemoryAttributes);
    let mut scene = written(PAGE | second);
    scene.store(L3, 0).invalidated(BY_VA, va(VA)).write(0, Register::Mair, 0x44ff).legal();
    // Until an ISB the slot may have either type.
    scene.store(L3, PAGE | second).breaks(Rule::MemoryAttributes);
    let mut scene = written(PAGE);
    scene.write(0, Register::Mair, 0x44ff).store(L3 + 8, PAGE | 0x1000).isb(0);
    scene.store(L3 + 16, PAGE | second | 0x2000).ordered().settled().legal();
}

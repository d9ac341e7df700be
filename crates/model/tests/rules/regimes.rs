//! EL2 with one half and with two, EL3, and the TLBIs that are theirs.

use crate::scene::*;
use linmap_model::event::{Access, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

const E2H: u64 = 1 << 34;
const TGE: u64 = 1 << 27;

/// A tree in `register` of two CPUs without tables of EL1, with a page at its start.
fn other(hcr: u64, register: Register, leaf: u64) -> Scene {
    let ram = vec![(RAM, 0x10_0000)];
    let mut scene = Scene::bare(&Config {
        cpus: 2,
        bbm: 3,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    });
    for table in [ROOT, L1, L2, L3, SPARE] {
        scene.zero(table);
    }
    scene.store(ROOT, L1 | TABLE).store(L1, L2 | TABLE).store(L2, L3 | TABLE);
    scene.tree(B).store(B3, leaf | 0x1000).ordered();
    for cpu in 0..2 {
        scene.write(cpu, Register::Hcr, hcr).isb(cpu).write(cpu, register, ROOT).isb(cpu);
    }
    scene.store(L3, leaf).ordered().isb(1);
    scene
}

#[test]
fn each_regime_is_invalidated_by_its_own_instructions() {
    use TlbiScope::{AllEl1, AllEl2, AllEl3, RangeEl2, RangeEl2Last, RangeEl3, RangeEl3Last};
    use TlbiScope::{VaAnyAsid, VaEl2, VaEl2Last, VaEl3, VaEl3Last};
    for (hcr, register, base) in [
        (0, Register::Ttbr0El2, 0),
        (E2H, Register::Ttbr0El2, 0),
        (E2H, Register::Ttbr1El2, VA),
        (0, Register::Ttbr0El3, 0),
    ] {
        let unmapped = |tlbi, operand| {
            let mut scene = other(hcr, register, PAGE);
            scene.store(L3, 0).invalidated(broadcast(tlbi), operand);
            scene.event(Event::Faults { cpu: 1, va: base, kind: Use::Read }).settled();
            scene
        };
        let (el2, el3) = ([VaEl2, VaEl2Last], [VaEl3, VaEl3Last]);
        let (range2, range3) = ([RangeEl2, RangeEl2Last], [RangeEl3, RangeEl3Last]);
        let [(own, own_range, all), (foreign, foreign_range, foreign_all)] = match register {
            Register::Ttbr0El3 => [(el3, range3, AllEl3), (el2, range2, AllEl2)],
            _ => [(el2, range2, AllEl2), (el3, range3, AllEl3)],
        };
        unmapped(all, 0).legal();
        unmapped(foreign_all, 0).breaks(Rule::MayPass);
        unmapped(AllEl1, 0).breaks(Rule::MayPass);
        unmapped(VaAnyAsid, va(base)).breaks(Rule::MayPass);
        for (own, foreign) in own.into_iter().zip(foreign) {
            unmapped(own, va(base)).legal();
            unmapped(own, va(base + 0x1000)).breaks(Rule::MayPass);
            unmapped(foreign, va(base)).breaks(Rule::MayPass);
        }
        for (own, foreign) in own_range.into_iter().zip(foreign_range) {
            unmapped(own, range(base, 0, 0)).legal();
            unmapped(own, range(base + 0x2000, 0, 0)).breaks(Rule::MayPass);
            unmapped(foreign, range(base, 0, 0)).breaks(Rule::MayPass);
        }
    }
}

#[test]
fn el2_has_asids_and_leaves_that_are_not_global_with_two_halves() {
    let local = PAGE | NON_GLOBAL;
    let switched = |hcr, leaf, from, to| {
        let mut scene = other(hcr, Register::Ttbr0El2, leaf);
        scene.write(0, Register::Ttbr0El2, SPARE).isb(0).write(1, Register::Ttbr0El2, SPARE).isb(1);
        scene.invalidated(broadcast(TlbiScope::AllEl2), 0).isb(1);
        scene.write(0, Register::Ttbr0El2, ROOT | asid(from)).isb(0);
        scene.write(0, Register::Ttbr0El2, B | asid(to)).isb(0);
        scene
    };
    switched(E2H, local, 1, 2).reaches(0, 0, Use::Read, 0x1000).settled().legal();
    switched(E2H, local, 1, 1).breaks(Rule::NextTable);
    switched(E2H, PAGE, 1, 2).breaks(Rule::OutputAddress);
    switched(0, local, 1, 2).breaks(Rule::AsidInEl2);
    // With one half the bit means nothing.
    switched(0, local, 0, 0).breaks(Rule::NextTable);
    let unmapped = |hcr, leaf, operand| {
        let mut scene = other(hcr, Register::Ttbr0El2, leaf);
        scene.store(L3, 0).invalidated(broadcast(TlbiScope::VaEl2), operand).isb(1).settled();
        scene
    };
    unmapped(E2H, local, asid(0)).legal();
    unmapped(E2H, local, asid(1)).breaks(Rule::StaleTranslation);
    unmapped(E2H, PAGE, asid(1)).legal();
    unmapped(0, local, asid(1)).legal();
    // What is not global in the upper half has the ASID of either register.
    let mut scene = other(E2H, Register::Ttbr1El2, local);
    scene.store(L3, 0).invalidated(broadcast(TlbiScope::VaEl2), va(VA)).isb(1);
    scene.settled().breaks(Rule::StaleTranslation);
}

#[test]
fn el2_with_two_halves_is_chosen_by_e2h_before_its_tables() {
    Scene::new(0, 1).write(0, Register::Ttbr1El2, ROOT).breaks(Rule::Unmodelled);
    Scene::new(0, 1).write(0, Register::Hcr, E2H).isb(0).write(0, Register::Ttbr1El2, ROOT).isb(0).legal();
    Scene::new(0, 1)
        .write(0, Register::Hcr, E2H)
        .write(0, Register::Ttbr1El2, ROOT)
        .breaks(Rule::TranslationControl);
    let mut scene = other(E2H, Register::Ttbr0El2, PAGE);
    scene.write(0, Register::Hcr, 0).breaks(Rule::TranslationControl);
    // PXN and AP[1] have a meaning then.
    let executed = |hcr, leaf| {
        let mut scene = other(hcr, Register::Ttbr0El2, leaf);
        scene.reaches(0, 0, Use::Execute, 0);
        scene
    };
    let (pxn, uxn, el0) = (1 << 53, 1 << 54, 1 << 6);
    let page = PAGE & !(pxn | uxn);
    executed(E2H, page | uxn).legal();
    executed(E2H, page | pxn).breaks(Rule::MayFault);
    executed(E2H, page | el0).breaks(Rule::MayFault);
    executed(0, page | uxn).breaks(Rule::MayFault);
    executed(0, page | el0).legal();
}

#[test]
fn a_range_of_ipas_is_stage_2_alone() {
    use TlbiScope::{Ipa, IpaLast, IpaRange, IpaRangeLast};
    let unmapped = |tlbi, operand, both: bool| {
        let mut scene = Scene::new(0, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0).write(0, Register::Vttbr, ROOT).isb(0);
        scene.store(L3, 0x7ff).ordered().store(L3, 0).invalidated(broadcast(tlbi), operand);
        if both {
            scene.invalidated(ALL, 0);
        }
        scene.settled();
        scene
    };
    for tlbi in [Ipa, IpaLast] {
        unmapped(tlbi, 0, true).legal();
        unmapped(tlbi, 0, false).breaks(Rule::StaleTranslation);
        unmapped(tlbi, 1, true).breaks(Rule::StaleTranslation);
    }
    for tlbi in [IpaRange, IpaRangeLast] {
        unmapped(tlbi, range(0, 0, 0), true).legal();
        unmapped(tlbi, range(0, 0, 0), false).breaks(Rule::StaleTranslation);
        unmapped(tlbi, range(0x2000, 0, 0), true).breaks(Rule::StaleTranslation);
    }
    // A table is gone after an invalidation of all levels.
    let unlinked = |tlbi, operand| {
        let mut scene = Scene::new(0, 1);
        scene.zero(SPARE).ordered().root(0, SPARE).invalidated(ALL, 0).write(0, Register::Vttbr, ROOT).isb(0);
        scene.store(L2, 0).invalidated(broadcast(tlbi), operand).invalidated(ALL, 0).event(free(L3));
        scene
    };
    unlinked(Ipa, 0).legal();
    unlinked(IpaRange, range(0, 7, 1)).legal();
    unlinked(IpaLast, 0).breaks(Rule::TableReachable);
    unlinked(IpaRangeLast, range(0, 7, 1)).breaks(Rule::TableReachable);
}

#[test]
fn el1_s_invalidations_are_for_el2_0_where_the_cpu_is_its_host() {
    use TlbiScope::{AllEl1, AllStages, Asid, RangeAnyAsid, Va, VaAnyAsid, VaAnyAsidLast};
    let local = PAGE | NON_GLOBAL;
    let unmapped = |hcr, leaf, scope, operand| {
        let mut scene = other(hcr, Register::Ttbr0El2, leaf);
        scene.store(L3, 0).invalidated(broadcast(scope), operand);
        scene.event(Event::Faults { cpu: 1, va: 0, kind: Use::Read }).settled();
        scene
    };
    let host = E2H | TGE;
    for (scope, operand) in [
        (AllEl1, 0),
        (VaAnyAsid, va(0)),
        (VaAnyAsidLast, va(0)),
        (RangeAnyAsid, range(0, 0, 0)),
        (Va, va(0)),
        (Asid, asid(0)),
    ] {
        unmapped(host, local, scope, operand).legal();
        for hcr in [0, E2H, TGE] {
            unmapped(hcr, local, scope, operand).breaks(Rule::MayPass);
        }
    }
    unmapped(host, local, Va, va(0) | asid(1)).breaks(Rule::MayPass);
    unmapped(host, PAGE, Asid, asid(0)).breaks(Rule::MayPass);
    unmapped(host, PAGE, AllStages, 0).breaks(Rule::MayPass);
    // Its own accesses are through EL2&0.
    let mut scene = Scene::new(0, 1);
    scene.zero(SPARE).ordered().write(0, Register::Hcr, host).isb(0);
    scene.write(0, Register::Ttbr1El2, SPARE).isb(0).store(L3, PAGE).ordered();
    scene.event(Event::Faults { cpu: 0, va: VA, kind: Use::Read }).legal();
    // Each CPU by its own HCR.
    let mut scene = other(host, Register::Ttbr0El2, PAGE);
    scene.write(0, Register::Hcr, E2H).isb(0).store(L3, 0).invalidated(ALL, 0).isb(1);
    scene.settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_cpu_whose_mmu_is_off_may_read_tables_otherwise_until_it_is_on() {
    let offline = || {
        let mut scene = other(E2H, Register::Ttbr0El2, PAGE);
        scene.write(1, Register::Ttbr0El2, ROOT).isb(1);
        scene.write(1, Register::SctlrEl2, 0).isb(1).write(1, Register::Hcr, 0).isb(1);
        scene.store(L3 + 8, PAGE | 0x1000).ordered();
        scene
    };
    offline().legal();
    offline().write(1, Register::SctlrEl2, 1).breaks(Rule::Unmodelled);
    let mut scene = offline();
    scene.write(1, Register::Hcr, E2H).isb(1).write(1, Register::SctlrEl2, 1).isb(1).settled().legal();
}

#[test]
fn el2_and_el3_have_a_tcr_and_a_mair() {
    // TCR_EL1's form: 48 bits, 4K, 48 bits out. TCR_EL2's without E2H and TCR_EL3's.
    let halves = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    let single = |size: u64| size | 0b101 << 16;
    for (hcr, tcr, mair, base, value, other_value) in [
        (E2H, Register::TcrEl2, Register::MairEl2, Register::Ttbr0El2, halves, halves + 9),
        (0, Register::TcrEl2, Register::MairEl2, Register::Ttbr0El2, single(16), single(25)),
        (0, Register::TcrEl3, Register::MairEl3, Register::Ttbr0El3, single(16), single(25)),
    ] {
        other(hcr, base, PAGE).write(0, tcr, value).isb(0).settled().legal();
        // The size changes under a tree.
        other(hcr, base, PAGE).write(0, tcr, other_value).breaks(Rule::TranslationControl);
        // Another granule than the tables'.
        other(hcr, base, PAGE).write(0, tcr, value | 0b01 << 14).breaks(Rule::Unmodelled);
        // Types by MAIR: slots 0 and 1 are the same.
        let retyped = |slots| {
            let mut scene = other(hcr, base, 0);
            scene.write(0, mair, slots).isb(0).write(1, mair, slots).isb(1);
            scene.store(L3, PAGE).ordered().store(L3, PAGE | DEVICE);
            scene
        };
        retyped(0xffff).legal();
        retyped(0x00ff).breaks(Rule::MemoryType);
        other(hcr, base, PAGE).write(0, mair, 0xff).breaks(Rule::MemoryAttributes);
    }
}

#[test]
fn at_el3_a_second_bit_names_the_physical_address_space() {
    let changed = |base| {
        let mut scene = other(0, base, PAGE);
        scene.store(L3, PAGE | NON_GLOBAL);
        scene
    };
    changed(Register::Ttbr0El3).breaks(Rule::OutputAddress);
    // In EL2's regime without EL0 it has no meaning.
    changed(Register::Ttbr0El2).legal();
}

/// `Scene::new` with a page at `VA`; then CPU 0 turns its MMU off.
fn off(cpus: usize) -> Scene {
    let mut scene = Scene::new(0, cpus);
    scene.store(L3, PAGE).ordered().settled().write(0, Register::Sctlr, 0).isb(0);
    scene
}

#[test]
fn with_the_mmu_off_tables_are_memory_and_what_is_held_waits() {
    // Another page in the place of one: against break-before-make if any CPU could use either.
    off(1).store(L3, PAGE | 0x1000).ordered().legal();
    off(1).event(free(L3)).legal();
    let mut unsynchronized = Scene::new(0, 1);
    unsynchronized.store(L3, PAGE).ordered().write(0, Register::Sctlr, 0);
    unsynchronized.store(L3, PAGE | 0x1000).breaks(Rule::OutputAddress);
    // The other CPU walks on.
    off(2).store(L3, PAGE | 0x1000).breaks(Rule::OutputAddress);
    // On again: what was edited has to be invalidated first.
    let on = |edited, tlbi: Option<Tlbi>| {
        let mut scene = off(1);
        if edited {
            scene.store(L3, PAGE | 0x1000).ordered();
        }
        if let Some(tlbi) = tlbi {
            scene.tlbi(tlbi, 0).dsb(Access::All).isb(0);
        }
        scene.write(0, Register::Sctlr, 1).isb(0);
        scene
    };
    on(true, None).breaks(Rule::StaleTranslation);
    on(true, Some(broadcast(TlbiScope::AllEl2))).breaks(Rule::StaleTranslation);
    on(true, Some(ALL_LOCAL)).reaches(0, VA, Use::Read, 0x1000).settled().legal();
    on(false, None).reaches(0, VA, Use::Read, 0).settled().legal();
    // Of an identifier alone: what is global stays.
    let mut scene = off(1);
    scene.store(L3, PAGE | 0x1000).ordered().tlbi(broadcast(TlbiScope::Asid), 0).dsb(Access::All).isb(0);
    scene.write(0, Register::Sctlr, 1).breaks(Rule::StaleTranslation);
    // With it off an address is physical.
    off(1).reaches(0, RAM, Use::Write, RAM).legal();
}

#[test]
fn registers_change_while_the_mmu_is_off() {
    // T1SZ = 25, another MAIR and another root: a second kernel.
    let tcr = 25 | 25 << 16 | 0b10 << 30 | 0b101 << 32;
    let next = |tlbi: Option<Tlbi>| {
        let mut scene = off(2);
        // CPU 1 has left for good.
        scene.write(1, Register::Sctlr, 0).isb(1);
        scene.zero(SPARE).ordered();
        if let Some(tlbi) = tlbi {
            scene.tlbi(tlbi, 0).dsb(Access::All).isb(0);
        }
        scene.write(0, Register::Tcr, tcr).write(0, Register::Mair, 0xff44).write(0, Register::Ttbr1, SPARE);
        scene.isb(0).write(0, Register::Sctlr, 1).isb(0).settled();
        scene
    };
    next(Some(ALL_LOCAL)).legal();
    next(None).breaks(Rule::StaleTranslation);
    let mut scene = Scene::new(0, 1);
    scene.write(0, Register::Tcr, tcr).breaks(Rule::TranslationControl);
}

#[test]
fn a_cpu_may_come_without_e2h_while_another_has_it() {
    let mut scene = other(E2H, Register::Ttbr1El2, PAGE);
    scene.write(0, Register::SctlrEl2, 0).isb(0).write(0, Register::Hcr, 0).isb(0);
    scene.write(0, Register::Hcr, E2H).isb(0).write(0, Register::SctlrEl2, 1).isb(0).settled().legal();
    let mut scene = other(E2H, Register::Ttbr1El2, PAGE);
    scene.write(0, Register::SctlrEl2, 0).isb(0).write(0, Register::Hcr, 0).isb(0);
    scene.write(0, Register::SctlrEl2, 1).breaks(Rule::TranslationControl);
}

#[test]
fn ha_and_hd_are_turned_on_under_a_tree() {
    let halves = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
    const DBM: u64 = 1 << 51;
    let (ha, hd) = (1 << 39, 1 << 40);
    let mut scene = other(E2H, Register::Ttbr0El2, PAGE | READ_ONLY | DBM);
    for cpu in 0..2 {
        scene.write(cpu, Register::TcrEl2, halves | ha).isb(cpu);
    }
    for cpu in 0..2 {
        scene.write(cpu, Register::TcrEl2, halves | ha | hd).isb(cpu);
    }
    scene.settled().store(L3, 0).breaks(Rule::LostUpdate);
}

#[test]
fn el1_s_tlbis_are_for_neither_regime_until_an_isb_has_changed_it() {
    let unmapped = |isb: bool| {
        let mut scene = other(E2H, Register::Ttbr0El2, PAGE);
        scene.write(0, Register::Hcr, E2H | TGE);
        if isb {
            scene.isb(0);
        }
        scene.store(L3, 0).invalidated(broadcast(TlbiScope::AllEl1), 0);
        scene.event(Event::Faults { cpu: 1, va: 0, kind: Use::Read }).settled();
        scene
    };
    unmapped(true).legal();
    unmapped(false).breaks(Rule::MayPass);
}

//! EL2 with one half and with two, EL3, and the TLBIs that are theirs.

use crate::scene::*;
use linmap_model::event::{Register, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

const E2H: u64 = 1 << 34;
const TGE: u64 = 1 << 27;

/// A tree in `register` of two CPUs without tables of EL1, with a page at its start.
fn other(hcr: u64, register: Register, leaf: u64) -> Scene {
    let ram = vec![(RAM, 0x10_0000)];
    let mut scene = Scene::bare(&Config { cpus: 2, bbm: 3, granule: 0x1000, va_bits: 48, pa_bits: 48, ram });
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

//! Stage 2: VTCR_EL2, roots of several tables, VMIDs, and what the guest may execute.

use crate::scene::*;
use linmap_model::event::{Access, Domain, Register, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};

/// Valid, AF, inner shareable, write-back, read and write: a page, or a block without bit 1.
const GUEST: u64 = 0x7ff;

/// VTCR_EL2 with addresses of `bits`, SL0, 48 bits of output, 4K.
fn vtcr(bits: u64, sl0: u64) -> u64 {
    1 << 31 | (64 - bits) | sl0 << 6 | 0b101 << 16
}

fn machine(va_bits: u8) -> Config {
    Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits,
        pa_bits: 48,
        ram: vec![(RAM, 0x10_0000)],
        leniency: linmap_model::Leniency::Strict,
    }
}

fn bare(vtcr: u64) -> Scene {
    let mut scene = Scene::bare(&machine(48));
    scene.write(0, Register::Vtcr, vtcr).isb(0);
    scene
}

/// `tables` consecutive empty tables at `A`: a root of addresses of `bits`, at the level by `sl0`.
fn rooted(bits: u64, sl0: u64, tables: u64) -> Scene {
    let mut scene = bare(vtcr(bits, sl0));
    for table in 0..tables {
        scene.zero(A + 0x1000 * table);
    }
    scene.ordered().write(0, Register::Vttbr, A | asid(1)).isb(0);
    scene
}

/// Unmaps an IPA of both stages.
fn unmapped(scene: &mut Scene, pa: u64, ipa: u64) -> &mut Scene {
    scene.store(pa, 0).invalidated(broadcast(TlbiScope::Ipa), va(ipa)).invalidated(ALL, 0)
}

#[test]
fn consecutive_tables_are_one_root() {
    // 40 bits from level 1: two tables. The second begins with the block for 512 GiB.
    let far = 1 << 39;
    let second = A + 0x1000;
    let mapped = || {
        let mut scene = rooted(40, 1, 2);
        scene.store(second, GUEST & !2).ordered().reaches(0, far, Use::Write, 0).settled();
        scene
    };
    mapped().legal();
    mapped().store(second, GUEST & !2 | 0x4000_0000).breaks(Rule::OutputAddress);
    unmapped(&mut mapped(), second, far).faults(0, far).settled().legal();
    mapped().store(second, 0).ordered().settled().breaks(Rule::StaleTranslation);
    mapped().event(free(second)).breaks(Rule::TableReachable);
    // A third table is something else.
    mapped().store(second + 0x1000, GUEST).store(second + 0x1000, GUEST | 0x5000).legal();
    // All of it is known, and begins at a multiple of its size.
    rooted(40, 1, 1).breaks(Rule::UnknownEntry);
    let mut scene = bare(vtcr(40, 1));
    scene.zero(A + 0x1000).zero(A + 0x2000).ordered().write(0, Register::Vttbr, A + 0x1000);
    scene.breaks(Rule::MisalignedTable);
    // 16 tables are the most.
    rooted(43, 1, 16).store(A + 0xf000, GUEST & !2).ordered().reaches(0, 15 << 39, Use::Read, 0).legal();
    bare(vtcr(44, 1)).breaks(Rule::Unmodelled);
}

#[test]
fn sl0_chooses_the_level_of_the_root() {
    // Level 0 with two entries, or level 1 with 1024; 39 bits from level 1 or 2.
    let mut scene = rooted(40, 2, 1);
    scene.store(A + 16, GUEST).store(A + 16, GUEST | 0x1000).legal();
    rooted(40, 2, 1).store(A + 8, GUEST & !2).ordered().faults(0, 1 << 39).legal();
    rooted(39, 1, 1).store(A + 8, GUEST & !2).ordered().reaches(0, 1 << 30, Use::Read, 0).legal();
    rooted(34, 0, 16).store(A + 0xf000, GUEST & !2).ordered().reaches(0, 15 << 30, Use::Read, 0).legal();
    // No address is left for the level of the root, or too many for 16 tables.
    for (bits, sl0) in [(39, 2), (48, 1), (30, 1), (35, 0), (40, 3)] {
        bare(vtcr(bits, sl0)).breaks(Rule::Unmodelled);
    }
    // Without VTCR_EL2 a root that may be several tables is not known.
    let unknown = |bits| {
        let mut scene = Scene::bare(&machine(bits));
        scene.tree(ROOT).write(0, Register::Vttbr, ROOT);
        scene
    };
    unknown(44).legal();
    unknown(39).legal();
    unknown(43).breaks(Rule::Unmodelled);
    unknown(40).breaks(Rule::Unmodelled);
}

#[test]
fn vtcr_changes_while_nothing_is_walked_or_held() {
    let mut scene = rooted(40, 1, 2);
    scene.store(A, GUEST & !2).ordered().write(0, Register::Vtcr, vtcr(40, 1)).legal();
    scene.write(0, Register::Vtcr, vtcr(39, 1)).breaks(Rule::TranslationControl);
    rooted(40, 1, 2).write(0, Register::Vtcr, vtcr(39, 1)).isb(0).legal();
    // Until the ISB a walk may use either.
    rooted(40, 1, 2)
        .write(0, Register::Vtcr, vtcr(39, 1))
        .store(A, GUEST & !2)
        .breaks(Rule::TranslationControl);
    // The granule.
    for bits in [0b01 << 14, 0b10 << 14, 0b11 << 14] {
        bare(vtcr(40, 1) | bits).breaks(Rule::Unmodelled);
    }
    // PS.
    let ps = vtcr(39, 1) & !(0b111 << 16) | 0b010 << 16;
    let sized = |pa| {
        let mut scene = bare(ps);
        scene.zero(A).ordered().write(0, Register::Vttbr, A).isb(0).store(A, GUEST & !2 | pa);
        scene
    };
    sized(0xff_c000_0000).legal();
    sized(1 << 40).breaks(Rule::AddressSize);
}

#[test]
fn vmids_have_the_bits_that_vtcr_says() {
    let sixteen = 1 << 19;
    let switched = |vtcr| {
        let mut scene = bare(vtcr);
        scene.zero(A).zero(B).store(A, GUEST & !2).store(B, GUEST & !2 | 0x4000_0000).ordered();
        scene.write(0, Register::Vttbr, A | asid(1)).isb(0);
        scene.write(0, Register::Vttbr, B | asid(0x101)).isb(0);
        scene
    };
    switched(vtcr(39, 1)).breaks(Rule::OutputAddress);
    switched(vtcr(39, 1) | sixteen).settled().legal();
    switched(vtcr(39, 1) | sixteen).write(0, Register::Vtcr, vtcr(39, 1)).breaks(Rule::TranslationControl);
    // Before VTCR_EL2 is written nobody knows.
    Scene::new(0, 1).write(0, Register::Vttbr, ROOT | asid(0x101)).breaks(Rule::Unmodelled);
    // A TLBI reaches the current VMID alone.
    let mut scene = switched(vtcr(39, 1) | sixteen);
    scene.store(A, 0).invalidated(broadcast(TlbiScope::AllStagesVmid), 0).event(Event::Settled).legal();
    let mut scene = switched(vtcr(39, 1) | sixteen);
    scene.store(A, 0).invalidated(broadcast(TlbiScope::AllStagesVmid), 0).store(A, GUEST & !2 | 1 << 31);
    scene.ordered().write(0, Register::Vttbr, A | asid(1)).breaks(Rule::StaleTranslation);
}

#[test]
fn what_the_guest_executes_is_certain_without_xn_0_alone() {
    let (xn0, xn1) = (1 << 53, 1 << 54);
    let executed = |bits| {
        let mut scene = rooted(39, 1, 1);
        scene.store(A, GUEST & !2 | bits).ordered().reaches(0, 0, Use::Execute, 0);
        scene
    };
    let faulted = |bits| {
        let mut scene = rooted(39, 1, 1);
        scene.store(A, GUEST & !2 | bits).ordered();
        scene.event(Event::Faults { cpu: 0, va: 0, kind: Use::Execute }).settled();
        scene
    };
    executed(0).legal();
    faulted(0).breaks(Rule::MayPass);
    executed(xn1).breaks(Rule::MayFault);
    faulted(xn1).legal();
    // With FEAT_XNX one of EL0 and EL1 executes, without it the bit means nothing.
    for bits in [xn0, xn0 | xn1] {
        executed(bits).breaks(Rule::MayFault);
        faulted(bits).breaks(Rule::MayPass);
        rooted(39, 1, 1).store(A, GUEST & !2 | bits).ordered().reaches(0, 0, Use::Write, 0).legal();
    }
}

/// IPAs of the guest's page, and where it lies.
const IPA: u64 = 0x8000_0000;
const FRAME: u64 = 0x9000_0000;
/// The guest's page of stage 2, read-write or read-only.
const GUEST_PAGE: u64 = GUEST | FRAME;
const GUEST_READ_ONLY: u64 = GUEST_PAGE & !(1 << 7);

/// A guest on `cpus` CPUs: a page at `VA` of its stage 1, with `leaf`, is a page of stage 2 in
/// `A3`; and its tables are where it believes them to be.
fn guest(leaf: u64, cpus: usize) -> Scene {
    let mut scene = Scene::bare(&Config { cpus, ..machine(48) });
    for table in [ROOT, L1, L2, L3, A, A + 0x1000, A + 0x2000, A3] {
        scene.zero(table);
    }
    scene.store(ROOT, L1 | TABLE).store(L1, L2 | TABLE).store(L2, L3 | TABLE).store(L3, leaf | IPA);
    scene.store(A + 8, (A + 0x1000) | TABLE).store(A + 0x1000, GUEST & !2 | RAM);
    scene.store(A + 16, (A + 0x2000) | TABLE).store(A + 0x2000, A3 | TABLE).store(A3, GUEST_PAGE).ordered();
    for cpu in 0..cpus {
        scene
            .write(cpu, Register::Vtcr, vtcr(39, 1))
            .isb(cpu)
            .write(cpu, Register::Vttbr, A | asid(1))
            .isb(cpu);
        scene.root(cpu, ROOT);
    }
    scene.settled();
    scene
}

fn faults(kind: Use) -> Event {
    Event::Faults { cpu: 0, va: VA, kind }
}

#[test]
fn an_access_needs_the_permissions_of_both_stages() {
    let xn = 0b11 << 53;
    guest(PAGE, 1).reaches(0, VA, Use::Write, FRAME).event(faults(Use::Execute)).legal();
    guest(PAGE | READ_ONLY, 1).reaches(0, VA, Use::Read, FRAME).event(faults(Use::Write)).legal();
    guest(PAGE & !xn, 1).reaches(0, VA, Use::Execute, FRAME).legal();
    let protected = |leaf: u64, guest_leaf| {
        let mut scene = guest(leaf, 1);
        scene.store(A3, guest_leaf).invalidated(broadcast(TlbiScope::Ipa), va(IPA)).invalidated(ALL, 0);
        scene
    };
    protected(PAGE, GUEST_READ_ONLY)
        .reaches(0, VA, Use::Read, FRAME)
        .event(faults(Use::Write))
        .settled()
        .legal();
    protected(PAGE & !xn, GUEST_PAGE | 1 << 54).event(faults(Use::Execute)).legal();
    protected(PAGE, 0).event(faults(Use::Read)).settled().legal();
    // A page that stage 1 maps outside the guest.
    let mut scene = guest(PAGE, 1);
    scene.store(L3 + 8, PAGE | 0x7000_0000).ordered().faults(0, VA + 0x1000).legal();
    scene.reaches(0, VA + 0x1000, Use::Read, 0x7000_0000).breaks(Rule::MayFault);
}

#[test]
fn a_change_of_stage_2_is_complete_when_entries_of_both_stages_are_invalidated() {
    use TlbiScope::{AllEl1, AllStages, AllStagesVmid, Ipa, VaAnyAsid};
    let protected = |tlbis: &[(TlbiScope, u64)]| {
        let mut scene = guest(PAGE, 2);
        scene.store(A3, GUEST_READ_ONLY);
        for (tlbi, operand) in tlbis {
            scene.invalidated(broadcast(*tlbi), *operand);
        }
        scene.event(Event::Faults { cpu: 1, va: VA, kind: Use::Write }).event(faults(Use::Write)).settled();
        scene
    };
    protected(&[(Ipa, va(IPA)), (AllEl1, 0)]).legal();
    protected(&[(AllStagesVmid, 0)]).legal();
    protected(&[(AllStages, 0)]).legal();
    protected(&[]).breaks(Rule::MayPass);
    // Entries that combine both stages, or those of stage 2, stay.
    protected(&[(Ipa, va(IPA))]).breaks(Rule::MayPass);
    protected(&[(AllEl1, 0)]).breaks(Rule::MayPass);
    // Those of stage 2 go first: they make new ones that combine both.
    protected(&[(AllEl1, 0), (Ipa, va(IPA))]).breaks(Rule::MayPass);
    // The model does not know which address of stage 1 leads there.
    protected(&[(Ipa, va(IPA)), (VaAnyAsid, va(VA))]).breaks(Rule::MayPass);
    // A local one.
    let mut scene = guest(PAGE, 2);
    scene.store(A3, GUEST_READ_ONLY).invalidated(broadcast(Ipa), va(IPA)).invalidated(ALL_LOCAL, 0);
    scene.event(Event::Faults { cpu: 1, va: VA, kind: Use::Write }).breaks(Rule::MayPass);
}

#[test]
fn a_run_of_stage_2_is_dissolved_before_one_of_its_pages_changes() {
    // The bit is cleared from all pages of the run, and the first is unmapped or becomes read-only.
    let dissolved = |first: u64, tlbis: &[(TlbiScope, u64)]| {
        let mut scene = Scene::bare(&Config { bbm: 3, ..machine(48) });
        for table in [A, A + 0x1000, A + 0x2000] {
            scene.zero(table);
        }
        scene.store(A, (A + 0x1000) | TABLE).store(A + 0x1000, (A + 0x2000) | TABLE);
        let fill = |first| Event::Fill { cpu: 0, pa: A + 0x2000, count: 16, first, step: 0x1000 };
        scene.event(fill(GUEST | CONTIGUOUS)).ordered().write(0, Register::Vtcr, vtcr(39, 1)).isb(0);
        scene.write(0, Register::Vttbr, A | asid(1)).isb(0).settled();
        scene.event(fill(GUEST)).ordered().store(A + 0x2000, first);
        for (tlbi, operand) in tlbis {
            scene.invalidated(broadcast(*tlbi), *operand);
        }
        scene.settled();
        scene
    };
    use TlbiScope::{AllEl1, Ipa, IpaLast};
    for first in [0, GUEST & !(1 << 7)] {
        for tlbi in [Ipa, IpaLast] {
            dissolved(first, &[(tlbi, va(0)), (AllEl1, 0)]).legal();
            dissolved(first, &[(tlbi, va(0))]).breaks(Rule::StaleTranslation);
            // The whole run may be one entry: that of any other page goes, that of the first stays.
            dissolved(first, &[(tlbi, va(0x1000)), (AllEl1, 0)]).breaks(Rule::StaleTranslation);
        }
        dissolved(first, &[(AllEl1, 0)]).breaks(Rule::StaleTranslation);
    }
}

#[test]
fn what_a_guest_has_in_use_stays_accessible_by_both_stages() {
    let used = |kind, leaf| {
        let mut scene = guest(PAGE, 1);
        scene.uses(VA, 0x1000, kind).store(A3, leaf);
        scene
    };
    used(Use::Read, GUEST_READ_ONLY).legal();
    used(Use::Write, GUEST_READ_ONLY).breaks(Rule::MayFault);
    used(Use::Read, 0).breaks(Rule::MayFault);
}

#[test]
fn tables_of_stage_1_are_where_stage_2_has_them() {
    let mut scene = guest(PAGE, 1);
    scene.store(A + 0x1000, 0).invalidated(broadcast(TlbiScope::AllStages), 0);
    scene.reaches(0, VA, Use::Read, FRAME).breaks(Rule::Unmodelled);
    let mut scene = guest(PAGE, 1);
    scene.store(A + 0x1000, 0).invalidated(broadcast(TlbiScope::AllStages), 0);
    scene.store(A + 0x1000, GUEST & !2 | RAM | 0x20_0000).ordered().event(faults(Use::Write));
    scene.breaks(Rule::Unmodelled);
}

#[test]
fn tables_of_el1_belong_to_one_vmid() {
    let other = |guest: &mut Scene, cpu| {
        guest.zero(B).ordered().write(cpu, Register::Vttbr, B | asid(2)).isb(cpu);
    };
    let mut scene = guest(PAGE, 1);
    other(&mut scene, 0);
    scene.breaks(Rule::Unmodelled);
    // Tables of EL1 before stage 2 have no VMID.
    let mut scene = Scene::new(0, 1);
    scene.zero(A).ordered().write(0, Register::Vttbr, A).breaks(Rule::Unmodelled);
    // Another CPU invalidates EL1's entries of its own VMID, or of all.
    let unmapped = |tlbi| {
        let mut scene = guest(PAGE, 2);
        scene.zero(SPARE).ordered().root(1, SPARE);
        scene.event(Event::Tlbi { cpu: 1, tlbi: ALL, operand: 0 });
        scene.event(Event::Dsb { cpu: 1, domain: Domain::Ish, access: Access::All }).isb(1);
        other(&mut scene, 1);
        scene.store(L3, 0).ordered().event(Event::Tlbi { cpu: 1, tlbi: broadcast(tlbi), operand: 0 });
        scene.event(Event::Dsb { cpu: 1, domain: Domain::Ish, access: Access::All }).isb(1);
        scene.event(faults(Use::Read));
        scene
    };
    unmapped(TlbiScope::AllStages).legal();
    unmapped(TlbiScope::AllEl1).breaks(Rule::MayPass);
    unmapped(TlbiScope::AllStagesVmid).breaks(Rule::MayPass);
}

//! Updates by hardware: HA sets the access flag, HD makes a leaf with DBM writable, at any time.

use crate::scene::*;
use linmap_model::event::{Access, Register, TlbiScope, Use};
use linmap_model::{Event, Rule};

/// T0SZ = T1SZ = 16, TG1 = 4K, IPS = 48 bits.
const TCR: u64 = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32;
const HA: u64 = 1 << 39;
const HD: u64 = 1 << 40;

const ACCESSED: u64 = 1 << 10;
const DBM: u64 = 1 << 51;
const UNACCESSED: u64 = PAGE & !ACCESSED;
const CLEAN: u64 = PAGE | DBM | READ_ONLY;
const DIRTY: u64 = PAGE | DBM;

/// `leaf` in the tree of CPUs with the `bits` of TCR.
fn mapped(bits: u64, leaf: u64) -> Scene {
    let ram = vec![(RAM, 0x10_0000)];
    let config = linmap_model::Config {
        cpus: 2,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let mut scene = Scene::bare(&config);
    scene.tree(A).store(A3, leaf).ordered();
    for cpu in 0..2 {
        scene.write(cpu, Register::Tcr, TCR | bits).isb(cpu).root(cpu, A);
    }
    scene.settled();
    scene
}

fn update(value: u64) -> Event {
    Event::Update { cpu: 0, pa: A3, value, old: None, via: None }
}

fn write_faults() -> Event {
    Event::Faults { cpu: 1, va: VA, kind: Use::Write }
}

#[test]
fn a_leaf_is_used_as_hardware_updates_it() {
    mapped(HA, UNACCESSED).reaches(1, VA, Use::Write, 0).settled().legal();
    mapped(0, UNACCESSED).reaches(1, VA, Use::Read, 0).breaks(Rule::MayFault);
    mapped(HA, UNACCESSED).faults(1, VA).breaks(Rule::MayPass);
    mapped(HA | HD, CLEAN).reaches(1, VA, Use::Write, 0).settled().legal();
    mapped(HA | HD, CLEAN).event(write_faults()).breaks(Rule::MayPass);
    // HD needs HA, and DBM.
    for bits in [0, HA, HD] {
        mapped(bits, CLEAN).event(write_faults()).settled().legal();
    }
    mapped(HA | HD, PAGE | READ_ONLY).event(write_faults()).settled().legal();
    // What the tables above take away hardware does not give back.
    let mut scene = mapped(HA | HD, CLEAN);
    scene.store(A + 0x2000, A3 | TABLE | 1 << 62).invalidated(ALL, 0).event(write_faults()).settled().legal();
}

#[test]
fn a_plain_store_over_a_leaf_that_hardware_may_have_updated_loses_the_update() {
    for (bits, leaf) in [(HA, UNACCESSED), (HA | HD, CLEAN), (HA | HD, CLEAN & !ACCESSED)] {
        for value in [0, leaf, leaf | NON_GLOBAL, PAGE] {
            mapped(bits, leaf).store(A3, value).breaks(Rule::LostUpdate);
            mapped(bits, leaf).event(update(value)).legal();
        }
        // Without these bits, or with nothing to update, it is a store like any other.
        mapped(0, leaf).store(A3, leaf).legal();
        mapped(bits, DIRTY).store(A3, 0).legal();
        // So it is where no walk leads.
        mapped(bits, leaf).store(B3, leaf).store(B3, 0).legal();
        // Afterwards the update may be made again.
        mapped(bits, leaf).event(update(leaf)).store(A3, 0).breaks(Rule::LostUpdate);
        mapped(bits, leaf).event(update(0)).store(A3, 0).legal();
        // A fill, too.
        let fill = Event::Fill { cpu: 0, pa: A3, count: 2, first: 0, step: 0 };
        mapped(bits, leaf).event(fill).breaks(Rule::LostUpdate);
    }
}

#[test]
fn an_update_is_ordered_and_invalidated_like_a_store() {
    let unmapped = || {
        let mut scene = mapped(HA | HD, CLEAN);
        scene.event(update(0));
        scene
    };
    unmapped().invalidated(BY_VA_LAST, va(VA)).faults(1, VA).settled().legal();
    unmapped().ordered().settled().breaks(Rule::StaleTranslation);
    unmapped().tlbi(BY_VA_LAST, va(VA)).dsb(Access::All).isb(0).settled().breaks(Rule::StaleTranslation);
    let mut scene = mapped(HA | HD, CLEAN);
    scene.event(update(CLEAN | 0x1000)).breaks(Rule::OutputAddress);
    // What is written read-only without DBM may be held as dirty.
    let mut scene = mapped(HA | HD, CLEAN);
    scene.event(update(PAGE | READ_ONLY)).ordered().event(write_faults()).breaks(Rule::MayPass);
    let mut scene = mapped(HA | HD, CLEAN);
    scene
        .event(update(PAGE | READ_ONLY))
        .invalidated(BY_VA_LAST, va(VA))
        .event(write_faults())
        .settled()
        .legal();
}

#[test]
fn a_page_is_clean_again_after_an_invalidation() {
    // Otherwise a CPU that holds it as dirty writes and marks nothing. The second time software
    // stores the value that it stored before: hardware has changed it since.
    for before in [DIRTY, CLEAN] {
        let cleaned = || {
            let mut scene = mapped(HA | HD, before);
            scene.event(update(CLEAN));
            scene
        };
        cleaned().invalidated(BY_VA_LAST, va(VA)).settled().legal();
        cleaned().ordered().settled().breaks(Rule::StaleTranslation);
        cleaned().invalidated(ALL_LOCAL, 0).settled().breaks(Rule::StaleTranslation);
        cleaned().tlbi(BY_VA_LAST, va(VA)).dsb(Access::All).isb(0).settled().breaks(Rule::StaleTranslation);
        cleaned().ordered().reaches(1, VA, Use::Write, 0).legal();
    }
    // The same for the access flag.
    let aged = || {
        let mut scene = mapped(HA, PAGE);
        scene.store(A3, UNACCESSED);
        scene
    };
    aged().invalidated(BY_VA_LAST, va(VA)).reaches(1, VA, Use::Read, 0).settled().legal();
    aged().ordered().settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_page_that_is_held_without_what_a_table_takes_away_is_written_behind_it() {
    // The table becomes read-only. Its pointer and another page are invalidated, so the page stays,
    // clean, and hardware makes it writable there.
    let restricted = |tlbi, operand| {
        let mut scene = mapped(HA | HD, CLEAN);
        scene.store(A + 0x2000, A3 | TABLE | 1 << 62).invalidated(tlbi, operand).settled();
        scene.event(write_faults());
        scene
    };
    restricted(BY_VA, va(VA + 0x1000)).breaks(Rule::StaleTranslation);
    restricted(BY_VA, va(VA)).legal();
}

#[test]
fn neighbours_of_what_was_invalidated_are_as_they_were() {
    // The pointer goes, the neighbours stay in the TLB: updated there is updated in memory.
    let mut scene = mapped(HA | HD, CLEAN);
    scene.store(A3 + 8, CLEAN & !ACCESSED | 0x1000).store(A3 + 16, PAGE | 0x2000).ordered().isb(1);
    scene.store(A3 + 16, 0).invalidated(BY_VA, va(VA + 0x2000)).settled().legal();
    scene.event(update(CLEAN)).invalidated(BY_VA, va(VA + 0x5000)).settled().breaks(Rule::StaleTranslation);
}

#[test]
fn entries_of_a_run_differ_where_hardware_updates_one_of_them() {
    let run = |bits, first| {
        let mut scene = mapped(bits, 0);
        let fill = |first| Event::Fill { cpu: 0, pa: A3, count: 16, first, step: 0x1000 };
        scene.event(fill(CLEAN | CONTIGUOUS)).ordered().isb(1).event(update(first));
        scene.invalidated(BY_RANGE, range(VA, 7, 0)).settled();
        scene
    };
    run(HA | HD, DIRTY | CONTIGUOUS).legal();
    run(0, DIRTY | CONTIGUOUS).breaks(Rule::Contiguous);
    run(HA | HD, CLEAN & !ACCESSED | CONTIGUOUS).legal();
    run(0, CLEAN & !ACCESSED | CONTIGUOUS).breaks(Rule::IncompleteRun);
    // Permissions without DBM may not.
    run(HA | HD, PAGE | READ_ONLY | CONTIGUOUS).breaks(Rule::Contiguous);
}

#[test]
fn while_ha_and_hd_change_hardware_may_make_the_updates_of_either() {
    let clean = PAGE | READ_ONLY | DBM;
    for (bits, leaf) in [(HA, PAGE & !ACCESSED), (HA | HD, clean)] {
        for (from, to) in [(0, bits), (bits, 0)] {
            let mut scene = mapped(from, leaf);
            scene.write(0, Register::Tcr, TCR | to).isb(0).settled().legal();
            scene.store(A3, 0).breaks(Rule::LostUpdate);
        }
        mapped(0, leaf).store(A3, 0).legal();
    }
}

#[test]
fn stage_2_is_updated_by_vtcr() {
    const GUEST: u64 = 0x7fd;
    let (ha, hd, write) = (1 << 21, 1 << 22, 1 << 7);
    let clean = GUEST & !write | DBM;
    let rooted = |bits: u64, leaf| {
        let ram = vec![(RAM, 0x10_0000)];
        let config = linmap_model::Config {
            cpus: 1,
            bbm: 0,
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram,
            leniency: linmap_model::Leniency::Strict,
        };
        let mut scene = Scene::bare(&config);
        // 39 bits from level 1.
        let vtcr = 1 << 31 | 25 | 1 << 6 | 0b101 << 16 | bits;
        scene.zero(A).store(A, leaf).ordered().write(0, Register::Vtcr, vtcr).isb(0);
        scene.write(0, Register::Vttbr, A).isb(0).settled();
        scene
    };
    let update = |value| Event::Update { cpu: 0, pa: A, value, old: None, via: None };
    let faults = Event::Faults { cpu: 0, va: 0, kind: Use::Write };
    rooted(ha | hd, clean).reaches(0, 0, Use::Write, 0).settled().legal();
    rooted(ha, clean).event(faults).settled().legal();
    rooted(ha | hd, clean).store(A, 0).breaks(Rule::LostUpdate);
    rooted(ha, GUEST & !ACCESSED).store(A, 0).breaks(Rule::LostUpdate);
    rooted(0, GUEST & !ACCESSED).store(A, 0).legal();
    let cleaned = |all: bool| {
        let mut scene = rooted(ha | hd, clean);
        scene.event(update(clean)).invalidated(broadcast(TlbiScope::Ipa), 0);
        if all {
            scene.invalidated(ALL, 0);
        }
        scene.settled();
        scene
    };
    cleaned(true).legal();
    cleaned(false).breaks(Rule::StaleTranslation);
}

#[test]
fn a_page_held_as_clean_is_dirty_without_an_invalidation_and_not_the_other_way() {
    let exchange = |old: u64, value| Event::Update { cpu: 0, pa: A3, value, old: Some(old), via: None };
    // Hardware marks it again at the next write, and finds it marked.
    mapped(HA | HD, CLEAN).event(exchange(CLEAN, DIRTY)).ordered().settled().legal();
    let mut scene = mapped(HA | HD, CLEAN);
    scene.event(exchange(CLEAN, DIRTY)).ordered().reaches(1, VA, Use::Write, 0).settled().legal();
    mapped(HA | HD, DIRTY).event(update(CLEAN)).ordered().settled().breaks(Rule::StaleTranslation);
    // Without DBM, or without HD, a write through what is held faults.
    mapped(HA | HD, PAGE | READ_ONLY).event(update(PAGE)).ordered().settled().breaks(Rule::StaleTranslation);
    mapped(HA, CLEAN).event(update(DIRTY)).ordered().settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_compare_exchange_that_found_a_page_clean_proves_that_no_tlb_holds_it_as_dirty() {
    let exchange = |old: u64, value| Event::Update { cpu: 0, pa: A3, value, old: Some(old), via: None };
    // The new page is clean like the old one: only a page that was dirty needs an invalidation.
    let marked = CLEAN | 1 << 55;
    mapped(HA | HD, CLEAN).event(exchange(CLEAN, marked)).ordered().settled().legal();
    mapped(HA | HD, CLEAN).event(update(marked)).ordered().settled().breaks(Rule::StaleTranslation);
    let mut scene = mapped(HA | HD, CLEAN);
    scene.event(exchange(DIRTY, marked)).ordered().settled().breaks(Rule::StaleTranslation);
    // Hardware may still update what software stored.
    let mut scene = mapped(HA | HD, CLEAN);
    scene.event(exchange(CLEAN, marked)).ordered().store(A3, 0).breaks(Rule::LostUpdate);
    // It makes nothing else of an entry.
    mapped(HA | HD, CLEAN).event(exchange(CLEAN | 0x1000, 0)).breaks(Rule::OtherValue);
    mapped(HA, CLEAN).event(exchange(DIRTY, 0)).breaks(Rule::OtherValue);
    // One of a run may be clean, while a TLB holds the run as dirty for another.
    let mut scene = mapped(HA | HD, 0);
    let fill = Event::Fill { cpu: 0, pa: A3, count: 16, first: CLEAN | CONTIGUOUS, step: 0x1000 };
    let next = Event::Update {
        cpu: 0,
        pa: A3,
        value: CLEAN | CONTIGUOUS | 1 << 55,
        old: Some(CLEAN | CONTIGUOUS),
        via: None,
    };
    scene.event(fill).ordered().isb(1).event(next).ordered().settled().breaks(Rule::StaleTranslation);
}

#[test]
fn a_page_that_software_makes_dirty_needs_no_invalidation() {
    let dirtied = Event::Update { cpu: 0, pa: A3, value: DIRTY, old: Some(CLEAN), via: None };
    mapped(HA | HD, CLEAN).event(dirtied).ordered().settled().legal();
}

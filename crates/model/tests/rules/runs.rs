//! Contiguous runs: whole, even, and changed as one.

use crate::scene::*;
use linmap_model::event::{Access, Use};
use linmap_model::{Config, Event, Rule};

#[test]
fn contiguous_runs_are_whole_aligned_and_alike() {
    let mut scene = Scene::new(0, 1);
    scene.run(0).ordered().settled().legal();
    // The address does not fit the place in the run.
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE | CONTIGUOUS | 0x1000).breaks(Rule::MisalignedRun);
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE | CONTIGUOUS).store(L3 + 8, PAGE | CONTIGUOUS | 0x1_1000).breaks(Rule::MixedRun);
    // Only a part has the bit.
    let mut scene = Scene::new(0, 1);
    scene.store(L3, PAGE | CONTIGUOUS).ordered().settled().breaks(Rule::IncompleteRun);
    // One page of a run becomes read-only, with or without the bit.
    for bit in [0, CONTIGUOUS] {
        let mut scene = Scene::new(3, 1);
        scene.run(0).ordered().store(L3 + 8, PAGE | 0x1000 | READ_ONLY | bit).invalidated(ALL, 0).settled();
        scene.breaks(Rule::IncompleteRun);
    }
    for bit in [0, CONTIGUOUS] {
        let mut scene = Scene::new(0, 1);
        scene.run(0).ordered().store(L3 + 8, PAGE | 0x1000 | READ_ONLY | bit).breaks(Rule::Contiguous);
    }
}

#[test]
fn a_run_is_unfolded_whole_before_one_page_changes() {
    let unfolded = |bbm| {
        let mut scene = Scene::new(bbm, 1);
        scene.run(0).ordered();
        scene.event(Event::Fill { cpu: 0, pa: L3, count: 16, first: PAGE, step: 0x1000 });
        scene
    };
    unfolded(0).breaks(Rule::Contiguous);
    unfolded(2).ordered().settled().breaks(Rule::MayAbort);
    let mut scene = unfolded(3);
    scene.ordered().store(L3 + 8, PAGE | 0x1000 | READ_ONLY).invalidated(BY_VA_LAST, va(VA + 0x1000));
    scene.settled().legal();
    // An entry for the whole run may be left, if another page's address was invalidated.
    let mut scene = unfolded(3);
    scene.ordered().store(L3 + 8, 0).invalidated(BY_VA_LAST, va(VA + 0x1_0000)).faults(0, VA + 0x1000);
    scene.breaks(Rule::MayPass);
    let mut scene = unfolded(3);
    scene.ordered().store(L3 + 8, 0).invalidated(BY_VA_LAST, va(VA + 0x1000)).faults(0, VA + 0x1000);
    scene.reaches(0, VA + 0x2000, Use::Write, 0x2000).settled().legal();
}

#[test]
fn each_page_of_a_run_needs_its_own_invalidation() {
    let mut scene = Scene::new(3, 1);
    scene.run(0).ordered();
    scene.event(Event::Fill { cpu: 0, pa: L3, count: 16, first: 0, step: 0 });
    scene.invalidated(BY_VA_LAST, va(VA)).settled().breaks(Rule::StaleTranslation);
    let mut scene = Scene::new(3, 1);
    scene.run(0).ordered();
    scene.event(Event::Fill { cpu: 0, pa: L3, count: 16, first: 0, step: 0 }).dsb(Access::Stores);
    for page in 0..16 {
        scene.tlbi(BY_VA_LAST, va(VA + page * 0x1000));
    }
    scene.dsb(Access::All).isb(0).settled().legal();
}

#[test]
fn a_neighbour_in_a_run_translates_for_the_page_that_is_gone() {
    let changed = |bbm, value| {
        let mut scene = Scene::new(bbm, 1);
        scene.run(0).ordered().store(L3 + 8, value).invalidated(ALL, 0);
        scene
    };
    changed(0, 0).faults(0, VA + 0x1000).breaks(Rule::MayPass);
    let write = Event::Faults { cpu: 0, va: VA + 0x1000, kind: Use::Write };
    changed(3, PAGE | CONTIGUOUS | READ_ONLY | 0x1000).event(write).breaks(Rule::MayPass);
    // Half a run may abort below level 3.
    let page = VA + 0x1000;
    changed(2, PAGE | 0x1000).reaches(0, page, Use::Read, 0x1000).breaks(Rule::MayAbort);
    changed(3, PAGE | 0x1000).reaches(0, page, Use::Read, 0x1000).legal();
}

#[test]
fn permissions_of_a_whole_run_change_in_place_above_level_0() {
    let changed = |bbm| {
        let mut scene = Scene::new(bbm, 2);
        let first = PAGE | CONTIGUOUS | READ_ONLY;
        scene.run(0).ordered().isb(1);
        scene.event(Event::Fill { cpu: 0, pa: L3, count: 16, first, step: 0x1000 });
        scene
    };
    changed(0).breaks(Rule::Contiguous);
    let mut scene = changed(1);
    scene.reaches(1, VA + 0x3000, Use::Read, 0x3000);
    scene.invalidated(BY_RANGE, range(VA, 7, 0)).event(Event::Faults { cpu: 1, va: VA, kind: Use::Write });
    scene.settled().legal();
}

#[test]
fn a_block_inside_a_run_is_not_split_alone() {
    let split = |fill: u64| {
        let mut scene = Scene::new(3, 1);
        scene.store(L2, 0).invalidated(ALL, 0);
        scene.event(Event::Fill { cpu: 0, pa: L2, count: 16, first: BLOCK | CONTIGUOUS, step: 0x20_0000 });
        scene.pages(SPARE, 0x20_0000).ordered();
        scene.event(Event::Fill { cpu: 0, pa: L2, count: 16, first: BLOCK | fill, step: 0x20_0000 });
        scene.invalidated(ALL, 0).store(L2 + 8, SPARE | TABLE).invalidated(ALL, 0);
        // Another page for one of the block's: the other blocks' one entry still covers it.
        scene.store(SPARE, 0).invalidated(ALL, 0).store(SPARE, PAGE | 0x99_9000);
        scene
    };
    split(CONTIGUOUS).breaks(Rule::OutputAddress);
    split(0).ordered().settled().legal();
}

#[test]
fn a_run_never_stands_in_a_root_that_is_shorter() {
    let ram = vec![(RAM, 0x1_0000)];
    let config = Config {
        cpus: 1,
        bbm: 3,
        granule: 0x1000,
        va_bits: 31,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let mut scene = Scene::bare(&config);
    scene.zero(ROOT).ordered().root(0, ROOT).store(ROOT, BLOCK | CONTIGUOUS).breaks(Rule::MisalignedRun);
    let mut scene = Scene::bare(&config);
    scene.zero(ROOT).ordered().root(0, ROOT).store(ROOT, BLOCK).ordered();
    scene.reaches(0, 0u64.wrapping_sub(1 << 31), Use::Read, 0).settled().legal();
}

#[test]
fn one_entry_of_a_run_never_loses_its_access_flag_alone() {
    let unaccessed = PAGE & !(1 << 10);
    for bbm in 0..4 {
        let lost = || {
            let mut scene = Scene::new(bbm, 1);
            scene.run(0).ordered().store(L3 + 3 * 8, unaccessed | CONTIGUOUS | 0x3000);
            scene.invalidated(BY_RANGE, range(VA, 7, 0));
            scene
        };
        // A TLB may hold the run as one entry, made of another one.
        lost().faults(0, VA + 0x3000).breaks(Rule::MayPass);
        lost().settled().breaks(Rule::IncompleteRun);
        let mut scene = lost();
        scene.event(Event::Fill { cpu: 0, pa: L3, count: 16, first: unaccessed | CONTIGUOUS, step: 0x1000 });
        scene.invalidated(BY_RANGE, range(VA, 7, 0)).faults(0, VA + 0x3000).settled().legal();
    }
}

#[test]
fn dirty_state_by_hardware_is_off_so_it_may_not_differ_in_a_run() {
    const DBM: u64 = 1 << 51;
    let mut scene = Scene::new(3, 1);
    scene.run(DBM | READ_ONLY).ordered().store(L3 + 8, PAGE | CONTIGUOUS | DBM | 0x1000);
    scene.invalidated(BY_RANGE, range(VA, 7, 0)).settled().breaks(Rule::IncompleteRun);
    Scene::new(3, 1).run(DBM | READ_ONLY).ordered().settled().legal();
}

#[test]
fn an_entry_of_a_run_never_becomes_global_or_non_global_alone() {
    for bbm in 1..4 {
        for bit in [0, CONTIGUOUS] {
            // A TLB makes an entry of any of the others, before and after.
            let mut scene = Scene::new(bbm, 1);
            scene.run(0).ordered().store(L3 + 8, PAGE | NON_GLOBAL | bit | 0x1000).breaks(Rule::MixedRun);
            let mut scene = Scene::new(bbm, 1);
            scene.run(NON_GLOBAL).ordered().store(L3 + 8, PAGE | bit | 0x1000).breaks(Rule::Global);
        }
    }
    // Unfolded first, and what TLBs hold of it invalidated, each page is by itself.
    let mut scene = Scene::new(3, 1);
    scene.run(0).ordered();
    scene.event(Event::Fill { cpu: 0, pa: L3, count: 16, first: PAGE, step: 0x1000 });
    scene.ordered().store(L3 + 8, PAGE | NON_GLOBAL | 0x1000).invalidated(BY_RANGE, range(VA, 7, 0));
    scene.settled().legal();
}

#[test]
fn a_fold_never_changes_whether_a_translation_is_global() {
    let folded = |page: u64, block: u64| {
        let mut scene = Scene::new(3, 1);
        let first = PAGE | page;
        scene.event(Event::Fill { cpu: 0, pa: L3, count: 512, first, step: 0x1000 }).ordered();
        scene.store(L2, BLOCK | block);
        scene
    };
    folded(NON_GLOBAL, 0).breaks(Rule::Global);
    // A walk cache may still lead to a global page after the block was cached.
    folded(0, NON_GLOBAL).breaks(Rule::Global);
    folded(0, 0).legal();
    folded(NON_GLOBAL, NON_GLOBAL).legal();
    // A block becomes pages that are not global like one entry that becomes so.
    let mut scene = Scene::new(3, 1);
    let first = PAGE | NON_GLOBAL;
    scene.store(L2, 0).invalidated(ALL, 0).store(L2, BLOCK).ordered();
    scene.event(Event::Fill { cpu: 0, pa: SPARE, count: 512, first, step: 0x1000 }).ordered();
    scene.store(L2, SPARE | TABLE).invalidated(BY_RANGE, range(VA, 7, 1)).settled().legal();
}

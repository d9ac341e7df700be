//! What the six builders and kexec cost, in instructions, invalidations and barriers. Under
//! `--icount` these are exact and the same in every run.

use std::io::Write;

use linmap_tests::{Boot, Outcome};

fn build(builder: &str, leaf: &str, memory: &str) -> Outcome {
    let append = format!("linmap.build={builder} linmap.leaf={leaf} linmap.kaslr=off");
    let outcome =
        Boot::new(&format!("--memory {memory} --icount --payload none")).with("--append", append).run();
    outcome.expect_success();
    outcome
}

/// Leaf tables of 4 GiB in pages.
const LEAF_TABLES: u64 = 2048;

#[test]
fn the_published_steps_cost_the_published_invalidations_and_barriers_per_leaf_table() {
    // Pairs of a DSB and an ISB for each entry; TLBIs, DSBs and ISBs for one leaf table. A slot use
    // is 1 + 2 DSBs, 1 + 1 ISBs and a TLBI; the link from the level above is one pair more.
    for (builder, pairs, tlbi, dsb, isb) in [
        ("base", 1.0, 33.0, 33.0 * 3.0 + 1.0, 33.0 * 2.0 + 1.0),
        ("no-cont-remap", 1.0, 2.0, 2.0 * 3.0 + 1.0, 2.0 * 2.0 + 1.0),
        ("batch-barriers", 0.0, 2.0, 2.0 * 3.0 + 1.0, 2.0 * 2.0 + 1.0),
        // Zeroed in place, which takes a DSB of its own.
        ("no-alloc-remap", 0.0, 1.0, 5.0, 3.0),
        // The pair of DSBs and the ISB at the end of a use are shared by 16.
        ("lazy-unmap", 0.0, 1.0, 3.0 + 2.0 / 16.0, 2.0 + 1.0 / 16.0),
    ] {
        let outcome = build(builder, "page", "4G");
        // All but the image's data: nearly 512 entries a table.
        let pairs = pairs * outcome.linear_map("entries") as f64 / LEAF_TABLES as f64;
        for (key, each) in [("tlbi", tlbi), ("dsb", dsb + pairs), ("isb", isb + pairs)] {
            let found = outcome.linear_map(key) as f64 / LEAF_TABLES as f64;
            // Above the leaf tables there are 4 tables at level 2 and one at level 1; `base` maps
            // those at level 2 anew for every 32 MiB.
            assert!((each..each * 1.01 + 0.2).contains(&found), "{builder} {key}: {found} for {each}");
        }
    }
}

#[test]
fn the_identity_builder_invalidates_once_for_each_of_its_own_tables_and_once_at_the_end() {
    for memory in ["4G", "16G"] {
        for leaf in ["page", "block"] {
            let outcome = build("identity", leaf, memory);
            assert!(outcome.linear_map("tlbi") <= 4, "{memory} {leaf}");
            assert!(outcome.linear_map("dsb") <= 12, "{memory} {leaf}");
        }
    }
}

#[test]
fn the_device_tree_is_read_in_few_instructions() {
    let outcome = build("identity", "block", "4G");
    let ticks = |phase| outcome.phase(phase)["ticks"].as_u64().expect("a number");
    // The whole blob is checked once and searched once; then memory and CPUs need some of it.
    let all = ticks("device-tree") + ticks("memblock") + ticks("cpus");
    assert!(all <= 150_000, "{}", outcome.console);
}

#[test]
fn the_identity_builder_needs_few_instructions() {
    let outcome = build("identity", "page", "16G");
    let each = outcome.linear_map("ticks") as f64 / outcome.linear_map("entries") as f64;
    assert!(each <= 1.95, "{each} instructions a page entry");
    let outcome = build("identity", "block", "4G");
    assert!(outcome.linear_map("ticks") <= 7_922, "{:?}", outcome.phase("linear-map"));
}

#[test]
fn verify_compares_an_entry_of_a_map_of_pages_in_less_than_three_instructions() {
    let outcome =
        Boot::new("--memory 16G --icount --append linmap.leaf=page").with("--script", "verify").run();
    let verified = outcome.expect_success().with("verify").expect("a line of verify");
    let number = |key: &str| verified[key].as_f64().expect("a number");
    let each = number("table_ticks") / number("entries");
    assert!(each <= 2.95, "{each} instructions an entry");
}

#[test]
fn a_page_map_takes_a_512th_of_memory_and_all_other_tables_come_back() {
    let outcome = Boot::new("--memory 16G --append linmap.leaf=page").with("--script", "mem; map").run();
    outcome.expect_success();
    let tables = outcome.linear_map("tables");
    let memory = 16u64 << 30;
    assert!(tables * 4096 <= memory / 512 * 1003 / 1000, "{tables}");
    let map = outcome.with("map").expect("a summary");
    assert_eq!(map["tables"], tables, "the live tree has as many tables as were built");
    // The memory reserved now is the memory reserved before the phase, and the tables.
    let before = outcome.phase("memblock")["reserved_bytes"].as_u64().expect("a number");
    let after = outcome.with("memory").expect("totals")["reserved"].as_u64().expect("a number");
    assert_eq!(after, before + tables * 4096);
}

#[test]
fn a_tick_that_is_not_one_instruction_says_its_ratio() {
    let outcome = Boot::new("--memory 1G --icount --payload none --cpu cortex-a72").run();
    let phase = outcome.expect_success().phase("linear-map");
    assert_eq!(phase["ticks_per_insn"].as_f64(), Some(0.0625));
    let outcome = Boot::new("--memory 1G --icount --payload none").run();
    assert!(!outcome.expect_success().phase("linear-map").contains_key("ticks_per_insn"));
}

/// What Linux 7.2.13 moved to enter itself, bytes in whole pages, and the instructions that it
/// took.
const LINUX_MOVED: u64 = 50_335_744;
const LINUX_JUMP: u64 = 12_774_626;

/// Kexecs into itself with an archive that has `more` bytes more, all of it scattered.
fn kexec_scattered(options: &str, more: u64) -> Outcome {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    // No word is zero: no page can be cleared instead of moved.
    let words: Vec<u8> = (1..=more / 8).flat_map(u64::to_le_bytes).collect();
    file.write_all(&words).expect("room for the file");
    let outcome = Boot::new(&format!("--memory 4G --icount --payload self {options}"))
        .with("--initrd", file.path())
        .with("--script", "kexec load --scattered; kexec plan; kexec exec")
        .run();
    outcome.expect_success();
    outcome
}

fn plan(outcome: &Outcome, key: &str) -> u64 {
    let plan = outcome.with("kexec").expect("the plan");
    plan[key].as_u64().unwrap_or_else(|| panic!("{key} in {plan:?}"))
}

#[test]
fn a_scattered_payload_of_linuxs_size_is_moved_in_45_hundredths_of_its_instructions() {
    let outcome = kexec_scattered("", LINUX_MOVED - (2 << 20));
    let moved = plan(&outcome, "moved");
    assert!(moved.abs_diff(LINUX_MOVED) < 2 << 20 && plan(&outcome, "cleared") == 0, "{moved}");
    let ticks = outcome.phase("kexec-jump")["ticks"].as_u64().unwrap();
    // For as many bytes as Linux moved.
    assert!(ticks * LINUX_MOVED / moved <= LINUX_JUMP * 45 / 100, "{ticks} instructions for {moved} bytes");
}

#[test]
fn four_cpus_share_a_move_evenly_and_execute_together_what_one_would() {
    let one = kexec_scattered("", 8 << 20);
    let four = kexec_scattered("--cpus 4", 8 << 20);
    assert_eq!((plan(&one, "lists"), plan(&four, "lists")), (1, 4));
    let moved = plan(&four, "moved");
    assert!(plan(&four, "longest") * 400 <= moved * 101, "the longest list is a quarter");
    let ticks = |outcome: &Outcome| outcome.phase("kexec-jump")["ticks"].as_u64().unwrap();
    assert!(ticks(&four) * 100 <= ticks(&one) * 101, "{} and {}", ticks(&four), ticks(&one));
}

#[test]
fn a_boot_takes_under_15_million_instructions_up_to_the_jump_into_linux() {
    let outcome = Boot::new("--memory 4G --icount --payload linux").until_linux_starts().run();
    outcome.expect_linux();
    let phases = outcome.records.iter().filter(|record| record.contains_key("phase"));
    let ticks: u64 = phases.filter_map(|phase| phase["ticks"].as_u64()).sum();
    let load = outcome.phase("kexec-load");
    assert!(load["in_place"].as_u64() > Some(40 << 20), "{load:?}");
    assert!(ticks < 15_000_000, "{ticks}");
}

#[test]
fn a_load_page_by_page_takes_under_eight_tenths_of_an_instruction_for_each_byte() {
    let outcome = kexec_scattered("", LINUX_MOVED - (2 << 20));
    let load = outcome.phase("kexec-load");
    let ticks = load["ticks"].as_u64().expect("a number");
    let bytes = load["bytes"].as_u64().expect("a number");
    assert!(bytes > 40 << 20 && ticks * 10 < bytes * 8, "{ticks} instructions for {bytes} bytes");
}

#[test]
fn the_transitional_tables_take_at_most_5_000_instructions_at_4_gib_and_6_000_at_512() {
    for (memory, most) in [("4G", 5000), ("512G", 6000)] {
        let outcome = Boot::new(&format!("--memory {memory} --icount --payload self"))
            .with("--script", "kexec load --scattered")
            .run();
        let phase = outcome.expect_success().phase("kexec-tables");
        assert!(phase["ticks"].as_u64() <= Some(most), "{memory}: {phase:?}");
    }
}

#[test]
fn the_identity_builder_needs_few_instructions_with_large_pages() {
    // 64 GiB: entries of the 1:1 map, by blocks of 32M and 512M.
    for (granule, identity) in [("16k", 2048), ("64k", 128)] {
        let build = |leaf: &str| {
            let outcome = Boot::new(&format!("--granule {granule} --memory 64G --icount --payload none"))
                .with("--append", format!("linmap.leaf={leaf}"))
                .run();
            outcome.expect_success();
            (outcome.linear_map("ticks"), outcome.linear_map("entries"))
        };
        let (ticks, entries) = build("page");
        assert!(ticks <= 2 * entries, "{granule}: {ticks} for {entries} pages");
        // What 4K pages take: 6.05 instructions an entry between 512 GiB and 4 TiB in blocks, 1:1
        // map included, and 4 960 besides.
        let (ticks, entries) = build("block");
        assert!(ticks <= (entries + identity) * 605 / 100 + 4960, "{granule}: {ticks} for {entries} leaves");
    }
}

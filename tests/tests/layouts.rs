//! Memory in any layout: many regions, many holes, the odd layouts of published boards.

use linmap_tests::{Boot, Dynamic, Outcome, PlacedBoot, RAM, Tree, number, own_image, soak_or_first};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PAGE: u64 = 0x1000;

/// Boots with this tree and runs `script`, which verifies all tables.
#[track_caller]
fn verified(options: &str, tree: &Tree, script: &str) -> Outcome {
    let file = tree.file();
    let outcome = Boot::new(options).with("--dtb", file.path()).with("--script", script).run();
    assert!(outcome.expect_success().console.contains("linmap: verify=ok"), "{}", outcome.console);
    outcome
}

/// Expects that Linux is reached from this tree.
#[track_caller]
fn reaches_linux(options: &str, tree: &Tree) {
    let file = tree.file();
    let outcome = Boot::new(options).with("--dtb", file.path()).with("--until", "first-line").run();
    outcome.expect_success();
    assert!(outcome.console.contains("Booting Linux on physical CPU"), "{}", outcome.console);
}

/// How much of the image the linear map does not have.
fn image_data() -> u64 {
    GIB - Boot::new("--memory 1G --payload none").run().linear_map("bytes")
}

/// A gigabyte, and `count` regions of a page above it.
fn many_regions(count: u64) -> Tree {
    let small = (0..count).rev().map(|nth| (RAM + 2 * GIB + nth * 3 * PAGE, PAGE));
    Tree { memory: small.chain([(RAM, GIB)]).collect(), ..Tree::default() }
}

#[test]
fn a_thousand_regions_are_mapped_changed_and_left_for_linux() {
    let tree = many_regions(1000);
    let script = "verify; map; mem; reserve 0x50000000 2M; protect ro 0x50001000 4K; verify; \
                  protect rw 0x50001000 4K; free 0x50000000 2M; \
                  memory remove 0xc0003000 4K; stress 20 7; verify; \
                  memory add 0xc0003000 4K; ng on; ng off; verify";
    let image_data = image_data();
    for cpu in ["max", "cortex-a72"] {
        let outcome = verified(&format!("--memory 4G --payload none --cpu {cpu}"), &tree, script);
        let phase = outcome.phase("memblock");
        assert_eq!((number(phase, "regions"), number(phase, "bytes")), (1001, GIB + 1000 * PAGE));
        assert_eq!(outcome.linear_map("bytes"), GIB + 1000 * PAGE - image_data);
    }
    reaches_linux("--memory 4G", &tree);
}

#[test]
fn a_thousand_regions_smaller_than_a_page_are_in_no_leaf() {
    let outcome = verified("--memory 4G --payload none --granule 64k", &many_regions(1000), "verify; mem");
    assert_eq!(number(outcome.phase("memblock"), "bytes"), GIB + 1000 * PAGE);
    assert!(outcome.linear_map("bytes") < GIB);
}

#[test]
fn as_many_regions_as_the_fixmap_reaches_are_mapped_and_more_are_refused() {
    let outcome = verified("--memory 4G --payload none", &many_regions(6000), "verify; map");
    assert_eq!(number(outcome.phase("memblock"), "regions"), 6001);
    let tree = many_regions(12_000).file();
    let outcome = Boot::new("--memory 4G --payload none").with("--dtb", tree.path()).run();
    outcome.expect_error("memory", &["no room for 0x", "in reach for a longer one"]);
}

#[test]
fn a_crash_kernel_is_refused_where_its_core_file_can_not_list_all_memory() {
    let tree = many_regions(300).file();
    let outcome = Boot::new("--memory 4G --payload self")
        .with("--dtb", tree.path())
        .with("--append", "linmap.crashkernel=64M")
        .with("--script", "!kexec load --crash; verify")
        .run();
    outcome.expect_success();
    let refused = outcome.with("refused").unwrap()["what"].as_str().unwrap().to_owned();
    assert!(refused.contains("all 256 ranges of the core file list are in use"), "{refused}");
}

#[test]
fn long_lists_stay_with_an_image_that_lies_beyond_the_linear_region() {
    // 39 bits have a linear region of 256 GiB. The image only fits the last region.
    let mut tree = many_regions(300);
    tree.memory.pop();
    tree.memory.extend([(RAM, MIB), (RAM + 280 * GIB, GIB)]);
    // Nothing is loaded there.
    tree.reserved = vec![(RAM + 2 * GIB, GIB)];
    let options = "--memory 282G --payload none --va-bits 39";
    let outcome = verified(options, &tree, "verify; mem");
    let left_out =
        outcome.records.iter().find(|record| record.get("warning").is_some_and(|of| of == "memory-left-out"));
    assert_eq!(number(left_out.expect("a warning"), "bytes"), MIB + 300 * PAGE);
    assert_eq!(number(outcome.phase("memblock"), "bytes"), GIB);
}

#[test]
fn three_hundred_holes_are_in_no_leaf() {
    let holes =
        (0..300).map(|nth| (RAM + 64 * MIB + nth * 2 * MIB + nth % 7 * 36 * KIB, PAGE + nth % 5 * PAGE));
    let tree = Tree { no_map: holes.clone().collect(), ..Tree::with_memory(GIB) };
    let outcome = verified("--memory 1G --payload none", &tree, "verify; map; mem");
    let hidden: u64 = holes.map(|(_, len)| len).sum();
    assert_eq!(outcome.linear_map("bytes"), GIB - hidden - image_data());
    reaches_linux("--memory 1G", &tree);
}

#[test]
fn memory_that_the_tree_lets_the_kernel_choose_has_a_place_of_its_own() {
    let node = |name, size, ranges: &[(u64, u64)], flag| Dynamic {
        name,
        size,
        alignment: 2 * MIB,
        ranges: ranges.to_vec(),
        flag,
    };
    let low = (RAM, 512 * MIB);
    let tree = Tree {
        dynamic: vec![
            node("cma", 64 * MIB, &[], "reusable"),
            node("secure", 36 * KIB, &[low], "no-map"),
            node("huge", 4 * GIB, &[low], "no-map"),
        ],
        ..Tree::with_memory(GIB)
    };
    for granule in soak_or_first(1, &["4k", "64k"]) {
        let options = format!("--memory 1G --payload none --granule {granule}");
        let outcome =
            verified(&options, &tree, "verify; mem; !reserve 0x7c000000 4M; !reserve 0x5fe00000 64K");
        let placed = outcome.records.iter().filter(|record| record.contains_key("reserved-memory"));
        let placed: Vec<_> =
            placed.map(|record| (number(record, "start"), number(record, "no_map"))).collect();
        assert_eq!(placed, [(RAM + GIB - 64 * MIB, 0), (RAM + 510 * MIB, 1)]);
        let warning =
            outcome.records.iter().find(|record| record.get("warning").is_some_and(|of| of == "memory"));
        let what = warning.expect("a warning")["what"].as_str().expect("text");
        assert!(what.contains("node huge: no 0x100000000 free bytes"), "{what}");
    }
}

#[test]
fn no_memory_for_the_list_of_regions_is_an_error_that_names_the_first_without_room() {
    // The image fills the one region of more than a page.
    let image = own_image();
    let len = u64::from_le_bytes(image[16..24].try_into().expect("eight bytes"));
    let small = (0..300).map(|nth| (RAM + 2 * GIB + nth * 3 * PAGE, PAGE));
    let tree = Tree {
        memory: small.chain([(RAM + 2 * MIB, len)]).collect(),
        initrd: Some((RAM + 2 * GIB, 0x100)),
        ..Tree::default()
    };
    let console = PlacedBoot { tree: &tree, initrd: &[] }.run();
    let error =
        "linmap: error=memory what=\"memory@40000000: no room for 0xc0300000..0xc0301000: all 256 ranges";
    assert!(console.contains(error), "{console}");
    assert!(console.contains("are free and in reach for a longer one"), "{console}");
}

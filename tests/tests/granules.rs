//! The kernel with pages of 16K and 64K: an image of its own for each granule.

use linmap_tests::{Boot, Outcome, RAM, Tree, is_soak, soak_or_first};

/// Granules, each with a CPU that has it.
const CPUS: [(&str, &str); 5] =
    [("16k", "max"), ("64k", "cortex-a72"), ("16k", "neoverse-n1"), ("64k", "neoverse-n1"), ("64k", "max")];
const GRANULES: [&str; 2] = ["16k", "64k"];
/// A CPU with BBM level 3 by the list of models.
const LEVEL_3: &str = "--cpu max,midr=0x410fd842";

fn script(options: &str, append: &str, script: &str) -> Outcome {
    Boot::new(options).with("--append", append).with("--script", script).run()
}

#[test]
fn the_map_is_right_and_can_be_changed_at_every_granule() {
    for (granule, cpu) in CPUS {
        let outcome = script(
            &format!("--granule {granule} --cpu {cpu} --cpus 4 --payload none"),
            "linmap.bbm=0",
            "verify; reserve 0x80000000 1G; protect ro 0x80000000 64K; protect invalid 0xa0010000 64K; \
             protect valid 0xa0010000 64K; fold 0xa0000000 512M; verify; dump",
        );
        outcome.expect_success();
        let verdicts = outcome.records.iter().filter_map(|record| record.get("verify"));
        assert!(verdicts.eq(["ok", "ok"]), "{granule} {cpu}");
        assert_eq!(outcome.phase("cpus")["online"], 4, "{granule} {cpu}");
        assert_eq!(outcome.with("dump").expect("a dump")["wx"], 0, "{granule} {cpu}");
        let parked = outcome.records.iter().filter(|record| record.get("parked") == Some(&1.into()));
        assert!(parked.count() >= 2, "level 0 splits and folds parked: {granule} {cpu}");
    }
}

#[test]
fn leaves_have_the_sizes_of_the_granule() {
    for (granule, lines) in
        [("16k", ["32M contiguous", "16K contiguous"]), ("64k", ["512M ", "64K contiguous"])]
    {
        let outcome = script(&format!("--granule {granule} --payload none"), "", "map");
        for line in lines {
            assert!(outcome.expect_success().console.contains(line), "{line}: {}", outcome.console);
        }
    }
}

#[test]
fn random_changes_at_every_granule_disturb_nobody_and_are_legal() {
    let calls = if is_soak() { 10_000 } else { 25 };
    for granule in GRANULES {
        for level in ["linmap.bbm=0", "linmap.bbm=3"] {
            let outcome = script(
                &format!("--granule {granule} --cpus 4 --memory 4G {LEVEL_3} --payload none --timeout 900"),
                &format!("{level} linmap.trace=1"),
                &format!("stress {calls} 0x1a7; verify"),
            );
            let workers = outcome.expect_success().with("workers").expect("a stress run");
            assert_eq!(workers["calls"], calls, "{granule} {level}");
            assert_eq!(workers["too_long"], 0, "{granule} {level}");
            outcome.expect_legal_trace();
        }
    }
}

#[test]
fn linux_is_entered_from_every_granule_whatever_its_own_is() {
    let runs = [("16k", "linux-16k"), ("64k", "linux"), ("16k", "linux"), ("64k", "linux-16k")];
    for (granule, payload) in soak_or_first(2, &runs) {
        let options = format!("--granule {granule} --cpus 4 --payload {payload}");
        Boot::new(&options).until_linux_starts().run().expect_linux();
    }
}

#[test]
fn linmap_hands_over_to_itself_and_to_a_crash_kernel_at_every_granule() {
    for granule in soak_or_first(1, &["64k", "16k"]) {
        let own = Boot::new(&format!("--granule {granule} --cpus 4 --payload self")).run();
        assert!(
            own.expect_success().records.iter().any(|record| record.get("generation") == Some(&1.into()))
        );
    }
    for granule in soak_or_first(1, &["16k", "64k"]) {
        let outcome = Boot::new(&format!("--granule {granule} --memory 2G --cpus 4"))
            .with("--append", "linmap.crashkernel=256M maxcpus=1")
            .with("--script", "kexec load --crash; verify; panic 2")
            .until_linux_starts()
            .run();
        assert_eq!(outcome.expect_linux().with("stopped").expect("the way there")["stopped"], 3);
    }
}

#[test]
fn frames_that_share_a_page_with_a_hole_are_not_used() {
    // Holes and edges at multiples of 4 KiB, inside pages of 16K and 64K.
    let tree = Tree {
        memory: vec![(RAM, 0x1000), (RAM + 0x1000_5000, 0x2_3000), (RAM + 0x20_0000, 0xfe0_3000)],
        no_map: vec![(RAM + 0x800_1000, 0x3000), (RAM + 0xa00_f000, 0x2000)],
        ..Tree::default()
    };
    for granule in GRANULES {
        let file = tree.file();
        let outcome = Boot::new(&format!("--granule {granule} --memory 1G --payload none"))
            .with("--dtb", file.path())
            .with("--script", "mem; verify")
            .run();
        assert_eq!(outcome.expect_success().with("verify").expect("a verdict")["verify"], "ok");
        let reserved = format!("{:#x}..{:#x}", RAM + 0x800_0000, RAM + 0x800_1000);
        assert!(outcome.console.contains(&reserved), "{granule}: {}", outcome.console);
    }
}

#[test]
fn a_cpu_without_the_granule_says_so_and_halts() {
    let outcome = Boot::new("--granule 16k --cpu cortex-a72 --payload none").run();
    outcome.expect_error("entry", &["the CPU does not have the 16K granule"]);
}

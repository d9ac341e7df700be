//! The steps of a kexec: loaded in place, scattered, over memory in use, with the MMU on and off,
//! by one CPU and by all.

use linmap_tests::{Boot, Outcome, archive, file, is_soak, own_image, pattern};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

fn run(options: &str, script: &str) -> Outcome {
    let outcome = Boot::new(options).with("--script", script).run();
    outcome.expect_success();
    outcome
}

#[track_caller]
fn number(outcome: &Outcome, record: &str, key: &str) -> u64 {
    let found = outcome.with(record).unwrap_or_else(|| panic!("{record}\n{}", outcome.console));
    found[key].as_u64().unwrap_or_else(|| panic!("{record}.{key}\n{}", outcome.console))
}

/// The records that have `key`, in order.
fn all<'o>(outcome: &'o Outcome, key: &str) -> Vec<&'o Map<String, Value>> {
    outcome.records.iter().filter(|record| record.contains_key(key)).collect()
}

/// Checks that all commands that were refused were so for this reason.
#[track_caller]
fn refused(outcome: &Outcome, count: usize, says: &str) {
    let whats: Vec<_> =
        all(outcome, "refused").iter().map(|record| record["what"].as_str().unwrap()).collect();
    assert_eq!(whats.len(), count, "{whats:?}");
    assert!(whats.iter().all(|what| what.contains(says)), "{whats:?} do not say {says:?}");
}

/// The SHA-256 of what `fill` writes, by another implementation.
fn sha256_of_fill(bytes: usize, seed: u64) -> String {
    Sha256::digest(pattern(bytes, seed)).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a script that enters Linux.
fn run_to_linux(options: &str, script: &str) -> Outcome {
    let outcome = Boot::new(options).with("--script", script).until_linux_starts().run();
    outcome.expect_linux();
    outcome
}

#[test]
fn what_lies_in_place_is_not_moved_and_the_jump_is_short() {
    let outcome = run("--memory 1G --payload self --icount", "kexec load; kexec plan; kexec exec");
    assert_eq!(number(&outcome, "kexec", "moved"), 0);
    assert_eq!(outcome.with("kexec").unwrap()["mmu"], "off");
    assert!(outcome.phase("kexec-jump")["ticks"].as_u64() < Some(5000), "{}", outcome.console);
}

#[test]
fn a_scattered_payload_is_moved_in_a_tenth_of_an_instruction_per_byte() {
    let outcome =
        run("--memory 1G --payload self --icount", "kexec load --scattered; kexec plan; kexec exec");
    let bytes = number(&outcome, "kexec", "moved") + number(&outcome, "kexec", "cleared");
    let ticks = outcome.phase("kexec-jump")["ticks"].as_u64().unwrap();
    // Linux: 12 774 626 instructions for 50.3 MB, 0.254 a byte; 45 % of that are 0.114.
    assert!(ticks * 1000 < bytes * 112, "{ticks} instructions for {bytes} bytes");
    assert!(outcome.phase("kexec-tables")["ticks"].as_u64() <= Some(5000), "{}", outcome.console);
}

/// Whether the times of both checks are there: of the one before the move and of the one after it.
fn tells_what_checks_cost(outcome: &Outcome) -> bool {
    let checks =
        outcome.records.iter().filter(|r| r.get("phase").is_some_and(|phase| phase == "kexec-verify"));
    let told: Vec<_> = checks.map(|check| (check["when"].as_str(), check["ticks"].as_u64())).collect();
    matches!(told[..], [(Some("before"), Some(1..)), (Some("after"), Some(1..))])
}

#[test]
fn a_payload_loaded_without_digests_is_not_verified_and_the_refusal_says_how() {
    let outcome = run(
        "--memory 1G --payload self",
        "kexec load; !kexec exec --verify; kexec unload; kexec load --scattered; !kexec exec --verify; \
         kexec unload; kexec load --scattered --verify; kexec exec --verify",
    );
    refused(&outcome, 2, "`kexec load --verify`");
    assert!(tells_what_checks_cost(&outcome), "{}", outcome.console);
}

#[test]
fn the_plan_shows_the_digest_of_each_file_wherever_it_is_staged() {
    const PAGE: usize = 4096;
    let kernel = own_image();
    // Pages of zeros, and pages that are zero up to their last byte or but for their first.
    let mut initrd = pattern(5 * PAGE, 3);
    initrd.resize(8 * PAGE - 1, 0);
    initrd.extend([1, 2]);
    // Whole pages: after an initrd that stays, the archive goes on.
    initrd.resize(13 * PAGE, 0);
    let files = [("image", kernel), ("initrd", initrd)].map(|(name, bytes)| {
        let on_disk = file(&bytes);
        let mut pages = bytes;
        pages.resize(pages.len().next_multiple_of(PAGE), 0);
        let digest: String = Sha256::digest(&pages).iter().map(|byte| format!("{byte:02x}")).collect();
        (name, on_disk, digest)
    });
    let plans = ["", "--scattered", "--mmu-off --scattered --verify"];
    let script: String =
        plans.iter().map(|how| format!("kexec load {how}; kexec plan; kexec unload;")).collect();
    let outcome = Boot::new("--memory 1G --cpus 3")
        .with("--kernel", files[0].1.path())
        .with("--initrd", files[1].1.path())
        .with("--script", script)
        .run();
    outcome.expect_success();
    let segments = all(&outcome, "segment");
    for (name, _, digest) in &files {
        let of: Vec<_> = segments.iter().filter(|segment| segment["segment"] == *name).collect();
        assert_eq!(of.len(), plans.len());
        assert!(of.iter().all(|segment| segment["sha256"] == *digest), "{digest}: {of:?}");
    }
    // Of the initrd 2 and 4 pages.
    let zeros = segments.iter().filter(|segment| segment["segment"] == "initrd");
    assert_eq!(
        zeros.map(|segment| segment["zero"].as_u64()).collect::<Vec<_>>(),
        [0, 6, 6].map(|n| Some(n << 12))
    );
}

#[test]
fn all_cpus_move_a_scattered_payload_and_it_is_checked_at_its_place() {
    for options in ["--memory 2G --cpus 4", "--memory 2G --cpus 4 --el 2 --cpu cortex-a72"] {
        let outcome =
            run_to_linux(options, "kexec load --scattered --verify; kexec plan; kexec exec --verify");
        assert_eq!(number(&outcome, "kexec", "lists"), 4);
        assert_eq!(number(&outcome, "state", "cpus"), 4);
        assert!(tells_what_checks_cost(&outcome), "{options}\n{}", outcome.console);
    }
}

#[test]
fn a_payload_is_moved_with_the_mmu_off_at_both_levels() {
    for options in [
        "--memory 2G --cpu max --el 1",
        "--memory 2G --cpu neoverse-n1 --el 2",
        "--memory 2G --cpu cortex-a72 --el 2",
    ] {
        let script = "kexec load --scattered --mmu-off --verify; kexec plan; kexec exec --verify";
        let outcome = run_to_linux(options, script);
        assert_eq!(outcome.with("kexec").unwrap()["mmu"], "off");
        assert!(number(&outcome, "kexec", "moved") > 40 << 20);
        assert!(tells_what_checks_cost(&outcome), "{options}\n{}", outcome.console);
    }
}

#[test]
fn a_machine_with_less_than_64_kib_free_still_kexecs() {
    let script = "hoard 60K; kexec load --verify; kexec plan; kexec exec --verify";
    let outcome = run_to_linux("--memory 2G", script);
    assert!(number(&outcome, "hoard", "free") < 64 << 10);
}

/// linmap's own Image as Amlogic's and U-Boot's are: far above its base, and with bytes in its file
/// that its header does not count.
#[test]
fn an_image_far_above_its_base_and_longer_than_its_header_says_is_entered() {
    const TEXT_OFFSET: u64 = 0x1fc0_0000;
    let mut image = own_image();
    let image_size = u64::from_le_bytes(image[16..24].try_into().unwrap());
    image[8..16].copy_from_slice(&TEXT_OFFSET.to_le_bytes());
    image.resize(image_size as usize + 5000, 0xd0);
    let (kernel, initrd) = (file(&image), file(&archive(&[("script", b"verify")])));
    let outcome = Boot::new("--memory 1G --packing gzip")
        .with("--kernel", kernel.path())
        .with("--initrd", initrd.path())
        .with("--script", "kexec load --verify; kexec plan; kexec exec --verify")
        .run();
    outcome.expect_success();
    let entry = number(&outcome, "state", "entry");
    assert!(entry > TEXT_OFFSET && (entry - TEXT_OFFSET).is_multiple_of(2 << 20), "{entry:#x}");
    let parts = all(&outcome, "segment");
    let part = parts.iter().find(|part| part["segment"] == "image").expect("the image");
    assert_eq!(part["bytes"], image.len(), "{part:?}");
    let entered: Vec<_> = all(&outcome, "generation").iter().map(|record| record["image"].clone()).collect();
    assert_eq!(entered.last().and_then(Value::as_u64), Some(entry), "{entered:?}");
    assert_eq!(entered.len(), 2, "{}", outcome.console);
}

#[test]
fn unloading_gives_all_memory_back() {
    let outcome = run(
        "--memory 2G",
        "mem; kexec load; kexec unload; kexec load --scattered; kexec unload; mem; !kexec exec; \
         !kexec unload",
    );
    let sections: Vec<_> = outcome.console.split("linmap> mem").skip(1).collect();
    let list = |section: &str| -> Vec<String> {
        let lines = section.lines().skip(1).take_while(|line| line.starts_with("  "));
        lines.map(str::to_owned).collect()
    };
    assert!(!list(sections[0]).is_empty());
    assert_eq!(list(sections[0]), list(sections[1]));
}

#[test]
fn preserved_memory_goes_through_ten_generations_untouched() {
    let mib = if is_soak() { 64 } else { 8 };
    let script = format!(
        "reserve 0x60000000 {mib}M; fill 0x60000000 {mib}M 7; preserve 0x60000000 {mib}M pattern; kexec"
    );
    let outcome = Boot::new("--memory 1G --payload self")
        .with("--append", "linmap.generations=10")
        .with("--script", script)
        .run();
    outcome.expect_success();
    let preserved: Vec<&Value> =
        outcome.records.iter().filter(|r| r.contains_key("preserved")).map(|r| &r["sha256"]).collect();
    assert_eq!(preserved.len(), 11, "once when it is preserved, and once a generation");
    let expected = sha256_of_fill(mib << 20, 7);
    assert!(preserved.iter().all(|digest| **digest == expected), "{preserved:?}, not {expected}");
}

#[test]
fn what_is_preserved_stays_as_the_tree_of_a_loaded_payload_says() {
    let outcome = run(
        "--memory 1G --payload self",
        "reserve 0x60000000 2M; reserve 0x60400000 2M; fill 0x60400000 2M 9; preserve 0x60000000 2M first; \
         kexec load; \
         !preserve 0x60400000 2M second; !release first; verify; kexec unload; \
         release first; preserve 0x60400000 2M second; kexec load --verify; kexec exec --verify",
    );
    refused(&outcome, 2, "`kexec unload` it first");
    let preserved = all(&outcome, "preserved");
    let labels: Vec<_> = preserved.iter().map(|record| record["preserved"].as_str().unwrap()).collect();
    assert_eq!(
        labels,
        ["first", "second", "second"],
        "as each is preserved, and what the next generation finds"
    );
    assert_eq!(preserved[2]["start"], 0x6040_0000);
    assert_eq!(preserved[2]["sha256"], sha256_of_fill(2 << 20, 9));
}

#[test]
fn what_is_preserved_may_change_while_a_crash_kernel_waits_which_is_told_nothing_of_it() {
    let outcome = Boot::new("--memory 1G --payload self")
        .with("--append", "linmap.crashkernel=128M")
        .with(
            "--script",
            "reserve 0x50000000 2M; preserve 0x50000000 2M first; kexec load --crash; release first; \
             preserve 0x50000000 2M second; panic",
        )
        .run();
    outcome.expect_success();
    assert!(outcome.console.contains("linmap: generation=1"), "{}", outcome.console);
    let preserved = all(&outcome, "preserved");
    let labels: Vec<_> = preserved.iter().map(|record| record["preserved"].as_str().unwrap()).collect();
    assert_eq!(labels, ["first", "second"], "as each is preserved");
}

#[test]
fn what_is_preserved_as_one_stays_so_as_a_whole_where_there_is_no_room_for_reservations() {
    // All but one of the 32 reservations that there may be.
    let full: String =
        (0..31).map(|page| format!("reserve {:#x} 4K; ", 0x6000_0000 + page * 0x2000)).collect();
    let outcome = run(
        "--memory 1G --payload self",
        &format!(
            "reserve 0x50000000 4K; reserve 0x50002000 4K; preserve 0x50000000 4K pair; preserve \
             0x50002000 4K pair; \
             {full}\
             !release pair; !free 0x50000000 4K; !free 0x50002000 4K; free 0x60000000 4K; release pair; \
             !release pair; free 0x50000000 4K; free 0x50002000 4K; verify"
        ),
    );
    let whats: Vec<_> =
        all(&outcome, "refused").iter().map(|record| record["what"].as_str().unwrap()).collect();
    assert_eq!(whats.len(), 4, "{whats:?}");
    assert!(whats[0].contains("32 reservations have no room"), "{whats:?}");
    assert!(whats[1..3].iter().all(|what| what.contains("not reserved by you")), "{whats:?}");
    assert!(whats[3].contains("nothing is preserved as \"pair\""), "{whats:?}");
}

#[test]
fn digests_by_the_cpus_instructions_and_by_words_are_those_of_another_implementation() {
    let ranges = [
        (0x6000_0000, 0x1000),
        (0x6000_3000, 0x2000),
        (0x6001_0000, 0x5000),
        (0x6020_0000, 0x10_0000),
        (0x6040_7000, 0x12_3000),
    ];
    let script: String = ranges
        .iter()
        .map(|(start, len)| {
            format!("reserve {start:#x} {len}; fill {start:#x} {len} {start}; digest {start:#x} {len}; ")
        })
        .collect();
    // One of them as preserved memory, and nothing that is neither.
    let script =
        format!("{script}preserve 0x60003000 0x2000 x; digest 0x60003000 0x2000; !digest 0x60008000 4K");
    for cpu in ["max", "cortex-a72"] {
        let outcome = run(&format!("--memory 1G --payload self --cpu {cpu}"), &script);
        refused(&outcome, 1, "not reserved by you");
        let digests = all(&outcome, "digest");
        assert_eq!(digests.len(), 2 * (ranges.len() + 1), "{}", outcome.console);
        for (pair, (start, len)) in digests.chunks(2).zip(ranges.iter().chain([&ranges[1]])) {
            assert_eq!([&pair[0]["by"], &pair[1]["by"]], ["instructions", "words"]);
            let expected = sha256_of_fill(*len, *start);
            assert!(
                pair.iter().all(|digest| digest["digest"] == expected),
                "{len:#x}: {pair:?}, not {expected}"
            );
        }
    }
}

//! A payload is loaded with less and less free memory: with transitional tables, then without, then
//! not at all.

use std::fmt::Write;

use linmap_tests::{Boot, Outcome};

const OPTIONS: &str = "--memory 512M --payload linux";
/// What is left free, in KiB: less each time, and each step is a frame.
const SIZES: [u64; 24] =
    [96, 92, 88, 84, 80, 76, 72, 68, 64, 60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4];

/// How a load ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loaded {
    MmuOn,
    MmuOff,
    Refused,
}

/// The memory lists of each `mem` in `console`.
fn memory_lists(console: &str) -> Vec<Vec<&str>> {
    let lines = |section| str::lines(section).skip(1).take_while(|line| line.starts_with("  ")).collect();
    console.split("linmap> mem").skip(1).map(lines).collect()
}

fn how_it_ended(section: &str) -> Loaded {
    let (_, load) = section.split_once("linmap> kexec load").expect("a load");
    let (load, plan) = load.split_once("linmap> kexec plan").expect("a plan");
    if plan.contains("linmap: kexec=plan ") {
        assert!(load.contains("linmap: phase=kexec-load "), "{section}");
        let off = plan.contains(" mmu=off ");
        assert!(off != plan.contains(" mmu=on "), "{section}");
        assert_eq!(off, load.contains("no memory for transitional tables"), "{section}");
        return if off { Loaded::MmuOff } else { Loaded::MmuOn };
    }
    assert!(plan.contains("no payload is loaded"), "{section}");
    let says = ["no memory for a frame of the move list", "the largest free range there has"];
    assert!(says.iter().any(|says| load.contains(says)), "{section}");
    Loaded::Refused
}

#[track_caller]
fn reaches_linux(options: &str, free: u64) -> Outcome {
    let script = format!("hoard {free}K; kexec load --verify; kexec plan; kexec exec --verify");
    let outcome = Boot::new(options).with("--script", script).until_linux_starts().run();
    outcome.expect_linux();
    outcome
}

#[test]
fn tables_that_fail_at_any_step_leave_a_move_with_the_mmu_off_and_less_memory_an_error() {
    let mut lines = String::new();
    for size in SIZES {
        // Writing to a string can't fail.
        let _ = write!(lines, "hoard {size}K\nmem\nkexec load\nkexec plan\nkexec unload\nmem\n");
    }
    lines.push_str("verify\n");
    let outcome = Boot::typed(OPTIONS, &lines).run();
    outcome.expect_success();
    assert!(outcome.console.contains("linmap: verify=ok"), "{}", outcome.console);

    let sections: Vec<&str> = outcome.console.split("linmap> hoard ").skip(1).collect();
    assert_eq!(sections.len(), SIZES.len());
    let mut ended = Vec::new();
    for (section, size) in sections.iter().zip(SIZES) {
        assert!(section.contains(&format!("linmap: hoard=ok free={}", size << 10)), "{section}");
        let lists = memory_lists(section);
        assert!(lists.len() == 2 && lists[0].len() > 1 && lists[0] == lists[1], "{size}K: {lists:?}");
        ended.push(how_it_ended(section));
    }
    // All three, in this order, and nothing comes back with less memory.
    let on = ended.iter().filter(|&&how| how == Loaded::MmuOn).count();
    let off = ended.iter().filter(|&&how| how == Loaded::MmuOff).count();
    assert!(ended[..on].iter().all(|&how| how == Loaded::MmuOn), "{ended:?}");
    assert!(ended[on..on + off].iter().all(|&how| how == Loaded::MmuOff), "{ended:?}");
    assert!(SIZES[on - 1] < 64 && on + off < SIZES.len(), "{ended:?}");
    // There are five tables at least, and each of them was the one that failed.
    assert!(off >= 5, "{ended:?}");

    let last_with = reaches_linux(OPTIONS, SIZES[on - 1]);
    assert_eq!(last_with.with("state").unwrap()["mmu"], "on");
    let first_without = reaches_linux(OPTIONS, SIZES[on]);
    assert_eq!(first_without.with("state").unwrap()["mmu"], "off");
    let least = reaches_linux(OPTIONS, SIZES[on + off - 1]);
    assert_eq!(least.with("state").unwrap()["mmu"], "off");
}

#[test]
fn one_cpu_works_off_the_lists_of_all_when_there_are_no_tables() {
    let options = "--memory 512M --cpus 4 --el 2 --cpu cortex-a72 --payload linux";
    let outcome = reaches_linux(options, 56);
    let plan = outcome.with("kexec").unwrap();
    assert_eq!((&plan["mmu"], &plan["lists"]), (&"off".into(), &4.into()), "{}", outcome.console);
    assert_eq!(outcome.with("state").unwrap()["cpus"], 1);
}

//! The programs in `examples/`, each booted as a reader would.

use std::fs;
use std::path::Path;

use linmap_tests::{example, is_soak, soak_or_first};

#[test]
fn a_first_map_works_at_every_exception_level_and_its_text_can_not_be_written() {
    for (cpu, level, regime) in [
        ("max", 1, "EL1&0"),
        ("max", 2, "EL2"),
        ("max", 3, "EL3"),
        ("neoverse-n1", 2, "EL2"),
        ("cortex-a72", 1, "EL1&0"),
        ("cortex-a72", 3, "EL3"),
    ] {
        let (code, console) = example("first-map", &format!("--cpu {cpu} --el {level}"));
        assert_eq!(code, Some(0), "{cpu}, EL{level}: {console}");
        assert!(console.contains(&format!("the MMU is on in the regime {regime}\n")), "{console}");
        assert!(console.contains("a store to text faults\n"), "{console}");
    }
}

#[test]
fn the_first_map_of_another_crate_works_too_and_takes_more_lines() {
    for level in 1..=3 {
        let (code, console) = example("first-map-peer", &format!("--cpu max --el {level}"));
        assert_eq!(code, Some(0), "EL{level}: {console}");
        assert!(console.contains("a store to text faults\n"), "{console}");
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Without what only shows that it works: the handler of the exception.
    let lines = |name: &str| {
        let program = fs::read_to_string(workspace.join(format!("examples/{name}/src/main.rs")));
        let program = program.expect("a file of the workspace");
        let (until_it_is_on, _) = program.split_once("/// Entered from the vectors").expect("the handler");
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        until_it_is_on.lines().filter(is_code).count()
    };
    let (ours, peer) = (lines("first-map"), lines("first-map-peer"));
    assert!(ours <= 35, "{ours} lines");
    let guide = fs::read_to_string(workspace.join("docs/guide/first-maps.md")).expect("the comparison");
    let row = format!("| lines of code until the MMU is on | {ours} | {peer} |");
    assert!(guide.contains(&row), "the comparison should say: {row}");
}

#[test]
fn processes_reach_their_own_memory_and_no_other_over_forks_reuse_of_frames_and_rollovers() {
    for cpu in ["max", "neoverse-n1", "cortex-a72"] {
        let rounds = if is_soak() { 10 } else { 1 };
        let (code, console) = example("user-space", &format!("--cpu {cpu} --rounds {rounds}"));
        assert_eq!(code, Some(0), "{cpu}: {console}");
        for line in [
            "a process can't write its code, execute its data, or reach the kernel\n",
            "after a fork 8 pages were copied when they were written\n",
            "50 frames went from one process to another while others read\n",
            "12 processes shared 7 ASIDs: more than 10 rollovers\n",
        ] {
            assert_eq!(console.matches(line).count(), rounds, "{cpu}: {console}");
        }
    }
}

#[test]
fn an_edit_of_a_page_of_a_process_takes_few_instructions() {
    // A tick is an instruction, so the counts are the same in each run.
    let (code, console) = example("user-space", "--icount --rounds 0");
    assert_eq!(code, Some(0), "{console}");
    // Unmapping may take 2 % more than the 995 that were published first.
    for (edit, most) in [("protect", 1_000), ("remap", 1_000), ("unmap", 1_015)] {
        let word = console.split_whitespace().find_map(|word| word.strip_prefix(&format!("{edit}=")));
        let count: u64 = word.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{console}"));
        assert!((100..=most).contains(&count), "{edit}: {count} instructions, at most {most} are allowed");
    }
}

#[test]
fn a_kernel_that_is_not_ours_changes_its_map_while_its_cpus_use_it() {
    // Level 3 by the list of CPUs, and two CPUs of level 0.
    for (cpu, bbm) in [("max,midr=0x410fd842", 3), ("neoverse-n1", 0), ("cortex-a72", 0)] {
        let rounds = if is_soak() { 20 } else { 1 };
        let (code, console) = example("second-kernel", &format!("--cpu {cpu} --rounds {rounds}"));
        assert_eq!(code, Some(0), "{cpu}: {console}");
        let line = console.lines().find_map(|line| line.strip_prefix("second-kernel: "));
        let line = line.unwrap_or_else(|| panic!("{cpu}: {console}"));
        let value = |key: &str| -> u64 {
            let found = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key}: {line}"))
        };
        assert_eq!((value("cpus"), value("bbm")), (4, bbm), "{cpu}: {line}");
        // At level 0 each round parks to split and parks to fold; at level 3 none does.
        let parked = if bbm == 3 { 0 } else { 2 * value("rounds") };
        assert_eq!(value("parked"), parked, "{cpu}: {line}");
        assert!(value("checked") > 0, "{cpu}: {line}");
    }
}

/// The sums that the jobs of a guest of `examples/hypervisor` print.
fn sums(console: &str) -> Vec<&str> {
    let sums: Vec<_> = console.lines().filter(|line| line.starts_with("linmap-userspace: sum-")).collect();
    assert_eq!(sums.len(), 2, "{console}");
    sums
}

/// The number that `examples/hypervisor` prints for `key` at its end.
fn counted(console: &str, key: &str) -> u64 {
    let line = console.lines().find(|line| line.starts_with("hypervisor: rounds="));
    let mut words = line.unwrap_or_else(|| panic!("no end: {console}")).split(' ');
    let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key}: {console}"))
}

/// The example itself checks each round: every page that changed is dirty, and none of 256 MiB that
/// the guest leaves alone.
#[test]
fn linux_whose_dirty_pages_are_logged_computes_what_it_does_alone() {
    let rounds = if is_soak() { 40 } else { 2 };
    let (code, alone) = example("hypervisor", &format!("--guest-alone --rounds {rounds}"));
    assert_eq!(code, Some(0), "{alone}");
    let mut retried = 0;
    // BBM levels 2, 0, 0, and 3 by the list of CPUs.
    for cpu in soak_or_first(3, &["max", "neoverse-n1", "cortex-a72", "max,midr=0x410fd842"]) {
        let (code, console) = example("hypervisor", &format!("--cpu {cpu} --rounds {rounds}"));
        assert_eq!(code, Some(0), "{cpu}: {console}");
        for line in ["linmap-userspace: cpus=2", "linmap-userspace: initrd=ok", "linmap-userspace: ok"] {
            assert!(console.lines().any(|found| found == line), "{cpu}: {line}: {console}");
        }
        assert!(console.contains("CPU: All CPU(s) started at EL1"), "{cpu}: {console}");
        assert_eq!(sums(&console), sums(&alone), "{cpu}");
        assert!(counted(&console, "rounds") > 1, "{cpu}: {console}");
        assert!(counted(&console, "changed") > 0, "{cpu}: {console}");
        // Each dirty page was logged at a fault, or marked by hardware (FEAT_HAFDBS); those of the
        // rest between rounds are forgotten.
        let [logged, marked] = ["logged", "marked"].map(|key| counted(&console, key));
        let no_faults = !cpu.contains("a72");
        assert!(if no_faults { logged == 0 } else { marked == 0 }, "{cpu}: {console}");
        assert!(logged + marked >= counted(&console, "dirty"), "{cpu}: {console}");
        let met = counted(&console, "retried");
        assert!(met == 0 || !cpu.contains("midr"), "level 3 needs no break: {console}");
        retried += met;
    }
    // A break lasts for a few instructions. A guest CPU meets one by chance, ten times in a run or
    // never.
    for _ in 0..3 {
        if retried == 0 {
            let (code, console) = example("hypervisor", "--cpu neoverse-n1 --rounds 4");
            assert_eq!(code, Some(0), "{console}");
            retried += counted(&console, "retried");
        }
    }
    assert!(retried > 0, "no guest CPU met a break");
}

#[test]
fn a_guest_that_reaches_outside_its_memory_is_reported_and_stopped() {
    let (code, console) = example("hypervisor", "--cpu max --append linmap_reach=0x6f001238");
    assert_eq!(code, Some(1), "{console}");
    assert!(console.contains("reaches outside its memory: address 0x6f001238,"), "{console}");
    assert!(!console.contains("linmap-userspace: ok"), "{console}");
}

//! The kernel at every VA size and descriptor format of its granule, and memory beyond what the VA
//! size reaches.

use linmap_tests::{Boot, Outcome, RAM, RawBoot, Tree, archive, is_soak, number, soak_or_first};

const GIB: u64 = 1 << 30;

/// A boot at one VA size: granule, VA size asked for, CPU; then the VA size and whether LPA2 is
/// used.
type Size = (&'static str, u8, &'static str, u64, u64);

const TAKEN: [Size; 9] = [
    ("4k", 52, "max", 52, 1),
    ("16k", 36, "max", 36, 0),
    ("64k", 42, "cortex-a72", 42, 0),
    ("4k", 39, "neoverse-n1", 39, 0),
    ("16k", 52, "max", 52, 1),
    // With 64K, 52 bits do not need LPA2.
    ("64k", 52, "max,lpa2=off", 52, 0),
    ("64k", 52, "max", 52, 0),
    ("16k", 48, "max", 48, 0),
    ("16k", 47, "neoverse-n1", 47, 0),
];

const TOO_MUCH: [Size; 6] = [
    ("4k", 52, "max,lpa2=off", 48, 0),
    ("16k", 52, "neoverse-n1", 48, 0),
    ("64k", 52, "cortex-a72", 48, 0),
    ("16k", 52, "max,lpa2=off", 48, 0),
    ("4k", 52, "neoverse-n1", 48, 0),
    ("64k", 52, "neoverse-n1", 48, 0),
];

/// Boots with the options, and checks which VA size and format the kernel uses.
fn boot((granule, va_bits, cpu, taken, lpa2): Size, options: &str, append: &str, script: &str) -> Outcome {
    let what = format!("{granule} {va_bits} {cpu}");
    let outcome = Boot::new(&format!("--granule {granule} --va-bits {va_bits} --cpu {cpu} {options}"))
        .with("--append", append)
        .with("--script", script)
        .run();
    let entry = outcome.expect_success().with("va_bits").expect("an entry");
    let warned = outcome.records.iter().any(|record| record.get("warning") == Some(&"va-bits".into()));
    assert_eq!(warned, taken < va_bits.into(), "{what}: {}", outcome.console);
    if !warned {
        assert_eq!((number(entry, "va_bits"), number(entry, "lpa2")), (taken, lpa2), "{what}");
    }
    let entry = outcome.with("generation").expect("an entry");
    assert_eq!((number(entry, "va_bits"), number(entry, "lpa2")), (taken, lpa2), "{what}");
    outcome
}

fn expect_verified(outcome: &Outcome, times: usize) {
    let verdicts = outcome.records.iter().filter_map(|record| record.get("verify"));
    assert!(verdicts.eq(vec!["ok"; times]), "{}", outcome.console);
}

#[test]
fn the_map_is_right_and_can_be_changed_at_every_va_size() {
    for &size in soak_or_first(6, &TAKEN) {
        let outcome = boot(
            size,
            "--cpus 4 --payload none",
            "linmap.bbm=0",
            "verify; reserve 0x80000000 1G; protect ro 0x80000000 64K; fold 0x80000000 512M; verify; dump",
        );
        expect_verified(&outcome, 2);
        assert_eq!(outcome.phase("cpus")["online"], 4, "{size:?}");
        assert_eq!(outcome.with("dump").expect("a dump")["wx"], 0, "{size:?}");
    }
}

#[test]
fn a_cpu_without_52_bits_gets_48_and_the_boot_says_so() {
    for &size in soak_or_first(3, &TOO_MUCH) {
        expect_verified(&boot(size, "--cpus 2 --payload none", "", "verify"), 1);
    }
}

#[test]
fn linux_and_linmap_itself_are_entered_from_every_va_size() {
    let linux = [
        ("16k", 52, "max", "linux-16k"),
        ("4k", 39, "max", "linux"),
        ("4k", 52, "max", "linux-16k"),
        ("64k", 52, "max", "linux"),
        ("16k", 36, "max", "linux-16k"),
        ("64k", 42, "max", "linux"),
    ];
    for (granule, bits, cpu, payload) in soak_or_first(2, &linux) {
        let options =
            format!("--granule {granule} --va-bits {bits} --cpu {cpu} --cpus 4 --payload {payload}");
        Boot::new(&options).until_linux_starts().run().expect_linux();
    }
    // The next generation has the same words, so it makes the same choice.
    for (granule, bits) in
        soak_or_first(1, &[("4k", 52u64), ("16k", 36), ("64k", 52), ("64k", 42), ("4k", 39)])
    {
        let options = format!("--granule {granule} --va-bits {bits} --cpus 4 --payload self");
        let outcome = Boot::new(&options)
            .with("--script", "kexec load --scattered --verify; kexec exec --verify")
            .run();
        outcome.expect_success();
        let mut entries = outcome.records.iter().filter(|record| record.contains_key("va_bits"));
        let next = entries.next_back().expect("an entry");
        assert_eq!((number(next, "generation"), number(next, "va_bits")), (1, *bits), "{granule}");
    }
}

#[test]
fn a_crash_kernel_is_entered_from_every_va_size() {
    for (granule, bits) in
        soak_or_first(1, &[("4k", 52), ("16k", 36), ("64k", 42), ("16k", 52), ("4k", 39), ("64k", 52)])
    {
        let outcome = Boot::new(&format!("--granule {granule} --va-bits {bits} --memory 2G --cpus 4"))
            .with("--append", "linmap.crashkernel=256M maxcpus=1")
            .with("--script", "kexec load --crash; verify; panic 2")
            .until_linux_starts()
            .run();
        assert_eq!(outcome.expect_linux().with("stopped").expect("the way there")["stopped"], 3);
    }
}

#[test]
fn random_changes_with_lpa2_and_with_a_root_at_level_2_are_legal() {
    let calls = if is_soak() { 10_000 } else { 25 };
    for (granule, bits) in soak_or_first(1, &[("4k", 52), ("16k", 36), ("16k", 52), ("64k", 42), ("64k", 52)])
    {
        for level in ["linmap.bbm=0", "linmap.bbm=3"] {
            let outcome = Boot::new(&format!(
                "--granule {granule} --va-bits {bits} --cpus 4 --cpu max,midr=0x410fd842 --payload none \
                 --timeout 900"
            ))
            .with("--append", format!("{level} linmap.trace=1"))
            .with("--script", format!("stress {calls} 0x1a7; verify"))
            .run();
            let workers = outcome.expect_success().with("workers").expect("a stress run");
            assert_eq!(
                (number(workers, "calls"), number(workers, "too_long")),
                (calls, 0),
                "{granule} {bits} {level}"
            );
            outcome.expect_legal_trace();
        }
    }
}

#[test]
fn memory_beyond_the_linear_region_is_left_out_and_the_rest_is_used() {
    // Half of 39 bits is 256 GiB, half of 36 bits 32.
    for (granule, bits, memory, region) in [("4k", 39, 1024, 256), ("16k", 36, 128, 32)] {
        let options = format!("--granule {granule} --va-bits {bits} --memory {memory}G --payload none");
        let outcome = Boot::new(&options).with("--script", "verify").run();
        expect_verified(&outcome, 1);
        let warning = outcome.with("warning").expect("a warning");
        assert_eq!(number(warning, "bytes"), (memory - region) * GIB, "{warning:?}");
        assert_eq!(number(outcome.phase("memblock"), "bytes"), region * GIB);
    }
}

#[test]
fn the_1_to_1_map_reaches_memory_that_the_va_size_does_not() {
    // All memory lies above the kernel's own VA size: the map needs one level more.
    for (granule, bits, at, machine) in [("4k", 39, 1022 * GIB, "1T"), ("16k", 36, 126 * GIB, "128G")] {
        let tree = Tree { memory: vec![(RAM + at, GIB)], ..Tree::default() };
        let file = tree.file();
        let options = format!("--granule {granule} --va-bits {bits} --memory {machine}");
        let outcome = Boot::new(&format!("{options} --payload self"))
            .with("--dtb", file.path())
            .with("--script", "verify; kexec load --scattered; kexec exec")
            .run();
        outcome.expect_success();
        assert_eq!(number(outcome.phase("memblock"), "bytes"), GIB, "{granule}");
        expect_verified(&outcome, 1);
    }
}

#[test]
fn memory_above_48_bits_gets_lpa2_by_itself() {
    // The machine has none there, so it is reserved: it is mapped and never accessed.
    let far = (1u64 << 49, GIB);
    for (granule, lpa2) in [("4k", 1), ("16k", 1), ("64k", 0)] {
        let tree = Tree { memory: vec![(RAM, GIB), far], reserved: vec![far], ..Tree::default() };
        let file = tree.file();
        let outcome = Boot::new(&format!("--granule {granule} --memory 1G --payload none"))
            .with("--dtb", file.path())
            .with("--script", "map")
            .run();
        outcome.expect_success();
        let mut entries = outcome.records.iter().filter(|record| record.contains_key("generation"));
        let entry = entries.next_back().expect("an entry");
        let found = ["va_bits", "lpa2", "pa_bits"].map(|key| number(entry, key));
        assert_eq!(found, [52, lpa2, 52], "{granule}: {}", outcome.console);
        assert_eq!(number(outcome.phase("memblock"), "bytes"), 2 * GIB, "{granule}");
        assert!(outcome.console.contains("0x2000000000000"), "{granule}: {}", outcome.console);
    }
    // A CPU without LPA2 goes on without this memory.
    let tree = Tree { memory: vec![(RAM, GIB), far], reserved: vec![far], ..Tree::default() };
    let file = tree.file();
    let outcome = Boot::new("--memory 1G --payload none --cpu max,lpa2=off")
        .with("--dtb", file.path())
        .with("--script", "verify")
        .run();
    expect_verified(&outcome, 1);
    assert_eq!(number(outcome.phase("memblock"), "bytes"), GIB);
}

#[test]
fn a_word_that_is_no_va_size_of_the_granule_is_an_error() {
    let outcome = Boot::new("--memory 1G --payload none --va-bits 47").run();
    assert_eq!(outcome.code, Some(2), "{}", outcome.errors);
    assert!(outcome.errors.contains("39, 48, 52"), "{}", outcome.errors);
    for value in ["47", "", "0x30"] {
        let line = format!("linmap.payload=none linmap.va_bits={value}");
        let console = RawBoot { initrd: &archive(&[]), command_line: &line }.run();
        assert!(console.contains("error=va-bits"), "{value}: {console}");
    }
}

#[test]
fn sixty_four_tib_are_mapped_in_blocks() {
    // QEMU takes 6.4 GB for its own record of so much memory.
    if !is_soak() {
        return;
    }
    for (options, most) in [
        ("--granule 4k --cpu max", 1 << 20),
        ("--granule 4k --cpu neoverse-n1", 1 << 20),
        ("--granule 4k --va-bits 52 --cpu max", 1 << 20),
        ("--granule 64k --cpu max", 4 << 20),
        ("--granule 16k --cpu neoverse-n1", 17 << 20),
    ] {
        let outcome = Boot::new(&format!("{options} --memory 64T --payload none --timeout 900"))
            .with("--script", "verify")
            .run();
        expect_verified(&outcome, 1);
        assert_eq!(number(outcome.phase("memblock"), "bytes"), 64 << 40, "{options}");
        let granule = number(outcome.with("granule").expect("an entry"), "granule");
        assert!(
            outcome.linear_map("tables") * granule <= most,
            "{options}: {:?}",
            outcome.phase("linear-map")
        );
    }
}

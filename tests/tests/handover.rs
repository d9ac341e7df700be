//! kexec with the MMU on, into real Linux kernels and into linmap itself.

use linmap_tests::{Boot, Outcome, is_soak, soak_or_first};

/// What Linux gets as its command line before the words of `--append`.
const OWN_WORDS: &str = "earlycon panic=-1 linmap_poweroff";

/// Boots into Linux and checks that it finds everything as it was given: the level, the CPUs, its
/// command line, and an initrd without a changed byte.
#[track_caller]
fn reaches_user_space(options: &str, el: u64, cpus: u64) -> Outcome {
    let outcome = Boot::new(options).with("--append", "hello=\"big world\" linmap.leaf=auto last").run();
    outcome.expect_success();
    assert!(outcome.console.contains("linmap-userspace: ok"), "{options}");
    assert_eq!(outcome.with("generation").expect("our first line")["el"], el, "{options}");
    let level = format!("CPU: All CPU(s) started at EL{el}");
    assert!(outcome.console.contains(&level), "{options}: Linux is entered at our own level");
    for complaint in ["[Firmware Bug]", "Kernel panic", "tainted", "failed to come online"] {
        assert!(!outcome.console.contains(complaint), "{options}: {complaint}\n{}", outcome.console);
    }
    let command_line = format!("{OWN_WORDS} hello=\"big world\" last");
    assert_eq!(outcome.user_space("cmdline"), command_line, "{options}");
    assert_eq!(outcome.user_space("cpus"), cpus.to_string(), "{options}");
    assert_eq!(outcome.user_space("initrd"), "ok", "{options}");
    outcome
}

// Every kernel reaches its user space, and so does every packing. Any two of kernel, packing, CPU,
// level, number of CPUs and size of memory that differ meet in a long run.

#[test]
fn linux_6_1_finds_its_machine_and_its_files_as_given() {
    let memory = if is_soak() { "64G" } else { "16G" };
    let options = "--payload linux-6.1 --packing zstd --cpus 4 --cpu neoverse-n1 --el 2";
    reaches_user_space(&format!("{options} --memory {memory}"), 2, 4);
}

#[test]
fn linux_6_12_finds_its_machine_and_its_files_as_given() {
    reaches_user_space("--packing gzip --memory 2G --cpu cortex-a72", 1, 1);
    if is_soak() {
        reaches_user_space("--memory 64G --cpus 4", 1, 4);
        reaches_user_space("--packing zstd --memory 2G --el 2", 2, 1);
    }
}

#[test]
fn linux_6_18_finds_its_machine_and_its_files_as_given() {
    reaches_user_space("--payload linux-6.18 --packing zboot-gzip --memory 2G --cpus 4 --el 2", 2, 4);
    if is_soak() {
        reaches_user_space("--payload linux-6.18 --memory 64G", 1, 1);
        reaches_user_space("--packing zboot-gzip --memory 2G --el 2 --cpu neoverse-n1", 2, 1);
    }
}

#[test]
fn the_newest_linux_finds_its_machine_and_its_files_as_given() {
    reaches_user_space("--payload linux-newest --packing zboot-zstd --memory 2G --cpu neoverse-n1", 1, 1);
    if is_soak() {
        reaches_user_space("--payload linux-newest --memory 2G --cpus 4", 1, 4);
        reaches_user_space("--payload linux-newest --memory 64G --cpu neoverse-n1 --el 2", 2, 1);
        reaches_user_space("--packing zboot-zstd --memory 2G --cpus 4", 1, 4);
    }
}

#[test]
fn linux_with_pages_of_16k_finds_its_machine_and_its_files_as_given() {
    reaches_user_space("--payload linux-16k --memory 2G --cpu max", 1, 1);
    if is_soak() {
        reaches_user_space("--payload linux-16k --memory 64G --cpus 4 --cpu max --el 2", 2, 4);
    }
}

#[test]
fn linux_reaches_user_space_where_ram_begins_at_0() {
    reaches_user_space("--machine xlnx-versal-virt --memory 8G", 2, 2);
}

#[test]
fn linux_is_entered_on_every_cpu_at_both_levels() {
    for payload in ["linux-6.12", "linux-6.1"] {
        for cpu in ["max", "neoverse-n1", "cortex-a72"] {
            for el in [1, 2] {
                let options = format!("--payload {payload} --memory 2G --cpu {cpu} --el {el}");
                if is_soak() {
                    reaches_user_space(&options, el, 1);
                } else {
                    Boot::new(&options).until_linux_starts().run().expect_linux();
                }
            }
        }
    }
}

/// A hypervisor without VHE writes EL2's registers as they are without it, and never clears E2H.
#[test]
fn xen_reaches_its_own_console_on_cpus_with_and_without_vhe() {
    for options in ["--cpu cortex-a72", "--cpu neoverse-n1", "--cpu max --gic 3 --cpus 4"] {
        let outcome = Boot::new(&format!("--payload xen --memory 1G --el 2 {options}")).run();
        outcome.expect_success();
        assert!(outcome.console.contains("(XEN) Xen version"), "{options}\n{}", outcome.console);
    }
    // Moved by all CPUs, and as a crash kernel.
    let moved = "kexec load --scattered; kexec exec";
    let crash = "kexec load --crash; panic";
    for script in soak_or_first(1, &[moved, crash]) {
        let outcome = Boot::new("--payload xen --memory 1G --el 2 --cpu neoverse-n1 --cpus 4")
            .with("--append", "linmap.crashkernel=128M")
            .with("--script", script)
            .run();
        outcome.expect_success();
        assert!(outcome.console.contains("(XEN) Xen version"), "{script}\n{}", outcome.console);
    }
}

#[test]
fn a_script_hands_over_what_lies_in_place_with_the_words_that_are_not_ours() {
    let outcome = Boot::new("--memory 2G")
        .with("--append", "linmap.leaf=block hello=world")
        .with("--script", "verify; kexec")
        .run();
    outcome.expect_success();
    assert_eq!(outcome.with("verify").expect("a verdict")["verify"], "ok");
    assert_eq!(outcome.phase("linear-map")["leaf"], "block");
    assert_eq!(outcome.user_space("cmdline"), format!("{OWN_WORDS} hello=world"));
    let load = outcome.phase("kexec-load");
    // The initrd, too, which lies on a page in the archive.
    assert!(load["in_place"].as_u64() > Some(45_000_000), "{load:?}");
    for nothing in ["bytes", "extents", "list_frames", "tables"] {
        assert_eq!(load[nothing], 0, "{nothing}: {load:?}");
    }
}

#[test]
fn a_payload_lies_page_by_page_before_it_is_moved_if_asked_for() {
    let outcome = Boot::new("--memory 2G").with("--script", "kexec load --scattered; kexec exec").run();
    let load = outcome.expect_success().phase("kexec-load");
    assert_eq!(outcome.user_space("initrd"), "ok");
    let (bytes, extents) = (load["bytes"].as_u64(), load["extents"].as_u64());
    assert!(extents > Some(10_000), "{load:?}");
    assert!(bytes > extents.map(|extents| extents * 4000), "{load:?}");
    // 2 GiB by 1 GiB blocks: root and one table, and one a level for the page of code.
    assert!(load["tables"].as_u64() <= Some(6), "{load:?}");
}

#[test]
fn linmap_boots_itself_twice_in_a_row_at_both_levels() {
    for cpu in ["max", "neoverse-n1", "cortex-a72"] {
        for el in [1, 2] {
            let outcome = Boot::new(&format!("--memory 1G --cpu {cpu} --el {el} --payload self"))
                .with("--append", "linmap.generations=2")
                .run();
            outcome.expect_success();
            let generations: Vec<_> =
                outcome.records.iter().filter(|record| record.contains_key("midr")).collect();
            assert_eq!(generations.len(), 3);
            for (number, record) in generations.iter().enumerate() {
                assert_eq!(record["generation"], number);
                assert_eq!(record["el"], el, "the level does not change on the way");
            }
        }
    }
}

//! kexec with the MMU on, into real Linux kernels and into linmap itself.

use std::path::PathBuf;

use linmap_tests::Boot;

/// Debian's kernel of this line, as `cargo xtask setup` left it.
fn debian(line: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join(format!("payload/linux-{line}/Image"))
}

#[track_caller]
fn reaches_user_space(options: &str, line: &str, el: u64) {
    let outcome = Boot::new(options).with("--kernel", debian(line)).run();
    outcome.expect_success();
    assert!(outcome.console.contains("linmap-userspace: ok"), "{options}");
    assert_eq!(outcome.with("generation").expect("our first line")["el"], el, "{options}");
    let level = format!("CPU: All CPU(s) started at EL{el}");
    assert!(outcome.console.contains(&level), "{options}: Linux is entered at our own level");
    for complaint in ["[Firmware Bug]", "Kernel panic", "tainted"] {
        assert!(!outcome.console.contains(complaint), "{options}: {complaint}\n{}", outcome.console);
    }
}

#[test]
fn linux_6_12_reaches_user_space_on_every_cpu_at_both_levels() {
    for cpu in ["max", "neoverse-n1", "cortex-a72"] {
        for el in [1, 2] {
            reaches_user_space(&format!("--memory 2G --cpu {cpu} --el {el}"), "6.12", el);
        }
    }
}

#[test]
fn linux_6_1_reaches_user_space_on_every_cpu_at_both_levels() {
    for cpu in ["max", "neoverse-n1", "cortex-a72"] {
        for el in [1, 2] {
            reaches_user_space(&format!("--memory 2G --cpu {cpu} --el {el}"), "6.1", el);
        }
    }
}

#[test]
fn linux_reaches_user_space_where_ram_begins_at_0() {
    reaches_user_space("--machine xlnx-versal-virt --memory 8G", "6.12", 2);
}

#[test]
fn linux_gets_the_command_line_that_is_not_ours() {
    let outcome = Boot::new("--memory 2G").with("--append", "linmap.leaf=block hello=world").run();
    outcome.expect_success();
    let line =
        outcome.console.lines().find(|line| line.contains("Kernel command line: ")).expect("its own line");
    assert!(line.contains("hello=world") && !line.contains("linmap."), "{line}");
    assert_eq!(outcome.phase("linear-map")["leaf"], "block");
}

#[test]
fn a_payload_lies_page_by_page_before_it_is_moved() {
    let outcome = Boot::new("--memory 2G").run();
    let load = outcome.expect_success().phase("kexec-load");
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

#[test]
fn a_script_can_hand_over() {
    let outcome = Boot::new("--memory 2G").with("--script", "verify; kexec").run();
    outcome.expect_success();
    assert_eq!(outcome.with("verify").expect("a verdict")["verify"], "ok");
    assert!(outcome.console.contains("linmap-userspace: ok"));
}

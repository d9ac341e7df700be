//! CPUs that the next kernel gets.

use std::path::PathBuf;

use linmap_tests::{Boot, soak_or_first};

/// Debian's kernel of this line, as `cargo xtask setup` left it.
fn debian(line: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    target.join(format!("payload/linux-{line}/Image"))
}

#[test]
fn linux_gets_all_cpus_after_they_were_ours() {
    let machines = ["--gic 3 --el 2 --cpu cortex-a72", "--gic 2 --el 1", "--gic 3 --el 1", "--gic 2 --el 2"];
    for options in soak_or_first(1, &machines) {
        let outcome = Boot::new(&format!("--memory 2G --cpus 4 {options}"))
            .with("--kernel", debian("6.12"))
            .with("--script", "cpus; kexec")
            .run();
        let console = &outcome.console;
        assert!(console.contains("linmap-userspace: ok"), "{options}: {console}");
        assert!(console.contains("smp: Brought up 1 node, 4 CPUs"), "{options}: {console}");
        for complaint in ["[Firmware Bug]", "Kernel panic", "failed to come online"] {
            assert!(!console.contains(complaint), "{options}: {complaint}\n{console}");
        }
    }
}

#[test]
fn linmap_gets_all_cpus_back_from_itself() {
    for options in ["--gic 2 --el 1", "--gic 3 --el 2", "--gic 3 --el 2 --cpu cortex-a72"] {
        let outcome = Boot::new(&format!("--memory 1G --cpus 4 --payload self {options}"))
            .with("--append", "linmap.generations=2")
            .run();
        outcome.expect_success();
        let phases: Vec<_> = outcome
            .records
            .iter()
            .filter(|record| record.get("phase").is_some_and(|phase| phase == "cpus"))
            .collect();
        assert_eq!(phases.len(), 3, "{options}");
        assert!(phases.iter().all(|phase| phase["online"] == 4), "{options}: {phases:?}");
    }
}

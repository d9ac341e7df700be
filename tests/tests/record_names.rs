//! What `linmap record --check` says of a real kernel: functions by its own symbols, found without
//! help, and a summary.

use std::process::Output;

use linmap_tests::{tool, workspace};
use serde_json::Value;

/// `linmap record --check` of Debian's kernel in the folder `kernel`, to its panic.
fn judged(kernel: &str, options: &[&str]) -> (Option<i32>, String) {
    let image = workspace().join("target/payload").join(kernel).join("Image");
    let mut command = tool();
    command.args(["record", "--check"]).args(options).args(["--", "qemu-system-aarch64"]);
    command.args(["-machine", "virt", "-cpu", "cortex-a72", "-m", "1G", "-nic", "none"]);
    command.args(["-display", "none", "-serial", "null", "-monitor", "none", "-no-reboot"]);
    command.arg("-kernel").arg(image).args(["-append", "panic=-1"]);
    let Output { status, stdout, stderr } = command.output().expect("linmap runs");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    (status.code(), said + &String::from_utf8_lossy(&stderr))
}

/// The missing DSB in the early remap of Linux is the first violation on a CPU of BBM level 0. Its
/// function runs at physical addresses, and its name is beside a mapping symbol in 6.18.
#[test]
fn the_first_violation_is_named_by_the_kernels_own_symbols() {
    for kernel in ["linux-6.18", "linux-newest"] {
        let (code, said) = judged(kernel, &[]);
        assert_eq!(code, Some(1), "{kernel}: {said}");
        assert!(said.starts_with("the guest: illegal\nevent "), "{kernel}: {said}");
        assert!(said.contains(", at __pi_map_range+0x"), "{kernel}: {said}");
        let before = said.split_once("what CPU 0 did before, by function:\n").expect("it is said").1;
        let mut functions = before.lines().map(|line| line.split_whitespace().nth(1));
        assert_eq!(functions.next(), Some(Some("__enable_mmu")), "{kernel}: {said}");
        assert!(functions.any(|function| function == Some("__pi_early_map_kernel")), "{kernel}: {said}");
        assert!(before.contains("dsb ishst, isb, tlbi vmalle1, isb\n"), "{kernel}: {said}");
        assert!(!said.contains("$x"), "{kernel}: {said}");
    }
}

#[test]
fn a_whole_boot_is_summed_up_by_function() {
    let (code, said) = judged("linux-6.12", &["--all", "--json"]);
    assert_eq!(code, Some(1), "{said}");
    let json: Value = serde_json::from_str(&said).expect("JSON");
    let group = &json["groups"][0];
    assert_eq!(json["groups"].as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!((&group["rule"], &group["function"]), (&"contiguous".into(), &"__pi_map_range".into()));
    // The kernel's two places: 1:1, and behind KASLR.
    let places = json["kernel_at"].as_array().expect("places");
    assert!(places.contains(&"0x40200000".into()), "{said}");
    assert!(places.iter().any(|place| place.as_str().is_some_and(|at| at.starts_with("0xffff"))), "{said}");
    let summary = &json["summary"];
    let count = |value: &Value| value.as_u64().expect("a number");
    assert!((400..2000).contains(&count(&summary["tables"])), "{summary}");
    assert!(count(&summary["stores"]) > 100_000, "{summary}");
    assert_eq!(summary["tlbis"][0]["form"], "vaale1is", "{summary}");
    let unneeded = summary["unneeded"].as_array().expect("a list");
    let dsbs = unneeded.iter().find(|own| own["kind"] == "dsb").expect("DSBs");
    let own = dsbs["functions"].as_array().expect("functions");
    let changing = own.iter().find(|row| row["function"] == "__change_memory_common").expect("set_memory");
    assert_eq!(changing["count"], changing["of"], "{summary}");
    assert!(count(&dsbs["elsewhere"]) > 10_000, "{summary}");
}

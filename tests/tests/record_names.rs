//! What `linmap record --check` says of a real kernel: functions by its own symbols, found without
//! help. The summary of a whole boot is in the tool's README, whose session is run.

use std::process::Output;

use linmap_tests::{tool, workspace};

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

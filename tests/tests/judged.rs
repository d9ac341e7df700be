//! Guests that are not ours, judged by `cargo xtask judge` as docs/judged.md says.

use linmap_tests::{judge, soak_or_first};

#[test]
fn linux_6_1_starts_processes_and_every_edit_of_its_tables_is_legal() {
    let judged = judge("linux-6.1", "--work exec");
    assert_eq!(judged.code, Some(0), "{}{}", judged.console, judged.verdict);
    assert!(judged.verdict.starts_with("the guest: legal"), "{}", judged.verdict);
    assert!(judged.verdict.contains(", 0 stores missed"), "{}", judged.verdict);
    assert!(judged.console.contains("linmap-workload: ok exec\n"), "{}", judged.console);
}

#[test]
fn a_cpu_that_waits_by_isb_does_not_keep_the_others_from_running() {
    let judged = judge("user-space", "--cpus 4");
    assert_eq!(judged.code, Some(0), "{}{}", judged.console, judged.verdict);
    let line = judged.verdict.lines().find_map(|line| line.strip_prefix("ISBs with no edit"));
    let words = || line.into_iter().flat_map(str::split_whitespace);
    let count = words().find_map(|word| word.parse::<u64>().ok());
    // In slices of QEMU's length it is more than a hundred million.
    assert!(count.is_some_and(|count| count < 10_000_000), "{}", judged.verdict);
}

#[test]
fn our_kernel_moves_linux_with_its_mmu_on_and_no_edit_of_either_is_illegal_but_what_is_known() {
    let judged = judge("handover", "--work exec");
    let said = format!("{}{}", judged.console, judged.verdict);
    let found: Vec<_> = judged.mistakes().into_iter().map(|(_, function)| function).collect();
    assert_eq!(found, ["vmemmap_pud_populate"], "{said}");
    assert!(judged.verdict.contains(", 0 stores missed"), "{said}");
    assert!(judged.console.contains("linmap-workload: ok exec\n"), "{said}");
}

/// What is known of Linux since 6.12: see docs/judged.md.
const SINCE_6_12: &[&str] = &["__pi_map_range", "contpte_wrprotect_ptes", "__set_ptes_anysz"];

/// The same in RAM that was used before.
const SINCE_6_12_IN_USED_RAM: &[&str] = &["__pi_map_range", "set_swapper_pgd", "vmemmap_pud_populate"];

/// EDK2's function, which has no symbol.
const ARM_SET_TTBR0: &str = "0x17818";

/// Guests, options, and the functions with findings.
const ROWS: [(&str, &str, &[&str]); 18] = [
    ("u-boot", "", &[]),
    ("edk2", "", &[ARM_SET_TTBR0]),
    ("u-boot", "--el2", &[]),
    ("edk2", "--el2", &[]),
    ("linux-6.1", "--work exec --firmware u-boot --el2", &[]),
    ("linux-6.1", "--work exec --firmware edk2", &[ARM_SET_TTBR0, "vmemmap_pud_populate", "pud_set_huge"]),
    ("linux-6.1", "--cpus 4", &[]),
    ("linux-6.12", "", SINCE_6_12),
    ("linux-6.18", "", SINCE_6_12),
    ("linux-newest", "", SINCE_6_12),
    ("linmap", "--cpus 2", &[]),
    ("linmap", "--cpus 4", &[]),
    ("second-kernel", "--cpus 4", &[]),
    ("user-space", "--cpus 4", &[]),
    // map_range() of its guest, Linux 6.12.
    ("hypervisor", "", &["0x41f080a8"]),
    ("linmap", "--cpus 2 --used-ram", &[]),
    ("linux-6.18", "--work exec --used-ram", SINCE_6_12_IN_USED_RAM),
    ("handover", "--work exec --el2", &["vmemmap_pud_populate"]),
];

#[test]
fn guests_have_the_findings_that_are_known_and_no_other() {
    for (guest, options, known) in soak_or_first(2, &ROWS) {
        let judged = judge(guest, options);
        let found = judged.mistakes();
        let said = format!("{guest} {options}: {}{}", judged.console, judged.verdict);
        assert_eq!(judged.code, Some(i32::from(!known.is_empty())), "{said}");
        assert_eq!(found.is_empty(), known.is_empty(), "{said}");
        for (rule, place) in found {
            let is_known = known.iter().any(|function| place.starts_with(function));
            assert!(is_known, "{rule} {place}: {said}");
        }
        assert!(!judged.console.contains("linmap-workload: failed"), "{said}");
    }
}

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

/// What is known of Linux since 6.12: see docs/judged.md.
const SINCE_6_12: &[&str] = &["__pi_map_range", "contpte_wrprotect_ptes", "__set_ptes_anysz"];

/// EDK2's function, which has no symbol.
const ARM_SET_TTBR0: &str = "0x17818";

/// Guests, options, and the functions with findings.
const ROWS: [(&str, &str, &[&str]); 11] = [
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

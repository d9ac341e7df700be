//! Guests that are not ours, judged by `cargo xtask judge` as docs/judged.md says.

use linmap_tests::{is_soak, judge};

#[test]
fn linux_6_1_starts_processes_and_every_edit_of_its_tables_is_legal() {
    let judged = judge("linux-6.1", "--work exec");
    assert_eq!(judged.code, Some(0), "{}{}", judged.console, judged.verdict);
    assert!(judged.verdict.starts_with("the guest: legal"), "{}", judged.verdict);
    assert!(judged.verdict.contains(", 0 stores missed"), "{}", judged.verdict);
    assert!(judged.console.contains("linmap-workload: ok exec\n"), "{}", judged.console);
}

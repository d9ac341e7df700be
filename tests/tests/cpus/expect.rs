//! What a boot says of its CPUs.

use linmap_tests::Outcome;
use serde_json::Value;

/// The records of the shell's `cpus`, by number.
pub fn shown(outcome: &Outcome) -> Vec<&serde_json::Map<String, Value>> {
    outcome.records.iter().filter(|record| record.contains_key("mpidr")).collect()
}

/// Expects `online` of `present` CPUs, and that all others answered the boot CPU's call in `cpus`.
#[track_caller]
pub fn expect_cpus(outcome: &Outcome, online: u64, present: u64) {
    let phase = outcome.expect_success().phase("cpus");
    assert_eq!(phase["online"], online, "{phase:?}\n{}", outcome.console);
    assert_eq!(phase["present"], present, "{phase:?}");
    let asked = outcome.with("asked").unwrap_or_else(|| panic!("{}", outcome.console));
    assert_eq!(asked["asked"], online - 1, "{asked:?}");
    assert_eq!(asked["answered"], online - 1, "{asked:?}");
    let states = shown(outcome);
    assert_eq!(states.len() as u64, present);
    assert_eq!(states.iter().filter(|cpu| cpu["state"] == "online").count() as u64, online);
}

/// Expects a warning about a CPU that holds all of `parts`.
#[track_caller]
pub fn expect_warning(outcome: &Outcome, parts: &[&str]) {
    let said = outcome.records.iter().any(|record| {
        let what = record.get("what").and_then(Value::as_str).unwrap_or_default();
        record.get("warning").is_some_and(|kind| kind == "cpu")
            && parts.iter().all(|part| what.contains(part))
    });
    assert!(said, "no warning says {parts:?}: {}", outcome.console);
}

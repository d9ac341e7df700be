//! What is left out of a good trace is reported, and once.

use std::io::Cursor;

use linmap_model::Leniency;

use super::input::Input;
use super::judge::{self, Options};
use crate::output::Verbosity;

const EDITS: &str = include_str!("../../tests/inputs/edits.trace");

/// The DSBs and TLBIs of the edits: each by its line, and the number of its edit.
fn barriers() -> Vec<(usize, usize)> {
    let mut edit = 0;
    // What is before the first context synchronization builds the map.
    let built = EDITS.lines().position(|line| line == "0 isb").unwrap();
    let mut found = Vec::new();
    for (nth, line) in EDITS.lines().enumerate().skip(built) {
        if line.starts_with("0 dsb") || line.starts_with("0 tlbi") {
            found.push((nth, edit));
        }
        edit += usize::from(line == "settled");
    }
    found
}

/// The events at which violations are found without these lines.
fn violations(left_out: &[usize]) -> Vec<usize> {
    let kept = EDITS.lines().enumerate().filter(|(nth, _)| !left_out.contains(nth));
    let trace: String = kept.flat_map(|(_, line)| [line, "\n"]).collect();
    let input = Input::of(None, None, Box::new(Cursor::new(trace.into_bytes()))).unwrap();
    let options = Options {
        leniency: Leniency::Strict,
        all: true,
        history: 1,
        shown: 0,
        verbosity: Verbosity::Quiet,
        is_live: false,
    };
    let judged = judge::judge(input, &options).unwrap();
    judged.found.iter().map(|found| found.violation.event).collect()
}

#[test]
fn each_barrier_or_tlbi_left_out_is_one_mistake() {
    assert_eq!(violations(&[]), [0; 0]);
    let barriers = barriers();
    assert_eq!(barriers.len(), 24);
    for &(line, edit) in &barriers {
        let found = violations(&[line]);
        assert_eq!(found.len(), 1, "edit {edit} without line {}", line + 1);
    }
}

#[test]
fn two_left_out_of_two_edits_are_two_mistakes() {
    let barriers = barriers();
    for (nth, &(first, edit)) in barriers.iter().enumerate() {
        for &(second, other) in &barriers[nth + 1..] {
            let found = violations(&[first, second]).len();
            // Of one edit both may be needed for the same, or for two things.
            let expected = if edit == other { 1..=2 } else { 2..=2 };
            assert!(expected.contains(&found), "{found} without lines {} and {}", first + 1, second + 1);
        }
    }
}

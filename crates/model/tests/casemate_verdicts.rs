//! casemate's examples, told in its own format: the same verdicts as casemate's wherever the
//! question is one that this model asks.

use std::fs;
use std::path::Path;

use linmap_model::Rule;
use linmap_model::trace::casemate;

/// What this model says about an example that casemate accepts (`good_*`) or refuses (`bad_*`).
enum Expected {
    /// casemate's verdict: legal.
    Legal,
    /// casemate's verdict: illegal, by the rule named here.
    Illegal(Rule),
    /// Another verdict than casemate's, for the reason given: what casemate asks here, the
    /// architecture does not.
    OutOfScope(&'static str),
}

use Expected::{Illegal, Legal, OutOfScope};

const LOCKS: &str = "about who holds a lock, which no MMU asks";
const DISCIPLINE: &str = "casemate lets a table be in one tree, with one VMID, at a time; the \
                          architecture lets it be in several, as long as what is cached of each fits";

const EXAMPLES: [(&str, Expected); 24] = [
    ("bad_EL2_ASID", Illegal(Rule::AsidInEl2)),
    ("bad_bbm_by_wrong_VMID", Illegal(Rule::OutputAddress)),
    ("bad_bbm_missing_tlbi", Illegal(Rule::OutputAddress)),
    ("bad_free_page_without_clean", Illegal(Rule::TableReachable)),
    ("bad_no_assoc_lock", OutOfScope(LOCKS)),
    ("bad_no_bbm", Illegal(Rule::NotMemory)),
    ("bad_no_bbm_stage1", Illegal(Rule::NextTable)),
    ("bad_overlap_ASID", OutOfScope("both trees are empty, so nothing of one can be taken for the other's")),
    ("bad_overlap_VMID", OutOfScope("both trees are empty, so nothing of one can be taken for the other's")),
    ("bad_race", OutOfScope(LOCKS)),
    ("bad_reuse_page", OutOfScope(DISCIPLINE)),
    ("bad_switch_wrong_vmid", OutOfScope(DISCIPLINE)),
    ("bad_unlocked_write", OutOfScope(LOCKS)),
    ("good_bbm", Legal),
    ("good_bbm_by_VMID", Legal),
    ("good_bbm_stage1", Legal),
    ("good_free_page", Legal),
    (
        "good_free_tree",
        OutOfScope(
            "frees a tree that VTTBR left without an ISB or an invalidation: a walk may still be in it",
        ),
    ),
    ("good_release_table", Legal),
    ("good_switch", Legal),
    ("good_trylock", Legal),
    ("good_write", Legal),
    ("good_write_child", Legal),
    ("simple", Legal),
];

#[test]
fn casemates_examples_get_casemates_verdicts_or_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/casemate");
    let mut files: Vec<String> = fs::read_dir(&folder)
        .expect("the folder of examples")
        .filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok()?.strip_suffix(".sexp").map(str::to_owned)
        })
        .collect();
    files.sort();
    assert_eq!(files, EXAMPLES.map(|(name, _)| name), "each example has a line in the table");
    for (name, expected) in EXAMPLES {
        let file = fs::read(folder.join(format!("{name}.sexp"))).expect("an example");
        let read = casemate::read(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let verdict = read.trace.check().expect("a machine that can be");
        match (&expected, verdict) {
            (Legal, Ok(_)) => {}
            (Illegal(rule), Err(violation)) if violation.rule == *rule => {}
            (OutOfScope(reason), verdict) => {
                let same = name.starts_with("bad") == verdict.is_err();
                assert!(!same, "{name} is in scope after all, although: {reason}");
                println!("{name:28} out of scope: {reason}");
            }
            (_, verdict) => panic!("{name}: {verdict:?}"),
        }
    }
}

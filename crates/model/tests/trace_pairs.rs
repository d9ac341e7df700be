//! Traces in files, in pairs that differ by one event: one is legal, the other breaks a rule. The
//! first line of each says why.

use std::fs;
use std::path::Path;

use linmap_model::Rule;
use linmap_model::trace::text;

/// Each pair, with the rule that its illegal trace breaks; `None` where the mistake is none.
const PAIRS: [(&str, Option<Rule>); 6] = [
    ("holeA-root-cleared-no-dsb-same-asid", Some(Rule::NextTable)),
    ("holeC-run-af-settled-12", Some(Rule::IncompleteRun)),
    ("ttl-wrong-level-16k-l2", Some(Rule::StaleTranslation)),
    ("tcr-sh1-lpa2", Some(Rule::TranslationControl)),
    ("asid-8-bits", Some(Rule::NextTable)),
    ("mair-unused-slot", None),
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

/// The rule that a trace breaks.
fn broken(name: &str, kind: &str) -> Option<Rule> {
    let path = folder().join(format!("{name}.{kind}.trace"));
    let trace = text::read(&fs::read(&path).unwrap()).unwrap();
    trace.check().unwrap().err().map(|violation| violation.rule)
}

#[test]
fn of_each_pair_one_trace_is_legal_and_the_other_breaks_the_rule() {
    for (name, rule) in PAIRS {
        assert_eq!(broken(name, "ok"), None, "{name}");
        if rule.is_some() {
            assert_eq!(broken(name, "bad"), rule, "{name}");
        }
    }
}

#[test]
fn every_file_is_in_the_list() {
    for file in fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let pair = name.split('.').next().unwrap();
        assert!(PAIRS.iter().any(|(listed, _)| *listed == pair), "{name} is in no pair");
    }
}

//! What differs from a dump that was saved.

use std::fs;

use linmap_vmsa::{Attributes, Descriptor, Geometry, Granule, Pa};
use serde_json::Value;

use crate::machine::{Machine, number, text, usual};

#[test]
fn a_dump_that_was_saved_is_compared_by_attribute() {
    let (mut machine, root) = usual();
    let saved = machine.path("saved.json");
    fs::write(&saved, machine.dump(&["--json"]).stdout).expect("the file is written");
    let saved = saved.to_str().expect("UTF-8").to_owned();
    let output = machine.dump(&["--diff", &saved]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "0 differences\n".to_owned()));
    // The device becomes normal memory and is executed; the block vanishes.
    let json = machine.json(&["--va", "0xffffff8080000000"]);
    let step = &json["roots"][0]["walk"]["steps"][2];
    let entry = number(&step["table"]) + 8 * number(&step["index"]);
    let geometry = Geometry::new(Granule::K4, 39, 48).expect("a geometry");
    machine.set(entry, Descriptor::page(geometry, Pa(0x900_0000), Attributes::KERNEL_TEXT).0);
    let json = machine.json(&["--va", "0xffffff8000200000"]);
    let step = &json["roots"][0]["walk"]["steps"][1];
    machine.set(number(&step["table"]) + 8 * number(&step["index"]), 0);
    let output = machine.dump(&["--diff", &saved]);
    let expected = "\
- 0xffffff8000200000-0xffffff8000400000     2M 0x000040200000 L2   2M     RW NX  ISH G  AF MEM/NORMAL
~ 0xffffff8080000000-0xffffff8080001000     4K access RW -> ro, execute NX -> x, \
memory DEVICE/nGnRE -> MEM/NORMAL
2 differences
";
    let found = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(found.split_once('\n').map(|(_, rest)| rest), Some(expected), "{root}");
    // Of a saved dump only the range that was asked for counts, here half of the block.
    let part = machine.dump(&["--diff", &saved, "--va", "0xffffff8000300000+1M"]);
    let expected = "\
- 0xffffff8000300000-0xffffff8000400000     1M 0x000040300000 L2   2M     RW NX  ISH G  AF MEM/NORMAL
1 difference
";
    assert_eq!(text(&part.stdout).split_once('\n').map(|(_, rest)| rest), Some(expected));
    let json = machine.dump(&["--diff", &saved, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["count"], 2);
    assert_eq!(json["differences"][1]["fields"][0]["field"], "access");
}

#[test]
fn a_dump_saved_in_part_is_compared_where_both_have_addresses() {
    let (mut machine, _) = usual();
    let saved = machine.path("saved.json").display().to_string();
    let save = |machine: &Machine, arguments: &[&str]| {
        let output = machine.dump(&[&["--json"], arguments].concat());
        fs::write(machine.path("saved.json"), output.stdout).expect("the file is written");
    };
    let compare = |machine: &Machine, arguments: &[&str]| {
        let output = machine.dump(&[&["--diff", &saved], arguments].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    save(&machine, &["--va", "0xffffff8000001000+8K"]);
    let (code, found, notes) = compare(&machine, &[]);
    assert_eq!((code, found.as_str()), (Some(0), "0 differences\n"), "{notes}");
    assert!(notes.contains("only 0xffffff8000001000-0xffffff8000002fff is compared"), "{notes}");
    let (code, _, error) = compare(&machine, &["--va", "0xffffff8040000000+4K"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("the saved dump has nothing of what is compared"), "{error}");
    save(&machine, &["--root", "ttbr1_el1"]);
    assert_eq!(compare(&machine, &[]).0, Some(0));
    // A row is the first page, and the second row is what is read-only.
    save(&machine, &["--rows", "2"]);
    let (code, found, notes) = compare(&machine, &[]);
    assert_eq!((code, found.as_str()), (Some(0), "0 differences\n"), "{notes}");
    assert!(notes.contains("TTBR1_EL1 is compared up to 0xffffff8000002fff"), "{notes}");
    machine.set(machine.entry_of("0xffffff8000002000"), 0);
    assert_eq!(compare(&machine, &[]).0, Some(1));
    assert_eq!(compare(&machine, &["--rows", "1"]).0, Some(0));
    save(&machine, &["--rows", "0"]);
    let (code, _, notes) = compare(&machine, &[]);
    assert!(code == Some(0) && notes.contains("TTBR1_EL1 is not compared: --rows ended"), "{notes}");
}

#[test]
fn one_address_is_compared_and_summed_up_by_its_page() {
    let (mut machine, _) = usual();
    let saved = machine.path("saved.json").display().to_string();
    fs::write(&saved, machine.dump(&["--json"]).stdout).expect("the file is written");
    machine.set(machine.entry_of("0xffffff8000002000"), 0);
    let compare = |va: &str| machine.dump(&["--diff", &saved, "--va", va]);
    let (same, other) = (compare("0xffffff8000001abc"), compare("0xffffff8000002abc"));
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), "0 differences\n".to_owned()));
    let found = text(&other.stdout);
    assert_eq!(other.status.code(), Some(1));
    assert!(found.contains("- 0xffffff8000002000-0xffffff8000003000     4K 0x000040002000"), "{found}");
    assert!(found.ends_with("\n1 difference\n"), "{found}");
    let summary = text(&machine.dump(&["--summary", "--va", "0xffffff8000001abc"]).stdout);
    assert!(summary.contains("100.0 %  1 leaf of L3\n"), "{summary}");
    let findings = text(&machine.dump(&["--findings", "--va", "0xffffff8000001abc"]).stdout);
    assert!(findings.starts_with("findings: 0 problems, "), "{findings}");
}

#[test]
fn tables_that_are_shared_are_the_same_in_a_part_of_a_dump() {
    let (mut machine, _) = usual();
    let json = machine.json(&["--va", "0xffffff8000000000"]);
    let step = &json["roots"][0]["walk"]["steps"][1];
    // The third entry of level 2 leads to the table of the first.
    machine.set(number(&step["table"]) + 16, number(&step["entry"]));
    let saved = machine.path("saved.json").display().to_string();
    fs::write(&saved, machine.dump(&["--json"]).stdout).expect("the file is written");
    let output = machine.dump(&["--diff", &saved, "--va", "0xffffff8000400000+2M"]);
    assert_eq!(text(&output.stdout), "0 differences\n");
}

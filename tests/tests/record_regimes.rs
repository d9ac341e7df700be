//! `linmap record` of guests at other exception levels than EL1.

use std::path::PathBuf;
use std::process::Output;

use linmap_tests::{example, own_image_path, tool};

/// A guest recorded and judged: what is said, and the lines of its trace in text form.
fn judged(qemu: &str) -> (String, Vec<String>) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = tool();
    command.args(["record", "--check", "--all", "--out"]).arg(file.path()).arg("--");
    command.args(["qemu-system-aarch64", "-display", "none", "-monitor", "none", "-serial", "null"]);
    command.args(["-nic", "none", "-no-reboot"]).args(qemu.split_whitespace());
    let Output { status, stdout, stderr } = command.output().expect("linmap runs");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert_eq!(status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&stderr));
    assert!(said.starts_with("the guest: legal"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
    (said, lines(file.path().into()))
}

/// The events of a binary trace as lines of text.
fn lines(path: PathBuf) -> Vec<String> {
    use linmap_trace::binary::{Decoder, MAGIC, Record};
    let bytes = std::fs::read(path).expect("a trace");
    let mut rest = &bytes[MAGIC.len() + 1..];
    let mut decoder = Decoder::default();
    let mut lines = Vec::new();
    while let Ok(Some((record, len))) = decoder.decode(rest) {
        if let Record::Line(linmap_trace::Line::Event(recorded)) = record {
            lines.push(recorded.event.to_string());
        }
        rest = &rest[len..];
    }
    lines
}

/// The number of lines that have `words`.
fn count(lines: &[String], words: &str) -> usize {
    lines.iter().filter(|line| line.contains(words)).count()
}

#[test]
fn the_recorder_sees_our_own_boot_at_el2_with_vhe() {
    let image = own_image_path();
    let (_, lines) = judged(&format!(
        "-machine virt,virtualization=on -smp 2 -cpu max -m 1G -kernel {} -append linmap.payload=none",
        image.display()
    ));
    // EL1's names are EL2's registers there, and its TLBIs keep their names.
    assert!(count(&lines, "msr hcr_el2") >= 2, "one for each CPU");
    assert!(count(&lines, "msr ttbr1_el2") >= 2);
    assert_eq!(count(&lines, "msr ttbr1_el1"), 0);
    assert!(count(&lines, "tlbi vmalle1") > 0);
    assert_eq!(count(&lines, "msr sctlr_el2"), 2, "each CPU turns its MMU on once");
}

#[test]
fn the_recorder_sees_el2_and_el3() {
    for (el, regime) in [("2", "EL2"), ("3", "EL3")] {
        let (code, said) = example("first-map", &format!("--el {el} --record"));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("the MMU is on in the regime {regime}")), "{said}");
        assert!(said.contains("the guest: legal") && said.contains(" 0 stores missed"), "{said}");
    }
}

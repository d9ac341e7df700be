//! `linmap plan` as a person runs it.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const INPUTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/inputs");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn linmap(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linmap"));
    command.current_dir(INPUTS).args(arguments).env_remove("CLICOLOR_FORCE");
    command
}

fn run(arguments: &[&str]) -> Output {
    linmap(arguments).output().expect("linmap runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The output of a plan that succeeds.
fn plan(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    text(&output.stdout)
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&plan(arguments)).expect("JSON")
}

/// Compares with a file, or writes it with `LINMAP_WRITE_GOLDEN=1`.
fn assert_golden(name: &str, found: &str) {
    let path = Path::new(GOLDEN).join(name);
    if std::env::var_os("LINMAP_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, found).expect("room for it");
    }
    let golden = fs::read_to_string(&path).expect("a golden file");
    assert_eq!(found, golden, "{name}: LINMAP_WRITE_GOLDEN=1 writes it anew");
}

#[test]
fn the_plan_of_iomem_has_regions_leaves_tables_and_what_each_builder_costs() {
    assert_golden("plan-iomem.txt", &plan(&["plan", "iomem.txt"]));
    assert_golden("plan-iomem.json", &plan(&["plan", "--json", "iomem.txt"]));
}

#[test]
fn many_inputs_have_a_line_each_and_their_sums() {
    assert_golden("plan-many.txt", &plan(&["plan", "iomem.txt", "memmap.txt", "layout.toml"]));
}

#[test]
fn an_input_that_cannot_be_planned_does_not_stop_the_others() {
    let inputs = ["missing", "iomem.txt", "..", "layout.toml"];
    let output = run(&[&["plan", "-q"], &inputs[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    let rows = text(&output.stdout);
    assert_eq!(rows.lines().count(), 2, "{rows}");
    let errors = text(&output.stderr);
    let expected = ["error: missing: No such file", "error: ..: Is a directory", "error: 2 of 4 inputs"];
    assert_eq!(errors.lines().count(), 3, "{errors}");
    assert!(errors.lines().zip(expected).all(|(line, start)| line.starts_with(start)), "{errors}");
    let output = run(&[&["plan", "--json"], &inputs[..]].concat());
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON in spite of errors");
    let names: Vec<_> =
        found["inputs"].as_array().expect("all").iter().map(|input| &input["input"]).collect();
    assert_eq!(names, inputs);
    assert!(found["inputs"][0]["error"].as_str().is_some_and(|error| error.contains("No such file")));
    assert_eq!((&found["summary"]["inputs"], &found["summary"]["planned"]), (&4.into(), &2.into()));
}

#[test]
fn addresses_that_linux_hides_are_asked_for_as_root() {
    let mut child = linmap(&["plan", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("linmap runs");
    let hidden = "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n";
    child.stdin.take().expect("a pipe").write_all(hidden.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
    assert_eq!(
        text(&output.stderr),
        "error: standard input: line 1 of iomem has no address: Linux shows addresses to root alone; \
         run as root: sudo cat /proc/iomem | linmap plan -\n"
    );
}

#[test]
fn wrong_files_are_named_as_what_they_are_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let files: [(&str, &[u8], &str); 6] = [
        ("empty", b"", "an empty file does not describe memory"),
        ("core", b"\x7fELF\x02\x01\0\0\0\0\0\0\0\0\0\0\x04\0", "an ELF core does not describe memory"),
        ("packed", b"\x1f\x8b\x08\0", "a gzip file does not describe memory"),
        ("half.dtb", b"\xd0\x0d\xfe\xed\0\0\0\x48\0\0", ": "),
        ("bytes", b"\x01\x02\0\x03", "a binary file of unknown kind does not describe memory"),
        ("prose", b"Dear all,\nmemory is full.\n", "line 1: "),
    ];
    for (name, bytes, part) in files {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("room for it");
        let output = run(&["plan", path.to_str().expect("UTF-8")]);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len(), error.lines().count()), (Some(2), 0, 1));
        assert!(error.starts_with("error: ") && error.contains(part), "{name}: {error}");
    }
}

#[test]
fn firmwares_and_linux_print_the_same_memory_map() {
    let of = |file: &str| {
        let found = json(&["plan", "--json", file]);
        (found["inputs"][0]["memory"].clone(), found["inputs"][0]["linear_map"].clone())
    };
    let shell = of("memmap.txt");
    assert_eq!(shell.0["ram_bytes"], (1u64 << 30) + (1 << 20) + (2 << 16));
    assert_eq!(of("efidebug.txt"), shell);
    assert_eq!(of("efi-log.txt"), shell);
}

#[test]
fn options_of_the_command_line_come_before_those_of_a_layout() {
    let of = |arguments: &[&str]| {
        json(&[&["plan", "--json", "layout.toml"], arguments].concat())["inputs"][0].clone()
    };
    let own = of(&[]);
    let names = |plan: &Value| -> Vec<String> {
        let builders = plan["builders"].as_array().expect("builders");
        builders.iter().map(|of| of["build"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&own), ["identity"]);
    let other = of(&["--build", "lazy-unmap", "--granule", "64k", "--leaf", "page", "--image", "none"]);
    assert_eq!(names(&other), ["lazy-unmap"]);
    assert_eq!(other["geometry"]["granule"], 65536);
    assert_eq!((&other["image"], &other["linear_map"]["leaf"]), (&Value::Null, &"page".into()));
    let leaves = other["linear_map"]["leaves"].as_array().expect("leaves");
    let blocks: u64 =
        leaves.iter().filter(|of| of["level"] != 3).filter_map(|of| of["single"].as_u64()).sum();
    assert_eq!(blocks, 0);
}

#[test]
fn memory_that_the_map_does_not_reach_is_refused_with_the_option_that_helps() {
    for (options, hint) in [
        (["--va-bits", "39"], "a larger --va-bits has a larger linear region"),
        (["--pa-bits", "44"], "a larger --pa-bits reaches more memory"),
        (["--va-bits", "53"], "VA size of 53 bits"),
    ] {
        let output = run(&["plan", "layout.toml", options[0], options[1]]);
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(hint), "{error}");
    }
}

#[test]
fn a_plan_of_64_tib_takes_milliseconds() {
    let began = Instant::now();
    plan(&["plan", "layout.toml", "--build", "all"]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let inputs = vec!["iomem.txt"; 3000];
    let mut command = linmap(&[&["plan"], &inputs[..]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("linmap runs");
    let mut some = [0; 10];
    child.stdout.take().expect("a pipe").read_exact(&mut some).expect("a line");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn help_that_can_not_be_written_is_an_error() {
    for option in ["--help", "--version"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let status = Command::new(env!("CARGO_BIN_EXE_linmap")).arg(option).stdout(full).status();
        assert_eq!(status.expect("linmap runs").code(), Some(2), "{option}");
    }
}

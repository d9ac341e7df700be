//! `linmap check`, as a user runs it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn linmap() -> Command {
    Command::new(env!("CARGO_BIN_EXE_linmap"))
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/model/tests").join(name)
}

fn check(path: &Path, options: &[&str]) -> Output {
    linmap().arg("check").args(options).arg(path).output().unwrap()
}

/// What it prints when the trace comes through a pipe.
fn piped(bytes: &[u8], options: &[&str]) -> Output {
    let mut child = linmap()
        .args(["check", "-"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    // It may stop reading at the first violation.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", stdout(output));
    assert_eq!(stdout(output), "");
    let errors = stderr(output);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.trim_end().to_owned()
}

#[test]
fn the_exit_code_is_the_verdict_on_each_pair_of_the_model() {
    let mut pairs = 0;
    for entry in fs::read_dir(model("traces")).unwrap() {
        let path = entry.unwrap().path();
        let legal = path.to_str().unwrap().ends_with(".ok.trace");
        for output in [check(&path, &[]), check(&path, &["--all"]), piped(&fs::read(&path).unwrap(), &[])] {
            assert_eq!(output.status.code(), Some(i32::from(!legal)), "{}", stdout(&output));
        }
        pairs += 1;
    }
    assert!(pairs > 10);
}

#[test]
fn an_illegal_trace_is_shown_by_its_fewest_events() {
    let path = example("protect-page-without-tlbi.trace");
    let output = linmap()
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["check", "examples/protect-page-without-tlbi.trace"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = fs::read_to_string(example("protect-page-without-tlbi.out")).unwrap();
    if std::env::var_os("LINMAP_WRITE_GOLDEN").is_some() {
        fs::write(example("protect-page-without-tlbi.out"), &output.stdout).unwrap();
        return;
    }
    assert_eq!(stdout(&output), expected);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(&expected));
    // The verdict alone.
    let quiet = stdout(&check(&path, &["-q"]));
    assert_eq!(quiet.lines().count(), 3, "{quiet}");
}

#[test]
fn json_has_the_rule_the_sentence_and_the_witness() {
    let output = check(&example("protect-page-without-tlbi.trace"), &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["verdict"], "illegal");
    let violation = &json["violations"][0];
    assert_eq!(violation["rule"], "stale-translation");
    assert_eq!(violation["address"], "0xffff501000000000");
    let events = violation["witness"]["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["text"], "settled");
    assert_eq!(events.last().unwrap()["breaks"], true);
    assert_eq!(json["counts"][0]["count"], 1);
    let legal = check(&example("protect-page.trace"), &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&legal.stdout).unwrap();
    assert_eq!((&json["verdict"], &json["covers"]["events_after"]), (&"legal".into(), &0.into()));
    assert_eq!(json["events"], 87);
}

#[test]
fn traces_of_casemate_are_judged_as_casemate_names_them() {
    for (name, code) in
        [("good_bbm", 0), ("bad_no_bbm_stage1", 1), ("good_free_page", 0), ("bad_EL2_ASID", 1)]
    {
        let path = model(&format!("casemate/{name}.sexp"));
        let output = check(&path, &["--json"]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stdout(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["form"], "casemate");
        assert_eq!(piped(&fs::read(&path).unwrap(), &[]).status.code(), Some(code));
    }
}

#[test]
fn what_is_no_trace_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let wide: Vec<u8> = "\u{feff}machine cpus=1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let endless = [&b"machine cpus=1 bbm=0 granule=4K va=48 pa=48 # "[..], &[b'x'; 1 << 20]].concat();
    let nul = [&b"machine cpus=1 bbm=0 granule=4K va=48 pa=48\n"[..], &[b'#'; 5000], b"\n0 is\0b\n"].concat();
    let cases: [(&str, &[u8], &str); 9] = [
        ("wide", &wide, "text in UTF-16, not a trace; convert it: iconv"),
        ("endless", &endless, "line 1: longer than 65536 bytes, not a line of a trace"),
        ("nul", &nul, "line 3, column 3: unknown event"),
        ("empty", b"", "empty, not a trace; a trace begins with a line `machine cpus=…`"),
        ("binary", b"\0\x01\x02", "a binary file of unknown kind, not a trace"),
        ("tree", b"\xd0\x0d\xfe\xed\0\0\0\x48", "a device tree, not a trace"),
        ("packed", b"\x1f\x8b\x08", "a gzip file, not a trace; unpack it into a pipe: gzip -dc FILE"),
        ("text", b"hello\n", "line 1, column 1: the trace has to begin with the line `machine`"),
        ("head", b"machine cpus=0 bbm=0 granule=4K va=48 pa=48\n", "line 1, column 1: cpus=0"),
    ];
    for (name, bytes, says) in cases {
        let path = file(name, bytes);
        let errors = refused(&check(&path, &[]));
        assert!(errors.contains(says) && errors.contains(name), "{errors}");
        let errors = refused(&piped(bytes, &[]));
        assert!(errors.contains(says) && errors.contains("standard input"), "{errors}");
    }
    assert!(
        refused(&check(Path::new(env!("CARGO_BIN_EXE_linmap")), &[])).contains("an ELF file, not a trace")
    );
    assert!(refused(&check(folder.path(), &[])).contains("is a directory"));
    assert!(refused(&check(&folder.path().join("missing"), &[])).contains("No such file"));
    // A good trace that is cut within a word.
    let whole = fs::read(example("protect-page.trace")).unwrap();
    let errors = refused(&check(&file("cut", &whole[..whole.len() - 4]), &[]));
    assert!(errors.contains("unknown event `sett`"), "{errors}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = linmap()
        .arg("check")
        .arg(example("protect-page-without-tlbi.trace"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), String::new()));
}

/// Tables of 2 MiB of pages, and `edits` edits of one page after the other. Edit number `bad` has
/// no TLBI.
fn long(edits: u64, bad: &[u64]) -> String {
    let mut trace = "machine cpus=2 bbm=0 granule=4K va=39 pa=48\nram 0x40000000 0x10000\n".to_owned();
    for pa in ["0x40000000", "0x40001000", "0x40003000"] {
        let _ = writeln!(trace, "0 fill {pa} count=512 first=0 step=0");
    }
    trace += "0 fill 0x40002000 count=512 first=0x80000703 step=0x1000
0 store 0x40001000 0x40002003
0 store 0x40000000 0x40001003
0 dsb ishst
0 msr ttbr1_el1 0x40000000
0 isb
1 msr ttbr1_el1 0x40000000
1 isb
";
    for nth in 0..edits {
        let page = nth % 512;
        let read_only = nth / 512 % 2 == 0;
        let value = 0x8000_0703 + page * 0x1000 + u64::from(read_only) * 0x80;
        let _ = writeln!(
            trace,
            "0 store {:#x} {value:#x} pc={:#x}",
            0x4000_2000 + 8 * page,
            0xffff_8000_8000_1000_u64 + 4
        );
        trace += "0 dsb ishst\n";
        if !bad.contains(&nth) {
            let _ = writeln!(trace, "0 tlbi vaale1is {:#x}", 0xfff_f800_0000_u64 | page);
        }
        trace += "0 dsb ish\n0 isb\nsettled pc=0xffff800080001040\n";
    }
    trace
}

#[test]
fn a_long_trace_is_shown_by_few_events_with_their_lines() {
    let trace = long(20_000, &[15_003]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    fs::write(&path, &trace).unwrap();
    let output = stdout(&check(&path, &[]));
    let line =
        trace.lines().enumerate().filter(|(_, line)| *line == "settled pc=0xffff800080001040").nth(15_003);
    let number = line.map(|(nth, _)| nth + 1).unwrap();
    assert!(output.contains(&format!("line {number}, at 0xffff800080001040: stale-translation")), "{output}");
    assert!(output.lines().count() < 25, "{output}");
    assert!(output.contains(" pc=0xffff800080001004") || output.contains(" 0xffff800080001004"), "{output}");
    // The same through a pipe, by its last events.
    let short = stdout(&piped(trace.as_bytes(), &["--history", "1000"]));
    assert!(short.contains("the history begins at event"), "{short}");
    assert!(short.contains("> 90") && short.contains("settled"), "{short}");
    // What made it lies before them.
    let late = long(500, &[3]).replace("\nsettled pc=0xffff800080001040", "") + "settled\n";
    let cut = stdout(&piped(late.as_bytes(), &["--history", "1000"]));
    assert!(cut.contains("not shown by events: the events from"), "{cut}");
    assert!(cut.contains("--history"), "{cut}");
}

#[test]
fn zeros_that_nothing_orders_are_shown_with_what_they_hide() {
    // A table is cleared and linked. What was there before leads out of memory.
    let mut trace = String::from("machine cpus=2 bbm=0 granule=4K va=48 pa=48\nram 0x40000000 0x40000000\n");
    for table in ["0x40000000", "0x40001000"] {
        trace += &format!("1 fill {table} count=512 first=0 step=0\n");
    }
    trace += "1 store 0x40000000 0x40001003\n1 dsb ish\n0 msr ttbr1_el1 0x40000000\n0 isb\n";
    trace += "1 fill 0x40002000 count=512 first=0xffffffff0703 step=0\n1 dsb ish\n";
    trace += "0 fill 0x40002000 count=512 first=0 step=0\n0 store 0x40001000 0x40002003\n";
    let shown = stdout(&piped(trace.as_bytes(), &[]));
    assert!(shown.contains("unordered"), "{shown}");
    for word in ["1 store 0x40002000 0xffffffff0703", "0 fill 0x40002000", ">", "0 store 0x40001000"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn each_mistake_is_counted_once_at_its_place() {
    let trace = long(3_000, &[7, 600, 601, 2_000]);
    let output = piped(trace.as_bytes(), &["--all", "-q"]);
    assert_eq!(output.status.code(), Some(1));
    let output = stdout(&output);
    assert!(output.starts_with("standard input: illegal: 4 mistakes"), "{output}");
    assert!(output.ends_with("         4  stale-translation  0xffff800080001040\n"), "{output}");
}

#[test]
fn violations_of_one_kind_at_one_place_are_one_group() {
    let trace = long(3_000, &[7, 600, 601, 2_000]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    fs::write(&path, &trace).unwrap();
    let text = stdout(&check(&path, &["--all"]));
    // The first is shown, the others are counted.
    assert_eq!(text.matches("the fewest events that show it").count(), 1, "{text}");
    assert!(text.contains("  and 3 more of stale-translation in 0xffff800080001040: events "), "{text}");
    // What every CPU did is summed up when it is asked for.
    assert!(!text.contains("summary:"), "{text}");
    let text = stdout(&check(&path, &["--all", "-v"]));
    for line in [
        "  TLBIs                2996  vaale1is 2996",
        "  DSBs                 6001  ishst 3001, ish 3000",
        "  register writes         2  ttbr1_el1 2",
    ] {
        assert!(text.lines().any(|own| own == line), "{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&stdout(&check(&path, &["--all", "--json"]))).unwrap();
    assert_eq!(json["count"], 4);
    let group = &json["groups"][0];
    assert_eq!((&group["rule"], &group["count"]), (&"stale-translation".into(), &4.into()));
    assert_eq!(group["first_event"], json["violations"][0]["event"]);
    assert_eq!(json["summary"]["tlbis"][0]["count"], 2996);
    assert_eq!(json["violations"][0]["function"], "0xffff800080001040");
}

/// Tables of 2 MiB of pages each. Every page of the first half is mapped elsewhere without
/// break-before-make, then every page of the second half is made read-only without a TLBI.
fn tens_of_thousands_of_mistakes(tables: u64) -> String {
    let first = 0x4001_0000;
    let mut trace = "machine cpus=2 bbm=0 granule=4K va=39 pa=48\nram 0x40000000 0x1000000\n".to_owned();
    trace += "0 fill 0x40000000 count=512 first=0 step=0\n0 fill 0x40001000 count=512 first=0 step=0\n";
    for nth in 0..tables {
        let (table, pages) = (first + nth * 0x1000, 0x8000_0703 + nth * 0x20_0000);
        let _ = writeln!(trace, "0 fill {table:#x} count=512 first={pages:#x} step=0x1000");
        let _ = writeln!(trace, "0 store {:#x} {:#x}", 0x4000_1000 + 8 * nth, table + 3);
    }
    trace += "0 store 0x40000000 0x40001003\n0 dsb ishst\n0 msr ttbr1_el1 0x40000000\n0 isb\n";
    let half = 256 * tables;
    for page in 0..half {
        let _ = writeln!(trace, "0 store {:#x} {:#x}", first + 8 * page, 0x10_8000_0703 + page * 0x1000);
    }
    trace += "0 dsb ish\n0 tlbi vmalle1is\n0 dsb ish\n0 isb\n";
    for page in half..2 * half {
        let (entry, value) = (first + 8 * page, 0x8000_0783 + page * 0x1000);
        let _ = writeln!(trace, "0 store {entry:#x} {value:#x}\n0 dsb ish");
    }
    trace + "settled\n"
}

#[test]
fn many_mistakes_take_little_memory_and_few_lines() {
    let tables = 80;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(tens_of_thousands_of_mistakes(tables).as_bytes()).unwrap();
    let check = |options: &[&str]| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -v 1000000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_linmap")]);
        limited.args(["check", "--all"]).args(options).arg(file.path()).output().unwrap()
    };
    let output = check(&[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let mistakes = 512 * tables;
    assert!(text.lines().next().unwrap().contains(&format!(": illegal: {mistakes} mistakes (")), "{text}");
    assert!(text.lines().count() < 200, "{text}");
    // The first of each rule are shown, the others are counted.
    assert_eq!(text.matches("the fewest events that show it").count(), 8, "{text}");
    let more = mistakes / 2 - 4;
    for rule in ["output-address", "stale-translation"] {
        assert!(text.contains(&format!("  and {more} more of {rule}: event")), "{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&stdout(&check(&["--json"]))).unwrap();
    assert_eq!((&json["count"], &json["groups"][1]["count"]), (&mistakes.into(), &(mistakes / 2).into()));
    assert_eq!(json["groups"][1]["function"], serde_json::Value::Null);
}

#[test]
fn events_are_shown_of_the_violation_and_not_of_an_event_before() {
    // The ASID is TTBR1's (TCR.A1). A page is mapped elsewhere by break-before-make with a TLBI of
    // that ASID, then once more without.
    let tcr = 16_u64 | 16 << 16 | 1 << 22 | 2 << 30 | 5 << 32 | 1 << 36;
    let mut trace = "machine cpus=1 bbm=0 granule=4K va=48 pa=48\nram 0x40000000 0x10000\n".to_owned();
    for table in 0..5 {
        let _ = writeln!(trace, "0 fill {:#x} count=512 first=0 step=0", 0x4000_0000 + 0x1000 * table);
    }
    for (entry, value) in
        [(0x4000_0000, 0x4000_1003), (0x4000_1000, 0x4000_2003), (0x4000_2000_u64, 0x4000_3003_u64)]
    {
        let _ = writeln!(trace, "0 store {entry:#x} {value:#x}");
    }
    let _ = writeln!(trace, "0 store 0x40003008 0x80000f43\n0 dsb ish\n0 msr tcr_el1 {tcr:#x}\n0 isb");
    trace += "0 msr ttbr1_el1 0x4e000040004000\n0 msr ttbr0_el1 0x40000000\n0 isb\n";
    trace += "0 store 0x40003008 0\n0 dsb ish\n0 tlbi vale1is 0x4e000000000001\n0 dsb ish\n0 isb\n";
    trace += "0 store 0x40003008 0x90000f43\n0 dsb ish\n0 store 0x40003008 0xa0000f43\n";
    for output in [piped(trace.as_bytes(), &["--json"]), {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(trace.as_bytes()).unwrap();
        check(file.path(), &["--json"])
    }] {
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let violation = &json["violations"][0];
        assert_eq!(violation["rule"], "output-address", "{json:#}");
        let events = violation["witness"]["events"].as_array().into_iter().flatten();
        let breaks: Vec<_> = events.filter(|event| event["breaks"] == true).collect();
        assert!(breaks.iter().all(|breaks| breaks["event"] == violation["event"]), "{json:#}");
    }
}

#[test]
fn a_recorded_trace_that_was_cut_off_is_not_legal() {
    let machine: [u8; 15] = [1, 2, 0, 0x80, 0x20, 48, 48, 2, 0x80, 0x80, 0x80, 0x80, 4, 0x80, 0x20];
    let recorded = |rest: &[u8]| [&b"\x93LMTRACE\x01"[..], &machine, rest].concat();
    assert_eq!(piped(&recorded(&[8, 8, 0]), &["-q"]).status.code(), Some(0));
    let output = piped(&recorded(&[8, 8]), &["-q"]);
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(2), 1));
    assert!(stderr(&output).contains("standard input: cut off behind 2 events"), "{}", stderr(&output));
    let json = stdout(&piped(&recorded(&[8, 8]), &["--json"]));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["complete"], false);
}

#[test]
fn a_command_line_of_qemu_without_dashes_is_told_so() {
    let record = |words: &[&str]| linmap().arg("record").args(words).output().unwrap();
    let errors = refused(&record(&["--check", "qemu-system-aarch64", "-M", "virt"]));
    assert!(errors.contains("no `--` before it; write linmap record"), "{errors}");
    let errors = stderr(&record(&[]));
    assert!(errors.contains("linmap record <--check|--out <FILE>> -- <QEMU>..."), "{errors}");
    let errors = refused(&record(&["--plugin", "/dev/null", "--check", "--", "/nonesuch/qemu"]));
    assert!(errors.contains("/nonesuch/qemu: not found; install QEMU 10 or 11"), "{errors}");
}

#[test]
fn a_tlbi_that_has_nothing_to_remove_is_counted() {
    // A page that appears where nothing was, with the TLBI that only a change needs.
    let more = "0 store 0x40001008 0xc0000701\n0 dsb ishst\n0 tlbi vaale1is 0xfff_f800_0200 \
                pc=0x9000\n0 dsb ish\n0 isb\nsettled\n";
    let trace = long(5, &[]) + more;
    let json = stdout(&piped(trace.as_bytes(), &["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"], "legal");
    let tlbis = &json["summary"]["unneeded"][0];
    assert_eq!((&tlbis["kind"], &tlbis["count"], &tlbis["of"]), (&"tlbi".into(), &1.into(), &6.into()));
    assert_eq!(tlbis["functions"][0]["function"], "0x9000");
}

#[test]
fn lines_may_end_with_a_carriage_return() {
    for (name, code) in [("protect-page.trace", 0), ("protect-page-without-tlbi.trace", 1)] {
        let trace = fs::read_to_string(example(name)).unwrap().replace('\n', "\r\n");
        let output = piped(trace.as_bytes(), &[]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    }
}

/// The number of mistakes that `--all` counts in a file.
fn mistakes(trace: &str) -> usize {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(trace.as_bytes()).unwrap();
    let output = check(file.path(), &["--all", "--json", "-q"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["violations"].as_array().unwrap().len()
}

#[test]
fn each_event_left_out_of_a_real_edit_is_one_mistake() {
    let good = fs::read_to_string(example("protect-page.trace")).unwrap();
    assert_eq!(mistakes(&good), 0);
    // An edit of another page behind it, with nothing left out or with one event.
    let second = [
        "0 store 0x13ffd7008 0x60000080001783\n",
        "0 dsb ishst\n",
        "0 tlbi vaale1is 0xff501000001\n",
        "0 dsb ish\n",
        "0 isb\n",
        "settled\n",
    ];
    let without = |nth: Option<usize>| {
        let kept = second.iter().enumerate().filter(|(at, _)| Some(*at) != nth);
        kept.map(|(_, line)| *line).collect::<String>()
    };
    let tlbi = "0 tlbi vaale1is 0xff501000000\n";
    assert!(good.contains(tlbi));
    for (first, made) in [(good.clone(), 0), (good.replace(tlbi, ""), 1)] {
        assert_eq!(mistakes(&(first.clone() + &without(None))), made);
        // The TLBI, or the DSB behind it.
        for nth in [2, 3] {
            assert_eq!(mistakes(&(first.clone() + &without(Some(nth)))), made + 1, "without {}", second[nth]);
        }
    }
}

#[test]
fn access_that_was_taken_back_and_is_cached_when_its_thread_returns_is_counted_by_function() {
    let good = fs::read_to_string(example("protect-page.trace")).unwrap();
    let edit = "0 store 0x13ffd7000 0x60000080000783\n";
    assert!(good.contains(edit));
    let good = good.replace("settled\n", "").replace(edit, &edit.replace('\n', " pc=0x9000\n"));
    let overdue = |trace: &str| {
        let json = stdout(&piped(trace.as_bytes(), &["--json"]));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["verdict"], "legal");
        let overdue = json["summary"]["overdue"].clone();
        (overdue["returns"].as_u64(), overdue["count"].as_u64(), overdue["functions"].clone())
    };
    let returned = "0 user 0xffff800080014000\n";
    assert_eq!(overdue(&(good.clone() + returned)), (Some(1), Some(0), serde_json::json!([])));
    let without: String =
        good.split_inclusive('\n').filter(|line| !line.starts_with("0 tlbi vaale1is")).collect();
    assert_eq!(overdue(&without).0, Some(0));
    let (returns, count, functions) = overdue(&(without.clone() + returned));
    assert_eq!((returns, count), (Some(1), Some(1)));
    assert_eq!((&functions[0]["function"], &functions[0]["of"]), (&"0x9000".into(), &1.into()));
    // The verdict does not depend on it.
    let output = piped((without + returned).as_bytes(), &["-v"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("still cached when its thread returned to EL0: 1 of "), "{text}");
    assert!(text.contains("          1 of 1          0x9000  first event "), "{text}");
}

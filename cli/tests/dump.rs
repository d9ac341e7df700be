//! `linmap dump` of raw memory, as a person runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use linmap_table::{FirstMap, OffsetWindow, Walk, walk};
use linmap_vmsa::{
    Access, Attributes, Descriptor, Execute, Geometry, Granule, Pa, PaRange, Regime, Stage2, Va, VmidSize,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

const RAM: u64 = 0x4000_0000;

fn run(arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linmap"));
    command.arg("dump").args(arguments).env_remove("CLICOLOR_FORCE").output().expect("linmap runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A machine in a file: its memory, and the options that name it and its registers.
struct Machine {
    folder: tempfile::TempDir,
    /// Aligned like the frames that it stands for.
    words: Vec<u64>,
    options: Vec<String>,
}

impl Machine {
    fn new(map: &FirstMap<32>, len: usize) -> (Self, Pa) {
        let geometry = map.geometry();
        let mut room = vec![0; len / 8 + geometry.granule().entries()];
        let image = map.image(Pa(RAM), &mut room).expect("the map fits");
        let mut words: Vec<u64> = image
            .bytes()
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
            .collect();
        words.resize(len / 8, 0);
        let folder = tempfile::tempdir().expect("a folder");
        let memory = format!("{}@{RAM:#x}", folder.path().join("memory").display());
        let mut options = vec!["--memory".to_owned(), memory];
        let mut add = |name: &str, value: u64| options.extend([format!("--{name}"), format!("{value:#x}")]);
        if geometry.regime().is_stage_2() {
            let registers = image.tree().stage_2_registers(7, VmidSize::Bits8).expect("registers");
            add("vttbr", registers.vttbr);
            add("vtcr", registers.vtcr);
            add("hcr", registers.hcr);
        } else {
            let registers = image.tree().registers().expect("registers");
            for (name, value) in [("ttbr0", registers.ttbr0), ("ttbr1", registers.ttbr1)] {
                if let Some(value) = value {
                    add(name, value);
                }
            }
            add("tcr", registers.tcr);
            add("mair", registers.mair);
            let regime = match geometry.regime() {
                Regime::El2 => "el2",
                Regime::El3 => "el3",
                _ => "el1",
            };
            options.extend(["--regime".to_owned(), regime.to_owned()]);
        }
        let root = image.tree().root();
        let machine = Self { folder, words, options };
        machine.write();
        (machine, root)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self) {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        fs::write(self.path("memory"), bytes).expect("the file is written");
    }

    fn set(&mut self, at: u64, word: u64) {
        self.words[((at - RAM) / 8) as usize] = word;
        self.write();
    }

    fn dump(&self, arguments: &[&str]) -> Output {
        let mut all = self.options.clone();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run(&all)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.dump(&[&["--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number"),
        value => value.as_u64().expect("a number"),
    }
}

/// Trees of each regime: granule, VA and PA bits, regime, whether in the upper half.
fn geometries() -> Vec<(Geometry, bool)> {
    let mut all = Vec::new();
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        for (va, pa) in [(39, 40), (42, 44), (48, 48), (52, 52)] {
            let geometry = Geometry::new(granule, va, pa).expect("a geometry");
            all.extend([(geometry, false), (geometry, true)]);
            all.extend([Regime::El2, Regime::El3].map(|regime| (geometry.in_regime(regime), false)));
        }
        for (ipa, pa) in [(40, 40), (44, 48), (48, 48)] {
            all.push((Geometry::stage_2(granule, ipa, pa, Stage2::Base).expect("a geometry"), false));
        }
    }
    all
}

fn access_name(access: Access) -> &'static str {
    match access {
        Access::KernelReadWrite | Access::KernelReadWriteDirty => "RW",
        Access::KernelReadOnly | Access::KernelReadWriteClean => "ro",
        Access::UserReadWrite | Access::UserReadWriteDirty => "RW USR",
        Access::UserReadOnly | Access::UserReadWriteClean => "ro USR",
        Access::GuestNone => "-- GST",
        Access::GuestReadOnly | Access::GuestReadWriteClean => "ro GST",
        Access::GuestWriteOnly => "WO GST",
        Access::GuestReadWrite | Access::GuestReadWriteDirty => "RW GST",
    }
}

fn execute_name(execute: Execute) -> &'static str {
    match execute {
        Execute::Never => "NX",
        Execute::Kernel => "x",
        Execute::User => "UX",
        Execute::Both => "xUX",
    }
}

/// The run of the dump that translates `va`.
fn run_of(runs: &[(u64, u64, Value)], va: u64) -> Option<&(u64, u64, Value)> {
    let before = runs.partition_point(|(first, ..)| *first <= va);
    runs.get(before.checked_sub(1)?).filter(|(first, bytes, _)| va - first < *bytes)
}

#[test]
fn runs_as_json_translate_every_address_as_the_walk_of_the_crate_does() {
    let parts = prop::collection::vec((0u64..0x4_0000, 1u64..900, 0usize..8, any::<bool>()), 1..10);
    let addresses = prop::collection::vec(any::<u64>(), 60);
    let mut runner = TestRunner::deterministic();
    let strategy = (parts, addresses);
    for (geometry, is_upper) in geometries() {
        use proptest::strategy::ValueTree as _;
        let (parts, addresses) = strategy.new_tree(&mut runner).expect("values").current();
        let page = geometry.granule().bytes();
        let base = if is_upper { 0u64.wrapping_sub(1 << geometry.va_bits()) } else { 0 };
        let kinds: Vec<_> = [
            Attributes::KERNEL_DATA,
            Attributes::KERNEL_TEXT,
            Attributes::DEVICE,
            Attributes::USER_TEXT,
            Attributes::GUEST_RAM,
            Attributes::GUEST_DEVICE,
        ]
        .into_iter()
        .filter(|attributes| attributes.check_in(geometry).is_ok())
        .collect();
        let mut map = FirstMap::<32>::new(geometry);
        for &(start, len, kind, is_aligned) in &parts {
            let start = if is_aligned { start & !0x1ff } else { start };
            let pa = PaRange::from_len(Pa(start * page), len * page).expect("a range");
            if ((start + len) * page) >> geometry.va_bits() == 0 && pa.end.0 >> geometry.pa_bits() == 0 {
                map.at(Va(base + start * page), pa, kinds[kind % kinds.len()]).expect("a mapping");
            }
        }
        let (machine, root) = Machine::new(&map, 8 << 20);
        let dump = machine.json(&[]);
        let found = &dump["roots"][0];
        assert_eq!(found["granule"], page, "{geometry:?}");
        assert_eq!(number(&found["first"]), base);
        let runs: Vec<_> = found["runs"]
            .as_array()
            .expect("runs")
            .iter()
            .map(|run| (number(&run["va"]), number(&run["bytes"]), run.clone()))
            .collect();
        let host = machine.words.as_ptr().expose_provenance() as u64;
        // SAFETY: the words stand for memory from `RAM` on, where all tables of the tree lie.
        let mut window = unsafe { OffsetWindow::new(host.wrapping_sub(RAM)) };
        let near = parts.iter().flat_map(|(start, len, ..)| [start * page, (start + len) * page + 8]);
        let all = near.chain(addresses).map(|va| base | va & ((1 << geometry.va_bits()) - 1));
        for va in all {
            // SAFETY: the root is that of the tree, and the window reaches all of it.
            let walked = unsafe { walk(geometry, root, Va(va), &mut window) };
            match (walked, run_of(&runs, va)) {
                (Walk::Fault { .. }, None) => {}
                (Walk::Leaf { pa, level, .. }, Some((first, _, run))) => {
                    let attributes = walked.attributes(geometry).expect("attributes of the crate");
                    assert_eq!(number(&run["pa"]) + (va - first), pa.0, "{geometry:?} {va:#x}");
                    let shown = &run["attributes"];
                    assert_eq!(shown["level"], level.number(), "{geometry:?} {va:#x}");
                    assert_eq!(shown["access"], access_name(attributes.access), "{geometry:?} {va:#x}");
                    assert_eq!(shown["execute"], execute_name(attributes.execute), "{geometry:?} {va:#x}");
                    assert_eq!(shown["contiguous"], attributes.contiguous);
                    assert_eq!(shown["accessed"], attributes.accessed);
                    assert_eq!(shown["global"], attributes.global);
                }
                (walked, run) => panic!("{geometry:?} {va:#x}: {walked:?}, {run:?}"),
            }
        }
    }
}

/// 2 MiB of data by pages that a block could replace, text, and a device, from the upper base on.
fn usual() -> (Machine, Pa) {
    let geometry = Geometry::new(Granule::K4, 39, 48).expect("a geometry");
    let base = 0u64.wrapping_sub(1 << 39);
    let mut map = FirstMap::<32>::new(geometry);
    let range = |start, len| PaRange::from_len(Pa(start), len).expect("a range");
    map.at(Va(base), range(RAM, 4 << 20), Attributes::KERNEL_DATA).expect("data");
    map.at(Va(base + 0x1000), range(RAM + 0x1000, 0x2000), Attributes::KERNEL_RODATA).expect("data");
    map.at(Va(base + (1 << 30)), range(RAM + 0x1000, 0x2000), Attributes::KERNEL_TEXT).expect("text");
    map.at(Va(base + (2 << 30)), range(0x900_0000, 0x1000), Attributes::DEVICE).expect("a device");
    Machine::new(&map, 4 << 20)
}

#[test]
fn a_listing_has_a_line_for_each_run_and_its_findings() {
    let (machine, _) = usual();
    let output = machine.dump(&[]);
    assert_eq!(output.status.code(), Some(0));
    let expected = "\
TTBR1_EL1 0x40000000: EL1&0, 4K pages, 39-bit VA, 48-bit PA, ASID 0, MAIR 0x000000000444f0ff
0xffffff8000000000-0xffffff8000001000 0x000040000000     4K L3   4K     RW NX  ISH G  AF MEM/NORMAL
0xffffff8000001000-0xffffff8000003000 0x000040001000     8K L3   4K     ro NX  ISH G  AF MEM/NORMAL
0xffffff8000003000-0xffffff8000010000 0x000040003000    52K L3   4K     RW NX  ISH G  AF MEM/NORMAL
0xffffff8000010000-0xffffff8000200000 0x000040010000  1984K L3   4K CON RW NX  ISH G  AF MEM/NORMAL
0xffffff8000200000-0xffffff8000400000 0x000040200000     2M L2   2M     RW NX  ISH G  AF MEM/NORMAL
0xffffff8040000000-0xffffff8040002000 0x000040001000     8K L3   4K     ro x   ISH G  AF MEM/NORMAL
0xffffff8080000000-0xffffff8080001000 0x000009000000     4K L3   4K     RW NX  ISH G  AF DEVICE/nGnRE
findings: 0 problems, 0 notes
";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn a_summary_adds_up() {
    let (machine, _) = usual();
    let output = text(&machine.dump(&["--summary"]).stdout);
    let expected = "\
TTBR1_EL1 0x40000000: EL1&0, 4K pages, 39-bit VA, 48-bit PA, ASID 0, MAIR 0x000000000444f0ff
  mapped           4.0M
      2M             2M  49.9 %  1 leaves of L2
      4K CON       1.9M  48.3 %  496 leaves of L3
      4K            76K   1.9 %  19 leaves of L3
  in blocks          2M  49.9 %
  executable         8K   0.2 %
  W+X                0B   0.0 %
  device             4K   0.1 %
  tables            28K          7: 1 of L1, 3 of L2, 3 of L3
findings: 0 problems, 0 notes
";
    assert_eq!(output, expected);
    let json = machine.json(&["--summary"]);
    assert_eq!(json["roots"][0]["summary"]["mapped"], (4 << 20) + 0x3000);
    assert!(json["roots"][0].get("runs").is_none());
}

#[test]
fn one_address_shows_its_walk_level_by_level() {
    let (machine, _) = usual();
    let output = text(&machine.dump(&["--va", "0xffffff8000002abc"]).stdout);
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 5, "{output}");
    assert!(lines[1].starts_with("  L1 entry    0 of 0x000040000000: 0x"), "{output}");
    assert!(lines[3].starts_with("  L3 entry    2 of 0x"), "{output}");
    assert_eq!(lines[4], "0xffffff8000002abc 0x000040002abc L3   4K     ro NX  ISH G  AF MEM/NORMAL");
    let fault = text(&machine.dump(&["--va", "0xffffffffffffffff"]).stdout);
    assert!(fault.ends_with("0xffffffffffffffff translation fault: the entry is invalid\n"), "{fault}");
    let json = machine.json(&["--va", "0xffffff8000002abc"]);
    assert_eq!(number(&json["roots"][0]["walk"]["pa"]), 0x4000_2abc);
}

#[test]
fn a_range_shows_what_it_touches() {
    let (machine, _) = usual();
    for range in ["0xffffff8000001000-0xffffff8000003000", "0xffffff8000001000+8K"] {
        let output = text(&machine.dump(&["--va", range]).stdout);
        assert_eq!(output.lines().count(), 3, "{output}");
        assert!(
            output.contains("0xffffff8000001000-0xffffff8000003000 0x000040001000     8K L3"),
            "{output}"
        );
    }
}

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
1 differences
";
    assert_eq!(text(&part.stdout).split_once('\n').map(|(_, rest)| rest), Some(expected));
    let json = machine.dump(&["--diff", &saved, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["count"], 2);
    assert_eq!(json["differences"][1]["fields"][0]["field"], "access");
}

#[test]
fn without_mair_memory_types_are_shown_by_index() {
    let (machine, _) = usual();
    let mut options = machine.options.clone();
    let at = options.iter().position(|option| option == "--mair").expect("MAIR was given");
    options.drain(at..at + 2);
    let output = text(&run(&options).stdout);
    assert!(output.contains("MAIR unknown: memory types by index"), "{output}");
    assert!(output.contains("MEM/INDEX-3"), "{output}");
}

#[test]
fn what_can_not_be_shown_is_one_line_with_a_hint() {
    let (machine, _) = usual();
    fs::write(machine.path("tree.dtb"), b"\xd0\x0d\xfe\xed\0\0\0\x48").expect("the file is written");
    fs::write(machine.path("empty"), b"").expect("the file is written");
    fs::write(machine.path("text"), b"hello\n").expect("the file is written");
    let path = |name: &str| machine.path(name).to_str().expect("UTF-8").to_owned();
    for (arguments, what) in [
        (vec!["--root", "ttbr0_el2"], "there is no root ttbr0_el2; the guest has ttbr1_el1"),
        (vec!["--va", "0x1000"], "no root translates 0x0000000000001000"),
        (vec!["--va", "x-y"], "is no number"),
        (vec!["--diff", &path("tree.dtb")], "a device tree, not a dump"),
        (vec!["--diff", &path("empty")], "an empty file, not a dump"),
        (vec!["--diff", &path("text")], "no dump as JSON"),
        (vec!["--diff", &path("absent")], "No such file"),
    ] {
        let output = machine.dump(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(what), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(error.starts_with("error: ") && (what == "is no number" || error.lines().count() == 1));
    }
}

#[test]
fn random_memory_is_dumped_without_a_panic() {
    let (machine, _) = usual();
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(any::<u64>(), 1 << 13);
    for _ in 0..10 {
        use proptest::strategy::ValueTree as _;
        let mut words = strategy.new_tree(&mut runner).expect("values").current();
        // Most of it leads into memory.
        for word in words.iter_mut().step_by(2) {
            *word = *word & 0x1fff_0000_0000_ffff | RAM | (*word >> 32 & 0xf000) | 0b11;
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        fs::write(machine.path("memory"), bytes).expect("the file is written");
        for arguments in [&["--json"][..], &["--all"], &["--summary"], &["--va", "0xffffff8000000000"]] {
            let output = machine.dump(arguments);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (machine, _) = usual();
    let tool = Path::new(env!("CARGO_BIN_EXE_linmap")).display().to_string();
    let line = format!("{tool} dump {} | head -1; exit ${{PIPESTATUS[0]}}", machine.options.join(" "));
    let output = Command::new("bash").args(["-c", &line]).output().expect("bash runs");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

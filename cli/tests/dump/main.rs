//! `linmap dump` of raw memory, as a person runs it.

mod compared;
mod machine;

use std::fs;
use std::path::Path;
use std::process::Command;

use linmap_table::{FirstMap, OffsetWindow, Walk, walk};
use linmap_vmsa::{Access, Attributes, Execute, Geometry, Granule, Pa, PaRange, Regime, Stage2, Va};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use machine::{Machine, RAM, number, run, text, usual};

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
      2M             2M  49.9 %  1 leaf of L2
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
fn tagged_addresses_are_translated_where_tbi_is_set() {
    let geometry = Geometry::new(Granule::K4, 39, 48).expect("a geometry");
    for (upper, bit, tagged) in [(0, 37, 0xab00_u64), (0x1ff_ffff << 39, 38, 0xabff)] {
        let mut map = FirstMap::<32>::new(geometry);
        let range = PaRange::from_len(Pa(RAM), 0x3000).expect("a range");
        map.at(Va(upper + 0x1000), range, Attributes::KERNEL_DATA).expect("data");
        let (mut machine, _) = Machine::new(&map, 2 << 20);
        let tagged = tagged << 48 | (upper + 0x1abc) & ((1 << 48) - 1);
        let (va, range) = (format!("{tagged:#x}"), format!("{:#x}+4K", tagged & !0xfff));
        let refused = machine.dump(&["--va", &va]);
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2));
        assert!(error.contains("-0x0000007fffffffff") || error.contains("-0xffffffffffffffff"), "{error}");
        let at = machine.options.iter().position(|option| option == "--tcr").expect("TCR is given") + 1;
        let tcr = number(&Value::from(machine.options[at].as_str())) | 1 << bit;
        machine.options[at] = format!("{tcr:#x}");
        let walk = text(&machine.dump(&["--va", &va]).stdout);
        assert!(walk.contains(&format!("\n{tagged:#018x} 0x000040000abc L3   4K")), "{walk}");
        let listed = text(&machine.dump(&["--va", &range]).stdout);
        let first = upper + 0x1000;
        assert!(
            listed.contains(&format!("\n{first:#018x}-{:#018x} 0x000040000000", first + 0x1000)),
            "{listed}"
        );
        // Bit 55 is no part of the tag: it selects the half.
        let other = machine.dump(&["--va", &format!("{:#x}", tagged ^ 1 << 55)]);
        assert_eq!(other.status.code(), Some(2), "{}", text(&other.stdout));
    }
}

#[test]
fn a_root_that_a_truncated_core_has_lost_is_told_with_the_truncation() {
    let (machine, _) = usual();
    let mut core = b"\x7fELF\x02\x01\x01".to_vec();
    core.resize(16, 0);
    // A core of AArch64 with one program header behind this one.
    core.extend([4, 0, 183, 0, 1, 0, 0, 0]);
    core.extend([0u64, 64, 0].into_iter().flat_map(u64::to_le_bytes));
    core.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, R: 2 MiB from RAM on, of which the file has a page.
    core.extend([1, 0, 0, 0, 4, 0, 0, 0]);
    let load = [0x1000, 0, RAM, 2 << 20, 2 << 20, 0];
    core.extend(load.into_iter().flat_map(u64::to_le_bytes));
    core.resize(0x2000, 0);
    let path = machine.path("core").display().to_string();
    fs::write(&path, core).expect("the file is written");
    let options = [&path, "--ttbr0", "0x40100000", "--tcr", "0x200803510"].map(str::to_owned);
    let output = run(&options);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("TTBR0_EL1 is 0x40100000, where no memory is"), "{error}");
    assert!(error.contains("the core is truncated: 0x1ff000 bytes of memory are missing"), "{error}");
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

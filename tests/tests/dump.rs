//! `linmap dump` beside linmap's own kernel, which is stopped through QEMU's gdb stub.

use std::path::Path;

use linmap_tests::{RunningGuest, address, agree_with_qemu, is_soak, own_image_of, own_image_path};
use serde_json::Value;

/// The kernel at its shell's prompt, with this CPU and these words.
struct Shell {
    guest: RunningGuest,
}

impl Shell {
    fn start(image: &Path, cpu: &str, words: &str) -> Self {
        let path = image.display().to_string();
        let append = format!("linmap.shell {words}");
        let options = format!("-M virt -m 1G -cpu {cpu}");
        let mut guest = RunningGuest::start(&options, &["-kernel", &path, "-append", &append]);
        guest.wait_for(0, |text| text.contains("linmap> "));
        Self { guest }
    }

    #[track_caller]
    fn dump(&self, arguments: &[&str]) -> String {
        self.guest.dump(&[&["--root", "ttbr1_el1"], arguments].concat())
    }

    /// The entry at `level` on the walk of `va`: its physical address and its value.
    fn entry(&self, va: u64, level: u64) -> (u64, u64) {
        let dump: Value =
            serde_json::from_str(&self.dump(&["--json", "--va", &format!("{va:#x}")])).expect("JSON");
        let steps = dump["roots"][0]["walk"]["steps"].as_array().expect("steps").clone();
        let step = steps.iter().find(|step| step["level"] == level).unwrap_or_else(|| panic!("{steps:?}"));
        let index = step["index"].as_u64().expect("an index");
        (address(&step["table"]) + 8 * index, address(&step["entry"]))
    }

    /// Changes the entry at the physical address `at`.
    fn poke(&mut self, at: u64, word: u64) {
        for (byte, value) in (at..).zip(word.to_le_bytes()) {
            self.guest.type_in(&format!("poke {byte:#x} {value}"));
        }
    }
}

/// The lines of a listing that are runs.
fn runs(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| line.starts_with("0xff")).collect()
}

/// Compares the dumps of both, and the tool's with QEMU's walker.
#[track_caller]
fn compare(image: &Path, cpu: &str, words: &str) {
    let mut shell = Shell::start(image, cpu, words);
    let own = shell.guest.type_in("dump");
    let ours = shell.dump(&[]);
    assert!(runs(&own).len() >= 8, "{own}");
    assert_eq!(runs(&ours), runs(&own), "{cpu} {words}");
    assert!(!ours.contains("problem:"), "{ours}");
    // The guest goes on.
    shell.guest.type_in("verify");
    shell.guest.stop_at(1);
    agree_with_qemu(&mut shell.guest, 1, if is_soak() { 10_000 } else { 2_000 });
}

#[test]
fn a_dump_through_the_stub_has_the_lines_of_the_kernels_own() {
    let k4 = own_image_path();
    compare(&k4, "max,midr=0x410fd842", "");
    compare(&k4, "max", "linmap.va_bits=52 linmap.leaf=page linmap.tables=nx");
    let [k16, k64] = ["16k", "64k"].map(own_image_of);
    compare(&k16, "max", "linmap.va_bits=52");
    compare(&k64, "max", "linmap.va_bits=52");
    if is_soak() {
        compare(&k4, "cortex-a72", "linmap.va_bits=39 linmap.leaf=page");
        compare(&k16, "neoverse-n1", "linmap.va_bits=36");
        compare(&k16, "max", "linmap.leaf=page");
        compare(&k64, "cortex-a72", "linmap.va_bits=42");
        compare(&k64, "neoverse-n1", "linmap.leaf=page");
    }
}

#[test]
fn what_is_poked_into_tables_is_found_by_name() {
    const MEMORY: u64 = 0x6000_0000;
    const LINEAR: u64 = 0xffff_0000_2000_0000;
    let mut shell = Shell::start(&own_image_path(), "max,midr=0x410fd842", "linmap.kaslr=off");
    shell.guest.type_in(&format!("reserve {MEMORY:#x} 6M"));
    shell.guest.type_in(&format!("split 3 {MEMORY:#x} 2M"));
    shell.guest.type_in(&format!("split 3 {:#x} 4K", MEMORY + 0x20_0000));
    // One page of the memory a second time, read-only and executable: bits of AP[2] and PXN.
    let (page, value) = shell.entry(LINEAR, 3);
    let (alias, _) = shell.entry(LINEAR + 0x20_0000 - 0x1000, 3);
    shell.poke(alias, (value | 1 << 7) & !(1 << 53 | 1 << 52));
    // A page of a contiguous run loses its access flag.
    let (run, value) = shell.entry(LINEAR + 0x30_5000, 3);
    assert_ne!(value & 1 << 52, 0, "{value:#x} is one of a run");
    shell.poke(run, value & !(1 << 10));
    // The third block becomes a link to the table of the first.
    let (_, table) = shell.entry(LINEAR, 2);
    let (link, _) = shell.entry(LINEAR + 0x40_0000, 2);
    shell.poke(link, table);
    let found = shell.dump(&["--findings"]);
    let line = |kind: &str| {
        let lines: Vec<_> = found.lines().filter(|line| line.starts_with(kind)).collect();
        assert_eq!(lines.len(), 1, "{kind}: {found}");
        lines[0].to_owned()
    };
    let place = |at: u64| format!("entry {} of table {:#x}", at % 0x1000 / 8, at & !0xfff);
    let both = line("  w+x: ");
    assert!(both.contains("0x60000000-0x60001000 is writable by EL1"), "{both}");
    assert!(both.contains(&place(page)) && both.contains(&place(alias)), "{both}");
    let uneven = line("  uneven-run: ");
    assert!(uneven.contains("uneven: its entries differ in AF"), "{uneven}");
    assert!(uneven.contains(&place(run & !0x7f)), "{uneven}");
    let shared = line("  shared-table: ");
    assert!(shared.contains("2 entries") && shared.contains(&place(link)), "{shared}");
    let listing = shell.dump(&["--va", &format!("{:#x}+2M", LINEAR + 0x40_0000)]);
    assert!(listing.contains("L3") || listing.contains("table again"), "{listing}");
}

//! `linmap dump` of Debian's kernels while they run.

use linmap_tests::{RunningGuest, address, agree_with_qemu, archive, file, payload, soak_or_first, tool};
use serde_json::{Value, json};

/// The first program: it sleeps, so that the CPU is idle in the kernel.
const INIT: &str = "#!/busybox sh
/busybox mkdir -p /proc
/busybox mount -t proc proc /proc
/busybox dmesg -n 1
/busybox echo linmap-userspace: ok
while :; do /busybox sleep 1000; done
";

/// A guest whose Linux has started its user space.
struct Linux {
    guest: RunningGuest,
    _initrd: tempfile::NamedTempFile,
}

impl Linux {
    fn start(image: &str, options: &str, append: &str) -> Self {
        let busybox = std::fs::read(payload("busybox/busybox")).expect("a file");
        let initrd = file(&archive(&[("busybox", &busybox), ("init", INIT.as_bytes())]));
        let [kernel, archive] = [payload(&format!("{image}/Image")).as_path(), initrd.path()]
            .map(|path| path.display().to_string());
        let more = ["-kernel", &kernel, "-initrd", &archive, "-append", append];
        let mut guest = RunningGuest::start(options, &more);
        guest.wait_for(0, |text| text.contains("linmap-userspace: ok"));
        Self { guest, _initrd: initrd }
    }
}

/// Kernels and CPUs: with and without LPA2, with pages of 16K, at EL2 under VHE.
const MACHINES: [(&str, &str, u8); 7] = [
    ("linux-6.12", "max", 1),
    ("linux-6.18", "cortex-a72", 1),
    ("linux-6.1", "cortex-a72", 1),
    ("linux-16k", "max", 1),
    ("linux-16k", "neoverse-n1", 1),
    ("linux-6.18", "max", 2),
    ("linux-newest", "max,midr=0x410fd842", 1),
];

#[test]
fn addresses_of_debians_kernels_translate_as_qemu_says() {
    for (image, cpu, el) in soak_or_first(2, &MACHINES) {
        let options =
            format!("-M virt,virtualization={} -m 512M -cpu {cpu}", if *el == 2 { "on" } else { "off" });
        let mut linux = Linux::start(image, &options, "quiet");
        linux.guest.stop_at(*el);
        agree_with_qemu(&mut linux.guest, *el, 10_000);
        if *el == 1 {
            a_core_has_the_same_tables(&mut linux.guest);
        }
    }
}

/// Compares the trees of EL1 of a stopped guest with those in QEMU's own core of it.
#[track_caller]
fn a_core_has_the_same_tables(guest: &mut RunningGuest) {
    let (core, saved) = (guest.path("core"), guest.path("saved"));
    guest.qmp("dump-guest-memory", json!({"paging": false, "protocol": format!("file:{core}")}));
    let running = guest.dump_json(&["--keep-stopped", "--regime", "el1"]);
    std::fs::write(&saved, running.to_string()).expect("a file");
    let mut diff = tool();
    diff.args(["dump", &core, "--diff", &saved]);
    let roots = running["roots"].as_array().expect("roots");
    for (root, option) in roots.iter().zip(["--ttbr0", "--ttbr1"]) {
        // A register with 52 bits of address has the upper ones in bits 5:2.
        let table = address(&root["table"]);
        diff.args([option, &format!("{:#x}", table & !(0xf << 48) | (table >> 48 & 0xf) << 2)]);
    }
    for option in ["tcr", "mair"] {
        diff.args([&format!("--{option}"), roots[0][option].as_str().expect("a value")]);
    }
    let output = diff.output().expect("linmap runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), "0 differences\n"));
}

#[test]
fn addresses_of_xen_translate_as_qemu_says() {
    let image = payload("xen/Image").display().to_string();
    for cpu in soak_or_first(1, &["cortex-a72", "neoverse-n1"]) {
        let options = format!("-M virt,virtualization=on -m 512M -cpu {cpu}");
        let mut guest = RunningGuest::start(&options, &["-kernel", &image, "-append", "noreboot"]);
        // It has no kernel to start, and says so when all of its own tables are made.
        guest.wait_for(0, |text| text.contains("Panic on CPU 0"));
        guest.stop_at(2);
        agree_with_qemu(&mut guest, 2, 10_000);
        let dump = guest.dump(&["--regime", "el2", "--keep-stopped"]);
        assert!(dump.starts_with("TTBR0_EL2 0x") && dump.contains(": EL2, 4K pages, 48-bit VA"), "{dump}");
    }
}

/// A row of the table in docs/figures.md: MiB by leaf size, tables, and the tables that larger
/// leaves would save.
fn leaf_mix(image: &str, cpu: &str) -> (String, Value) {
    let mut linux = Linux::start(image, &format!("-M virt -m 4G -cpu {cpu}"), "quiet nokaslr");
    linux.guest.stop_at(1);
    let dump = linux.guest.dump_json(&["--root", "ttbr1_el1", "--summary"]);
    let summary = dump["roots"][0]["summary"].clone();
    let mut row = format!("| {} | `{cpu}` ", image.trim_start_matches("linux-"));
    for (leaf, contiguous) in
        [(1 << 30, false), (2 << 20, true), (2 << 20, false), (4 << 10, true), (4 << 10, false)]
    {
        let leaves = summary["leaves"].as_array().expect("leaves");
        let found = leaves.iter().find(|of| of["leaf"] == leaf && of["contiguous"] == contiguous);
        let number = |key: &str| found.map_or(0, |of| of[key].as_u64().expect("a number"));
        row += &format!("| {} in {} ", number("bytes") >> 20, number("count"));
    }
    let saved =
        dump["findings"].as_array().expect("findings").iter().find(|of| of["kind"] == "larger-leaves");
    let saved = saved.and_then(|of| of["sum"].as_str()).unwrap_or("nothing");
    (format!("{row}| {} | {saved} |", summary["table_bytes"].as_u64().expect("a number") >> 10), summary)
}

#[test]
fn debians_kernels_map_memory_by_blocks_where_the_cpu_may_split_them() {
    let all = [
        ("linux-6.18", "max,midr=0x410fd842"),
        ("linux-6.18", "cortex-a72"),
        ("linux-6.12", "max,midr=0x410fd842"),
        ("linux-6.12", "cortex-a72"),
        ("linux-6.1", "max,midr=0x410fd842"),
        ("linux-6.1", "cortex-a72"),
    ];
    for (image, cpu) in soak_or_first(1, &all) {
        let (row, summary) = leaf_mix(image, cpu);
        println!("{row}");
        let [blocks, mapped] = ["blocks", "mapped"].map(|key| summary[key].as_u64().expect("a number"));
        let is_split_live = *image == "linux-6.18" && cpu.starts_with("max");
        assert_eq!(blocks > mapped / 2, is_split_live, "{row}");
    }
}

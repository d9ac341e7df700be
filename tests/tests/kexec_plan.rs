//! `linmap kexec plan` beside linmap's own kernel, which loads the same payload in the same memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use linmap_tests::{Boot, Outcome, number, payload, tool};
use serde_json::Value;

const SCRIPT: &str = "mem; kexec load; kexec plan; kexec unload; kexec load --scattered; kexec plan";

/// What boot puts on the line of a payload that it switches off.
const NEXT_LINE: &str = "earlycon panic=-1 linmap_poweroff";

/// A segment: name, destination, and its bytes, those that are moved, in place and cleared.
type Segment = (String, u64, [u64; 4]);

#[test]
fn a_plan_at_the_desk_is_the_plan_of_the_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dtb, initrd) = (folder.path().join("virt.dtb"), folder.path().join("initrd"));
    let layout = folder.path().join("layout.toml");
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args(["-cpu", "max", "-m", "4G", "-display", "none", "-nic", "none", "-M"]);
    let status = qemu.arg(format!("virt,dumpdtb={}", dtb.display())).output().expect("QEMU runs").status;
    assert!(status.success(), "QEMU writes its tree");
    // Not a whole page, with pages of zeros.
    fs::write(&initrd, [vec![0; 0x2000], vec![0x5a; 3_000_000], vec![0; 0x5123]].concat()).expect("room");
    let kernel = payload("linux-6.12/Image");
    let boot = Boot::new("").with("--dtb", &dtb).with("--kernel", &kernel).with("--initrd", &initrd);
    let outcome = boot.with("--script", SCRIPT).run();
    outcome.expect_success();
    fs::write(&layout, layout_of(&outcome.console)).expect("room");
    let plan = |more: &[&str]| -> Value {
        let mut plan = tool();
        plan.args(["kexec", "plan", "--json", "--running", "none", "--append", NEXT_LINE]).arg(&kernel);
        for (option, path) in [("--layout", &layout), ("--dtb", &dtb), ("--initrd", &initrd)] {
            plan.arg(option).arg::<&Path>(path);
        }
        let output = plan.args(more).output().expect("linmap runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let loads = loads_of(&outcome);
    let [in_place, scattered] = &loads[..] else { panic!("two plans: {loads:?}") };
    let planned = plan(&["--scattered"]);
    assert_eq!(segments_of(&planned), *scattered);
    assert!(scattered.iter().take(2).all(|(_, _, bytes)| bytes[1] > 0 && bytes[3] > 0), "{scattered:?}");
    let last =
        outcome.records.iter().rfind(|record| record.get("kexec").is_some_and(|kexec| kexec == "plan"));
    let last = last.expect("the kernel's totals");
    let moves = &planned["moves"];
    for (key, own) in [
        ("extents", "extents"),
        ("lists", "lists"),
        ("list_frames", "list_frames"),
        ("moved_bytes", "moved"),
        ("cleared_bytes", "cleared"),
    ] {
        assert_eq!(moves[key].as_u64(), Some(number(last, own)), "{key}: {moves}");
    }
    // The kernel has its payload in an archive in memory, where an initrd on whole pages stays. At
    // the desk it is loaded behind the kernel.
    let mut planned = segments_of(&plan(&[]));
    assert_ne!(planned[1].1, in_place[1].1);
    planned[1].1 = in_place[1].1;
    assert_eq!(planned, *in_place);
}

/// The machine's memory, as the kernel's `mem` shows it.
fn layout_of(console: &str) -> String {
    let mut layout = String::new();
    for line in console.lines() {
        let mut words = line.split_whitespace();
        let flags = match words.next() {
            Some("memory") => "",
            Some("reserved") => "flags = [\"reserved\"]\n",
            _ => continue,
        };
        let Some((start, end)) = words.next().and_then(|range| range.split_once("..")) else { continue };
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address");
        let size = number(end) - number(start);
        layout += &format!("[[region]]\nstart = {start}\nsize = {size}\n{flags}");
    }
    assert!(layout.contains("reserved"), "{console}");
    layout
}

/// The segments of each plan that the kernel printed.
fn loads_of(outcome: &Outcome) -> Vec<Vec<Segment>> {
    let mut loads = Vec::new();
    for record in outcome.records.iter().filter(|record| record.contains_key("segment")) {
        let name = record["segment"].as_str().expect("a name").to_owned();
        if name == "image" {
            loads.push(Vec::new());
        }
        let bytes = ["bytes", "moved", "in_place", "zero"].map(|key| number(record, key));
        let load: &mut Vec<Segment> = loads.last_mut().expect("the image comes first");
        load.push((name, number(record, "destination"), bytes));
    }
    loads
}

fn segments_of(plan: &Value) -> Vec<Segment> {
    let segments = plan["segments"].as_array().expect("segments").iter();
    let of = |segment: &Value| {
        let name = segment["name"].as_str().expect("a name").to_owned();
        let start = segment["destination"]["start"].as_str().expect("an address");
        let start = u64::from_str_radix(start.trim_start_matches("0x"), 16).expect("an address");
        let keys = ["bytes", "moved_bytes", "in_place_bytes", "cleared_bytes"];
        (name, start, keys.map(|key| segment[key].as_u64().expect("a number")))
    };
    segments.map(of).collect()
}

//! What our kernel says of its edits (`linmap.trace=1`) against what the recorder saw of the same
//! run, event for event where both see it; and two recordings of one boot.
//!
//! Compared are the tables that the log edits, from the moment at which it has them: the stores to
//! them while they are linked, the TLBIs, and the DSBs behind either, each by its CPU and in order.
//! What a table holds is compared when it is freed, and at the end.
//!
//! The log alone has the stores to a table that is not linked yet (the recorder has its content as
//! it is linked), what the kernel relies on, and which frames it frees. The recorder alone has the
//! edits of the kernel's windows and identity maps, and context synchronization by exceptions. DSBs
//! that follow no store to a linked table and no TLBI are in the log alone.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use linmap_tests::{archive, is_soak, own_image_path, recorded_events, tool, workspace};
use linmap_trace::{Event, Line};

/// Records a boot with these options of QEMU's and this command line.
fn record(out: &Path, options: &[&str], line: &str) {
    let mut record = tool();
    record.args(["record", "--out"]).arg(out).args(["--", "qemu-system-aarch64"]);
    record.args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    let output = record.args(options).args(["-append", line]).output().expect("linmap runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The words that an event stores, in ascending order.
fn words(event: &Event) -> Vec<(u64, u64)> {
    match *event {
        Event::Store { pa, value, .. } | Event::Update { pa, value, .. } => vec![(pa, value)],
        Event::Fill { pa, count, first, step, .. } => {
            (0..count).map(|nth| (pa + 8 * nth, first.wrapping_add(step.wrapping_mul(nth)))).collect()
        }
        _ => Vec::new(),
    }
}

fn frame(pa: u64) -> u64 {
    pa & !0xfff
}

/// A word's store, or another event, and its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Store(usize, u64, u64),
    Other(Event),
}

/// What is compared.
fn acts(event: &Event) -> Vec<Act> {
    match event {
        Event::Tlbi { .. } | Event::Dsb { .. } => vec![Act::Other(*event)],
        _ => {
            let cpu = event.cpu().unwrap_or(0);
            words(event).into_iter().map(|(pa, value)| Act::Store(cpu, pa, value)).collect()
        }
    }
}

/// The recording, replayed as far as the log is.
struct Replay<'a> {
    acts: std::slice::Iter<'a, Act>,
    memory: BTreeMap<u64, u64>,
    /// The CPU that stands for memory before the recorder looked.
    observer: usize,
}

impl Replay<'_> {
    /// The next act that the log should have: a store to one of `frames`, or a TLBI; and a DSB that
    /// is `wanted`.
    fn next(&mut self, frames: &HashSet<u64>, wanted: Option<Event>) -> Option<Act> {
        loop {
            let act = *self.acts.next()?;
            match act {
                Act::Store(cpu, pa, value) => {
                    self.memory.insert(pa, value);
                    if cpu != self.observer && frames.contains(&frame(pa)) {
                        return Some(act);
                    }
                }
                Act::Other(Event::Tlbi { .. }) => return Some(act),
                Act::Other(event) if wanted == Some(event) => return Some(act),
                Act::Other(_) => {}
            }
        }
    }
}

/// Compares, and returns how many stores, TLBIs and DSBs were.
fn compare(log: &[Event], recording: Vec<Event>, cpus: usize) -> [usize; 3] {
    let is_tlbi = |event: &Event| matches!(event, Event::Tlbi { .. });
    let first_tlbi = log.iter().position(is_tlbi).expect("changes");
    let is_write = |event: &Event| matches!(event, Event::Write { .. });
    let start = log[..first_tlbi].iter().rposition(is_write).expect("the root is installed") + 1;
    let (before, edits) = log.split_at(start);
    let mut memory: BTreeMap<u64, u64> = before.iter().flat_map(words).collect();
    let edited: HashSet<u64> = edits.iter().flat_map(words).map(|(pa, _)| frame(pa)).collect();
    // Tables that are linked, of those that are edited: at first all that have content.
    let mut linked: HashSet<u64> =
        memory.keys().map(|pa| frame(*pa)).filter(|it| edited.contains(it)).collect();

    // The recording from the first act on: the store before the first TLBI that is its own.
    let all: Vec<Act> = recording.iter().flat_map(acts).collect();
    let opening = edits.iter().flat_map(acts).find(|act| match act {
        Act::Store(_, pa, _) => linked.contains(&frame(*pa)),
        Act::Other(_) => false,
    });
    let opening = opening.expect("a store to a linked table");
    let at = all.iter().rposition(|act| *act == opening);
    let first = all.iter().position(|act| *act == opening).or(at).expect("the recorder has the first store");
    let mut replay = Replay { acts: all[first..].iter(), memory: BTreeMap::new(), observer: cpus };
    for act in &all[..first] {
        if let Act::Store(_, pa, value) = *act {
            replay.memory.insert(pa, value);
        }
    }

    let mut counts = [0; 3];
    let mut is_unordered = false;
    for event in edits {
        if let Event::Free { pa, len } = *event {
            for pa in (pa..pa + len).step_by(0x1000).filter(|it| linked.remove(it)) {
                agree(&mut memory, &replay.memory, pa);
            }
        }
        for act in acts(event) {
            match act {
                Act::Store(_, pa, value) => {
                    memory.insert(pa, value);
                    if !linked.contains(&frame(pa)) {
                        continue;
                    }
                    counts[0] += 1;
                }
                Act::Other(Event::Tlbi { .. }) => counts[1] += 1,
                Act::Other(_) if !is_unordered => continue,
                Act::Other(_) => counts[2] += 1,
            }
            is_unordered = !matches!(act, Act::Other(Event::Dsb { .. }));
            let wanted = Some(*event).filter(|_| !is_unordered);
            assert_eq!(replay.next(&linked, wanted), Some(act), "after {counts:?} stores, TLBIs and DSBs");
            // What it leads to is linked now, if it is one of those.
            if let Act::Store(_, _, value) = act {
                let table = value & 0xffff_ffff_f000;
                if value & 3 == 3 && edited.contains(&table) && memory.contains_key(&table) {
                    linked.insert(table);
                }
            }
        }
    }
    assert_eq!(replay.next(&linked, None), None, "the recorder has more");
    for pa in linked {
        agree(&mut memory, &replay.memory, pa);
    }
    counts
}

/// Both have the same in the table at `table`, which the log forgets.
fn agree(log: &mut BTreeMap<u64, u64>, recording: &BTreeMap<u64, u64>, table: u64) {
    for pa in (table..table + 0x1000).step_by(8) {
        let logged = log.remove(&pa);
        assert_eq!(logged, recording.get(&pa).copied(), "the word at {pa:#x}");
    }
}

#[test]
fn the_recorder_agrees_with_the_kernels_own_log_of_a_stress_run() {
    // At lower levels CPUs are parked, on tables that only one of both has from the start.
    let seeds: &[u32] = if is_soak() { &[0x1a7, 1, 2, 3] } else { &[0x1a7] };
    for seed in seeds {
        let calls = 30;
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let script = format!("stress {calls} {seed}");
        fs::write(path("initrd"), archive(&[("script", script.as_bytes())])).expect("room");
        let (image, initrd) = (own_image_path().display().to_string(), path("initrd").display().to_string());
        let serial = format!("file:{}", path("console").display());
        let options = ["-machine", "virt", "-smp", "2", "-m", "512M", "-cpu", "max,midr=0x410fd842"];
        let options = [&options[..], &["-kernel", &image, "-initrd", &initrd, "-serial", &serial]].concat();
        record(&path("trace"), &options, "linmap.bbm=3 linmap.payload=none linmap.trace=1");
        let console = fs::read(path("console")).expect("the console");
        let console = String::from_utf8_lossy(&console);
        assert!(console.contains("script=ok"), "{console}");
        let texts = console
            .lines()
            .filter_map(|line| line.strip_prefix("linmap: event=\"")?.trim_end().strip_suffix('"'));
        let events = texts.filter_map(|text| match Line::read(text.as_bytes()).expect("an event") {
            Some(Line::Event(recorded)) => Some(recorded.event),
            _ => None,
        });
        let log: Vec<Event> = events.collect();
        let recording = recorded_events(&path("trace")).into_iter().map(|recorded| recorded.event).collect();
        let [stores, tlbis, dsbs] = compare(&log, recording, 2);
        println!("seed {seed}: {stores} stores, {tlbis} TLBIs, {dsbs} DSBs are the same");
        assert!(stores > calls && tlbis > calls / 2 && dsbs > calls / 2, "{stores}, {tlbis}, {dsbs}");
    }
}

/// What a boot does to its tables. When exceptions are taken depends on the host.
fn edits(path: &Path) -> Vec<Event> {
    let events = recorded_events(path).into_iter().map(|recorded| recorded.event);
    events.filter(|event| !matches!(event, Event::Isb { .. })).collect()
}

#[test]
fn two_boots_under_icount_are_recorded_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let initrd = folder.path().join("initrd");
    fs::write(&initrd, archive(&[("script", b"verify")])).expect("room");
    let initrd = initrd.display().to_string();
    let own = own_image_path().display().to_string();
    let linux = workspace().join("target/payload/linux-6.1/Image").display().to_string();
    let mut boots = vec![
        (&own, "1", "max,midr=0x410fd842", "linmap.bbm=3 linmap.payload=none"),
        (&own, "2", "max,midr=0x410fd842", "linmap.bbm=3 linmap.payload=none"),
    ];
    if is_soak() {
        boots.push((&linux, "1", "cortex-a72", "panic=-1"));
    }
    for (image, cpus, cpu, line) in boots {
        let options = ["-machine", "virt,dtb-randomness=off", "-icount", "shift=0", "-seed", "1"];
        let clock = ["-rtc", "base=2026-01-01,clock=vm", "-serial", "null", "-m", "512M"];
        let machine = ["-smp", cpus, "-cpu", cpu, "-kernel", image, "-initrd", &initrd];
        let options = [&options[..], &clock, &machine].concat();
        let recorded = [1, 2].map(|nth| {
            let path = folder.path().join(format!("trace{nth}"));
            record(&path, &options, line);
            let verdict = tool().arg("check").arg(&path).output().expect("linmap runs");
            (edits(&path), verdict.status.code())
        });
        let [first, second] = recorded;
        assert_eq!((first.1, second.1), (Some(0), Some(0)), "{image}, {cpus} CPUs");
        assert!(first.0.len() > 100, "{} edits", first.0.len());
        let (one, other) = (first.0.len(), second.0.len());
        // Linux's timers and its drivers ask the host, so that a run may have a page fault more.
        let is_same = if *image == linux { one.abs_diff(other) < one / 1000 } else { first.0 == second.0 };
        assert!(is_same, "{image}, {cpus} CPUs: {one} and {other} edits");
    }
}

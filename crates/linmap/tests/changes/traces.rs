//! What the kernel prints of its changes: the model reads it, finds it legal, and ends with the
//! tables that there are. With a line left out or out of place it is refused.

use std::ops::{ControlFlow, Range};

use linmap::Protection;
use linmap_live::Global;
use linmap_model::trace::text;
use linmap_model::{Machine, Space, Trace};
use linmap_trace::Line;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, PaRange};

use crate::machine::Running;
use crate::machine::op::Op;
use crate::machine::random::{Random, seed, sequences};
use crate::machine::setting::{Setting, range};

const MIB: u64 = 1 << 20;

/// Every leaf that a CPU walks: address, output, size, descriptor.
fn leaves(machine: &Machine, cpu: usize) -> Vec<(u64, u64, u32, u64)> {
    let mut leaves = Vec::new();
    let _: ControlFlow<()> = machine.leaves(cpu, Space::High, |va, pa, shift, value, _| {
        leaves.push((va, pa, shift, value));
        ControlFlow::Continue(())
    });
    leaves
}

fn read(text: &str) -> Trace {
    text::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs the printed events on another machine, which has to end with the tables of the board.
fn replays(running: &Running) -> Result<(), String> {
    let text = running.editor.trace.as_deref().unwrap_or_default();
    let trace = read(text);
    let mut machine = Machine::new(&trace.config).map_err(|error| error.to_string())?;
    for (nth, event) in trace.events.iter().enumerate() {
        machine.step(event).map_err(|violation| {
            let from = &trace.events[nth.saturating_sub(30)..=nth];
            let from: String = from.iter().map(|event| format!("{event}\n")).collect();
            format!("{violation}, after\n{from}")
        })?;
    }
    for cpu in 0..trace.config.cpus {
        let replayed = leaves(&machine, cpu);
        let real = running.board.with_machine(|board| leaves(board, cpu));
        let differs = replayed.iter().zip(&real).find(|(one, other)| one != other);
        if replayed.len() != real.len() || differs.is_some() {
            return Err(format!(
                "CPU {cpu} has {} leaves, should have {}: {differs:x?}",
                replayed.len(),
                real.len()
            ));
        }
    }
    let [replayed, real] =
        [&machine.tables(0, Space::High), &running.board.with_machine(|board| board.tables(0, Space::High))];
    if replayed != real {
        return Err(format!("{replayed} tables, should be {real}"));
    }
    Ok(())
}

#[test]
fn what_is_printed_of_random_changes_is_legal_and_ends_with_the_same_tables() {
    let seed = seed();
    for nth in 0..sequences(15, 300) {
        let own = seed.wrapping_add(nth);
        let mut random = Random::new(own);
        let setting = Setting::random(&mut random);
        let mut running = Running::new(&setting, random.number(), false);
        running.start_trace();
        let mut ops = Vec::new();
        for _ in 0..12 {
            let op = running.random_op(&mut random);
            ops.push(op);
            if running.call(op).is_ok() {
                running.note(op);
            }
        }
        if let Err(reason) = running.agree().and_then(|()| replays(&running)) {
            panic!("LINMAP_SEED={own}: {reason}\nof {ops:#x?}\non {setting:x?}");
        }
    }
}

/// A CPU that stops and one that starts later, with a change in between.
#[test]
fn a_cpu_that_stops_and_starts_again_is_printed_too() {
    let setting = Setting::joined().with_bbm(BbmLevel::L0);
    let mut running = Running::new(&setting, 1, false);
    running.start_trace();
    let mut text = running.editor.trace.take().expect("a trace");
    let mut line = |line: Line| text.push_str(&format!("{line}\n"));
    let tree = running.editor.traced_tree();
    tree.stops(&mut line, 1);
    tree.starts(&mut line, 1);
    running.editor.trace = Some(text);
    running.call(Op::Split(range(0x4100_0000, MIB), Level::L3)).expect("a split");
    replays(&running).expect("a legal trace");
}

/// The trace of one change, with what was before it, as lines.
struct Lines {
    before: Vec<String>,
    change: Vec<String>,
}

impl Lines {
    fn of(setting: &Setting, first: &[Op], op: Op) -> Self {
        let mut running = Running::new(setting, 1, false);
        running.start_trace();
        for op in first {
            running.call(*op).unwrap_or_else(|error| panic!("{op:x?}: {error}"));
        }
        let split = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<String>>();
        let before = split(running.editor.trace.as_deref().unwrap_or_default());
        running.call(op).unwrap_or_else(|error| panic!("{op:x?}: {error}"));
        let all = split(running.editor.trace.as_deref().unwrap_or_default());
        replays(&running).expect("a legal trace");
        let change = all[before.len()..].to_vec();
        Self { before, change }
    }

    fn is_legal(&self, change: &[String]) -> bool {
        let text: String = self.before.iter().chain(change).map(|line| format!("{line}\n")).collect();
        read(&text).check().expect("a machine that can be").is_ok()
    }

    /// The change without some of its lines.
    fn without(&self, lines: Range<usize>) -> Vec<String> {
        let mut change = self.change.clone();
        change.drain(lines);
        change
    }

    /// Barriers one by one, and the invalidations between two barriers together. When a block is
    /// folded at level 3, one of the invalidations for its pages may be left out, since the
    /// translation that stays cached is identical.
    fn barriers_and_invalidations(&self) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for nth in self.all(&["0 dsb", "0 tlbi"]) {
            let tlbi = self.change[nth].starts_with("0 tlbi");
            match found.last_mut() {
                Some(last) if tlbi && last.end == nth && self.change[last.start].starts_with("0 tlbi") => {
                    last.end = nth + 1;
                }
                _ => found.push(nth..nth + 1),
            }
        }
        found
    }

    /// Where the lines are that begin with one of `starts`.
    fn all(&self, starts: &[&str]) -> Vec<usize> {
        let is = |line: &String| starts.iter().any(|start| line.starts_with(start));
        (0..self.change.len()).filter(|nth| is(&self.change[*nth])).collect()
    }
}

/// Changes at level 3, live.
fn live_changes() -> Vec<(&'static str, Lines)> {
    let setting = Setting::joined();
    let page = range(0x4123_4000, 0x1000);
    let read_only = Op::Protect(page, Protection::ReadOnly);
    let table = range(0x4120_0000, 2 * MIB);
    vec![
        ("split and protect", Lines::of(&setting, &[], read_only)),
        ("protect and fold", Lines::of(&setting, &[read_only], Op::Protect(page, Protection::ReadWrite))),
        ("fold", Lines::of(&setting, &[Op::Split(table, Level::L3)], Op::Fold(table))),
        ("unmap", Lines::of(&setting, &[Op::Split(table, Level::L3)], Op::Remove(table))),
    ]
}

#[test]
fn a_live_change_without_one_of_its_barriers_or_invalidations_is_refused() {
    for (name, lines) in live_changes() {
        assert!(lines.is_legal(&lines.change), "{name}");
        for part in lines.barriers_and_invalidations() {
            let first = &lines.change[part.start];
            assert!(!lines.is_legal(&lines.without(part.clone())), "{name} without lines {part:?}, {first}");
        }
    }
}

#[test]
fn a_live_change_out_of_order_is_refused() {
    for (name, lines) in live_changes() {
        // Each DSB before the invalidations that it waits for, or after those that wait for it.
        for tlbis in lines.barriers_and_invalidations() {
            if !lines.change[tlbis.start].starts_with("0 tlbi") {
                continue;
            }
            for (from, to) in [(tlbis.start - 1, tlbis.end - 1), (tlbis.end, tlbis.start)] {
                let mut change = lines.change.clone();
                let dsb = change.remove(from);
                change.insert(to, dsb.clone());
                assert!(dsb.starts_with("0 dsb"), "{name}: {dsb}");
                assert!(!lines.is_legal(&change), "{name}: {dsb} at {to} instead of {from}");
            }
        }
        // Each frame freed before the invalidations.
        if let Some(tlbi) = lines.all(&["0 tlbi"]).first() {
            for nth in lines.all(&["free"]) {
                let mut change = lines.change.clone();
                let free = change.remove(nth);
                change.insert(*tlbi, free);
                assert!(!lines.is_legal(&change), "{name}: {}", lines.change[nth]);
            }
        }
    }
}

#[test]
fn a_parked_change_for_which_not_all_leave_as_they_have_to_is_refused() {
    let setting = Setting { cpus: 3, ..Setting::joined().with_bbm(BbmLevel::L0) };
    let changes = [
        ("split", Lines::of(&setting, &[], Op::Split(range(0x4100_0000, MIB), Level::L3))),
        ("global", Lines::of(&setting, &[Op::Global(Global::NonGlobal)], Op::Global(Global::Global))),
    ];
    for (name, lines) in &changes {
        assert!(lines.is_legal(&lines.change), "{name}");
        let leaves = &lines.change;
        for cpu in 1..3 {
            // A CPU that stays: without the five lines by which it leaves, and the two by which it
            // returns.
            let away = lines.all(&[&format!("{cpu} ")]);
            let mut change: Vec<String> = Vec::new();
            change.extend((0..leaves.len()).filter(|nth| !away.contains(nth)).map(|nth| leaves[nth].clone()));
            assert!(!lines.is_legal(&change), "{name}: CPU {cpu} stays");
            // One that leaves without its TLBI, or does not wait for it.
            for start in [format!("{cpu} tlbi"), format!("{cpu} dsb")] {
                let nth = lines.all(&[&start])[0];
                assert!(
                    !lines.is_legal(&lines.without(nth..nth + 1)),
                    "{name}: without {}",
                    lines.change[nth]
                );
            }
        }
        // Nothing of the plan is ordered when the CPUs come back.
        let ordered = lines.all(&["0 dsb ish"]);
        let mut change = lines.change.clone();
        for nth in ordered.into_iter().rev() {
            change.remove(nth);
        }
        assert!(!lines.is_legal(&change), "{name}: nothing is ordered");
    }
}

#[test]
fn lines_of_memory_that_comes_later_can_be_read() {
    let mut running = Running::new(&Setting::joined(), 1, false);
    running.start_trace();
    let end = running.setting.tables.end.0;
    let come = PaRange::new(linmap_vmsa::Pa(end), linmap_vmsa::Pa(end + 64 * MIB));
    running.call(Op::Add(come)).expect("memory that was not there");
    // Its tables come from the end of memory, which is there now.
    running.call(Op::Split(come, Level::L3)).expect("a split");
    replays(&running).expect("a legal trace");
}

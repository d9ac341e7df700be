//! Random changes of the linear map on the machine model: protect, split, fold, global, repaint,
//! memory that is added and removed, live where the CPUs allow it and parked where not. The machine
//! objects to nothing, the tables agree with a plain record, and when all is undone the leaves are
//! as they were built.
//!
//! `LINMAP_SEQUENCES` sets how many sequences the test runs, `LINMAP_SEED` where the random numbers
//! begin.

use std::fmt::Write as _;
use std::io::Write as _;

use linmap_model::Event;
use linmap_model::event::Use;
use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, PaRange};

use crate::machine::Running;
use crate::machine::cpus::InUse;
use crate::machine::op::{Op, Wrong, address_in};
use crate::machine::random::{Random, seed, sequences};
use crate::machine::setting::Setting;

/// How many calls a sequence has.
const CALLS: usize = 14;

#[derive(Default)]
struct Tally {
    changed: u64,
    refused: u64,
    parked: u64,
}

/// Makes one call among the accesses of all CPUs, and compares its effect with the expected one.
fn step(running: &mut Running, op: Op, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
    let wrong = running.wrong(op);
    let page = running.setting.page();
    let cpus = running.setting.cpus as u64;
    // Places at and around the range, and one anywhere.
    let ram = random.pick(&running.setting.ram);
    let mut places = vec![address_in(random, ram, page)];
    if let Some(range) = op.range().filter(|range| range.len() >= page && range.end.0 < 1 << 46) {
        let last = range.end.0.saturating_sub(page);
        let middle = (range.start.0 + range.len() / 2) / page * page;
        places.extend([range.start.0, last, middle, range.end.0, range.start.0.saturating_sub(page)]);
    }
    let first = running.layout.memstart().0;
    let mut vas: Vec<u64> = places
        .into_iter()
        .filter(|pa| *pa >= first)
        .map(|pa| running.shadow.linear(linmap_vmsa::Pa(pa)) / page * page)
        .collect();
    if let Some(range) = op
        .range()
        .filter(|range| running.setting.image.overlaps(*range) && running.setting.image.covers(*range))
    {
        vas.push(running.shadow.own(range.start));
    }
    // CPUs keep accessing what the call does not touch during the edit: some of it at any moment,
    // some at random moments.
    let mut uses = Vec::new();
    for va in &vas {
        let cpu = random.below(cpus) as usize;
        let accesses = running.untouched(op, cpu, *va);
        let read = accesses.iter().any(|event| matches!(event, Event::Access { kind: Use::Read, .. }));
        if read && random.percent(50) {
            running.board.event(Event::Isb { cpu });
            let in_use = InUse { va: *va, len: page, kind: Use::Read };
            if !uses.contains(&(cpu, in_use)) {
                running.editor.cpus.starts_to_use(&running.board, cpu, in_use);
                uses.push((cpu, in_use));
            }
        }
        let cpu = 1 + random.below(cpus - 1) as usize;
        running.board.event(Event::Isb { cpu });
        let accesses = running.untouched(op, cpu, *va);
        running.editor.cpu.bystanders.borrow_mut().accesses.extend(accesses);
    }
    let result = running.call(op);
    running.editor.cpu.bystanders.borrow_mut().accesses.clear();
    for (cpu, in_use) in uses {
        running.editor.cpus.ends_to_use(&running.board, cpu, in_use);
    }
    running.board.verdict().map_err(|violation| violation.to_string())?;
    match result {
        Ok(changed) => {
            if let Some(wrong) = wrong.first() {
                return Err(format!("done, and should have been refused: {wrong:x?}"));
            }
            tally.changed += 1;
            tally.parked += changed.parked;
            parks_only_where_it_must(running, op, changed.parked)?;
            sizes(running, op)?;
            running.note(op);
        }
        Err(error) => {
            tally.refused += 1;
            if !wrong.contains(&Wrong::of(&error)) {
                return Err(format!("refused, which should have been {wrong:x?}: {error} ({error:x?})"));
            }
        }
    }
    // A removed translation is gone for every CPU. A new one is there for a CPU that synchronises
    // its context first.
    for va in vas {
        for cpu in 0..running.setting.cpus {
            for access in running.accesses(cpu, va) {
                if matches!(access, Event::Access { .. }) {
                    running.board.event(Event::Isb { cpu });
                }
                running.board.event(access);
            }
        }
    }
    running.agree()
}

/// At level 3, only calls without a live form park.
fn parks_only_where_it_must(running: &Running, op: Op, parked: u64) -> Result<(), String> {
    let live = running.setting.bbm == BbmLevel::L3 || running.setting.leaves == Leaves::Pages;
    let never = matches!(op, Op::Global(_) | Op::Repaint);
    if parked > 0 && live && !never { Err(format!("parked {parked} times")) } else { Ok(()) }
}

/// After a split no leaf is larger than asked for, after a repaint all are pages.
fn sizes(running: &Running, op: Op) -> Result<(), String> {
    let (range, to) = match op {
        Op::Split(range, to) => (range, to),
        Op::Repaint => (PaRange::new(running.layout.memstart(), running.setting.tables.end), Level::L3),
        _ => return Ok(()),
    };
    let first = running.layout.linear(range.start).0;
    let last = first + (range.len() - 1);
    let most = running.setting.geometry.shift(to);
    let large = running.leaf_shapes().into_iter().find(|&(va, shift, run)| {
        va <= last && first <= va + ((1 << shift) - 1) && (shift > most || shift == most && run)
    });
    match large {
        Some((va, shift, run)) => {
            Err(format!("{va:#x} is a leaf of {:#x} bytes, in a run: {run}", 1u64 << shift))
        }
        None => Ok(()),
    }
}

/// Everything back as it was, folded: the leaves and the frames are those of the build.
fn undo(running: &mut Running, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
    for op in running.undo() {
        step(running, op, random, tally).map_err(|reason| format!("undoing, {op:x?}: {reason}"))?;
    }
    for range in running.shadow.mapped() {
        step(running, Op::Fold(range), random, tally)
            .map_err(|reason| format!("folding {range} in the end: {reason}"))?;
    }
    Ok(())
}

fn run(setting: &Setting, seed: u64, record: bool, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut running = Running::new(setting, random.number(), record);
    let built = running.leaf_shapes();
    let frames = running.frames_out();
    let memory = running.shadow.mapped();
    let mut log = String::new();
    for _ in 0..CALLS {
        let op = running.random_op(&mut random);
        let _ = writeln!(log, "{op:x?}");
        if let Err(reason) = step(&mut running, op, &mut random, tally) {
            let plan = running.editor.plans.last().map_or("", |plan| plan);
            return Err(format!("{reason}\nafter\n{log}last plan:\n{plan}{}", last_events(&running)));
        }
    }
    undo(&mut running, &mut random, tally).map_err(|reason| format!("{reason}\nafter\n{log}"))?;
    if running.map.leaves() != setting.leaves || running.shadow.mapped() != memory {
        // Repainted: only pages are left. Or tables lie in memory that was added, which therefore
        // stays.
        return Ok(());
    }
    let (start, end) =
        (running.layout.linear(setting.image.start).0, running.layout.linear(setting.image.end).0);
    let other = |shape: &&(u64, u32, bool)| !(start..end).contains(&shape.0);
    let folded = running.leaf_shapes();
    let difference = built.iter().filter(other).zip(folded.iter().filter(other)).find(|(was, is)| was != is);
    if let Some((was, is)) = difference {
        return Err(format!("when all is undone, {was:x?} is {is:x?}\nafter\n{log}"));
    }
    // The alias of the image's text stays split where it was split.
    if built == folded && running.frames_out() != frames {
        return Err(format!("{frames} frames were out, {} are\nafter\n{log}", running.frames_out()));
    }
    Ok(())
}

/// The end of what happened, when it was recorded.
fn last_events(running: &Running) -> String {
    let events = running.board.trace().map(|trace| trace.events).unwrap_or_default();
    let last = &events[events.len().saturating_sub(60)..];
    last.iter().map(|event| format!("{event}\n")).collect()
}

#[test]
fn random_changes_are_legal_and_right_and_can_be_undone() {
    let seed = seed();
    let mut tally = Tally::default();
    // The seed is printed for a test that passes, too. A failed write is ignored.
    let sequences = sequences(50, 1000);
    let _ = writeln!(std::io::stderr(), "LINMAP_SEED={seed} LINMAP_SEQUENCES={sequences}");
    for nth in 0..sequences {
        let own = seed.wrapping_add(nth);
        let mut random = Random::new(own);
        let setting = Setting::random(&mut random);
        let own_seed = random.number();
        if run(&setting, own_seed, false, &mut tally).is_err()
            && let Err(reason) = run(&setting, own_seed, true, &mut tally)
        {
            panic!("LINMAP_SEED={own}: {reason}\n{setting:#x?}");
        }
    }
    let Tally { changed, refused, parked } = tally;
    let _ = writeln!(std::io::stderr(), "{changed} changes, {parked} of them parked; {refused} refused");
    assert!(changed > 2 * refused, "most calls have to be ones that can be made");
    assert!(parked > 0);
}

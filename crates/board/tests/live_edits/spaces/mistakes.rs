//! Deliberate mistakes in what the kernel does, one at a time: the machine finds every one.

use std::ops::Range;

use linmap_asid::IdAllocator;
use linmap_model::event::{Tlbi, TlbiScope};
use linmap_model::{Event, Trace};
use linmap_vmsa::Geometry;

use super::kernel::{CPUS, Kernel};

/// How many switches follow each other: enough for several rollovers, and for each space to run.
const SWITCHES: usize = 120;

/// Two CPUs: a fork, writes to shared pages, an unmapped page whose frame another process gets,
/// rollovers. Returns the events, and how many of them have been relied on before they end.
fn story() -> (Trace, usize) {
    let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
    let mut kernel = Kernel::new(&ids, Geometry::K4_48, 2, 9);
    share(&mut kernel).unwrap();
    roll_over(&mut kernel).unwrap();
    let relied_on = kernel.trace().events.len();
    roll_over(&mut kernel).unwrap();
    assert!(ids.generation() > 6, "{}", ids.generation());
    let trace = kernel.trace();
    assert!(trace.check().unwrap().is_ok());
    (trace, relied_on)
}

fn look(kernel: &Kernel<'_>) -> Result<(), String> {
    (0..2).try_for_each(|cpu| kernel.look(cpu))
}

fn share(kernel: &mut Kernel<'_>) -> Result<(), String> {
    (0..2).try_for_each(|cpu| kernel.switch(cpu, 0))?;
    [0, 1, 4].into_iter().try_for_each(|page| kernel.map(0, page))?;
    look(kernel)?;
    kernel.fork(0, 1)?;
    look(kernel)?;
    // The parent's own copy.
    kernel.write(0, 0)?;
    look(kernel)?;
    // The child has the page alone now.
    (0..2).try_for_each(|cpu| kernel.switch(cpu, 1))?;
    look(kernel)?;
    kernel.write(1, 0)?;
    look(kernel)?;
    // A page, and one that takes its table with it.
    for page in [1, 4] {
        kernel.unmap(0, page)?;
        look(kernel)?;
    }
    Ok(())
}

fn roll_over(kernel: &mut Kernel<'_>) -> Result<(), String> {
    for switch in 0..SWITCHES {
        kernel.switch(switch % 2, switch * 5 % 9)?;
        kernel.map(switch % 2, 2)?;
        look(kernel)?;
    }
    Ok(())
}

/// The events that follow each other without anything but invalidations and barriers, by the index
/// of each first invalidation.
fn invalidations(events: &[Event]) -> Vec<Range<usize>> {
    let is_part = |event: &Event| matches!(event, Event::Tlbi { .. } | Event::Dsb { .. } | Event::Isb { .. });
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let is_behind = found.last().is_some_and(|last| last.end == at);
        match (is_part(event), is_behind) {
            (true, true) => {
                if let Some(last) = found.last_mut() {
                    last.end = at + 1;
                }
            }
            (true, false) if matches!(event, Event::Tlbi { .. }) => found.push(at..at + 1),
            _ => {}
        }
    }
    found
}

/// Whether the machine finds `mistake`, made in the invalidations of one edit or switch.
fn finds(trace: &Trace, at: &Range<usize>, mistake: impl Fn(&Event) -> Option<Event>) -> bool {
    let mut events = trace.events[..at.start].to_vec();
    events.extend(trace.events[at.clone()].iter().filter_map(mistake));
    events.extend(&trace.events[at.end..]);
    Trace { events, ..trace.clone() }.check().unwrap().is_err()
}

/// Whether a switch made these invalidations, and not an edit.
fn is_switch(event: &Event) -> bool {
    matches!(event, Event::Tlbi { tlbi, .. } if tlbi.scope == TlbiScope::AllEl1)
}

#[test]
fn an_invalidation_that_is_left_out_is_found() {
    let (trace, relied_on) = story();
    let (mut edits, mut switches) = (0, 0);
    for at in invalidations(&trace.events[..relied_on]) {
        let without = |event: &Event| (!matches!(event, Event::Tlbi { .. })).then_some(*event);
        // Without a DSB nothing completes it.
        let unfinished = |event: &Event| (!matches!(event, Event::Dsb { .. })).then_some(*event);
        let found = finds(&trace, &at, without) && finds(&trace, &at, unfinished);
        if is_switch(&trace.events[at.start]) {
            // The CPU may come to no identifier that it holds entries of before it invalidates
            // again.
            switches += usize::from(found);
        } else {
            assert!(found, "{:?}", &trace.events[at]);
            edits += 1;
        }
    }
    assert!(edits > 5 && switches > 0, "{edits} edits, {switches} switches");
}

#[test]
fn an_invalidation_that_other_cpus_do_not_see_or_that_names_another_asid_is_found() {
    let (trace, relied_on) = story();
    let all = invalidations(&trace.events[..relied_on]);
    for at in all.iter().filter(|at| !is_switch(&trace.events[at.start])) {
        let changed = |change: fn(Tlbi, u64) -> (Tlbi, u64)| {
            move |event: &Event| match *event {
                Event::Tlbi { cpu, tlbi, operand } => {
                    let (tlbi, operand) = change(tlbi, operand);
                    Some(Event::Tlbi { cpu, tlbi, operand })
                }
                other => Some(other),
            }
        };
        let local = changed(|tlbi, operand| (Tlbi { broadcast: false, ..tlbi }, operand));
        assert!(finds(&trace, at, local), "{:?}", &trace.events[at.clone()]);
        let other = changed(|tlbi, operand| (tlbi, operand ^ 1 << 48));
        assert!(finds(&trace, at, other), "{:?}", &trace.events[at.clone()]);
    }
}

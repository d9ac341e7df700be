//! A mistake, shown by as few events as possible.

use std::fmt::{self, Display, Formatter};

use linmap_trace::{Event, Register};

use crate::config::ConfigError;
use crate::culprit::{Culprit, Misses};
use crate::machine::Machine;
use crate::minimise::minimise_keeping;
use crate::miss::Miss;
use crate::scope::{Context, Scope};
use crate::trace::Trace;
use crate::violation::Violation;

/// A trace that breaks a rule and from which no event can be dropped: without any one of them the
/// same rule is not broken at the same place, unless it would take too long to find out. The
/// exceptions are invalidations and barriers that missed, and the store that they should have
/// followed, which are kept to be explained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// The events that matter, on the same machine.
    pub trace: Trace,
    /// What they break; its event is one of theirs.
    pub violation: Violation,
    /// The number of each event in the trace that the witness is of.
    pub numbers: Vec<usize>,
    /// The TLBIs and DSBs since the entry in question was overwritten, or its tree left, that did
    /// not do away with it, in order.
    pub missed: Vec<Missed>,
    /// The number of TLBIs that are left out because they name addresses further away.
    pub left_out: usize,
    /// A note on each event, such as the level and address of the entry that it stores.
    pub notes: Vec<Option<String>>,
}

/// A TLBI or DSB that did not do away with what is still held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Missed {
    /// The index of the event.
    pub event: usize,
    /// The reason.
    pub why: Miss,
}

/// What a reduction may cost: this, and so often what the whole trace does. Behind that, which
/// takes a second or two, the events stay that are left.
const MOST_SPENT: u64 = 1 << 24;
const TIMES_SPENT: u64 = 64;

/// What it costs to run a trace, in events. Words of a fill cost less than stores.
fn cost(trace: &Trace) -> u64 {
    let of = |event: &Event| match event {
        Event::Fill { count, .. } => 1 + count / 16,
        _ => 1,
    };
    trace.events.iter().map(of).fold(0, u64::saturating_add)
}

/// The most TLBIs of other addresses, and the most other events, that a witness keeps.
const MOST: usize = 16;

impl Trace {
    /// The mistake in the trace, if it has one, shown by the fewest events that break the rule,
    /// with every TLBI and DSB that should have prevented it.
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn witness(&self) -> Result<Option<Witness>, ConfigError> {
        self.witness_with(&[])
    }

    /// As [`witness`](Self::witness), but the events with the numbers `shown`, in ascending order,
    /// are never left out.
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn witness_with(&self, shown: &[usize]) -> Result<Option<Witness>, ConfigError> {
        let Err(found) = self.check()? else { return Ok(None) };
        let (all, culprit) = self.misses()?;
        let mut kept = kept(&all, culprit.as_ref());
        kept.extend(shown.iter().filter(|event| **event <= found.event));
        // The event that breaks the rule: without others an earlier one may break it, too.
        kept.push(found.event);
        kept.sort_unstable();
        kept.dedup();
        let addresses = |events: &mut dyn Iterator<Item = usize>| {
            events.filter(|event| matches!(self.events.get(*event), Some(Event::Tlbi { .. }))).count()
        };
        let left_out =
            addresses(&mut all.iter().map(|(event, _)| *event).filter(|event| !kept.contains(event)));
        let reasons = |misses: &[(usize, Option<Miss>)], kept: &[usize]| -> Vec<_> {
            let of = |event: &usize| misses.iter().find(|(other, _)| other == event);
            kept.iter().map(|event| of(event).map(|(_, why)| *why)).collect()
        };
        let expected = reasons(&all, &kept);
        let (mut spent, most) = (0_u64, cost(self).saturating_mul(TIMES_SPENT).saturating_add(MOST_SPENT));
        let (trace, numbers) = minimise_keeping(self, &kept, |trace, kept| {
            spent = spent.saturating_add(cost(trace));
            // What was kept has to miss the same for the same reasons.
            spent <= most
                && matches!(trace.check(), Ok(Err(violation)) if violation.same_mistake(&found)
                    && kept.last() == Some(&violation.event))
                && (kept.len() == 1
                    || trace.misses().is_ok_and(|(misses, _)| reasons(&misses, kept) == expected))
        });
        let violation = trace.check()?.err().unwrap_or(found);
        let (misses, _) = trace.misses()?;
        let missed =
            misses.into_iter().filter_map(|(event, why)| Some(Missed { event, why: why? })).collect();
        let notes = notes(&trace)?;
        Ok(Some(Witness { trace, violation, numbers, missed, left_out, notes }))
    }

    /// Every TLBI and DSB since what is held was overwritten or left, and what is held.
    fn misses(&self) -> Result<(Misses, Option<Culprit>), ConfigError> {
        let mut machine = Machine::new(&self.config)?;
        let broken = self.events.iter().find_map(|event| machine.step(event).err());
        let Some(violation) = broken else { return Ok((Vec::new(), None)) };
        let culprit = Culprit::of(&machine, &self.events, &violation);
        let misses = match &culprit {
            Some(culprit) => culprit.misses(Machine::new(&self.config)?, &machine, &self.events),
            None => Vec::new(),
        };
        Ok((misses, culprit))
    }
}

/// The events among `misses` that a witness keeps: of TLBIs that name other addresses the nearest,
/// of all else the last.
fn kept(misses: &[(usize, Option<Miss>)], culprit: Option<&Culprit>) -> Vec<usize> {
    let Some(culprit) = culprit else { return Vec::new() };
    let elsewhere = |miss: &Option<Miss>| matches!(miss, Some(Miss::OtherAddress { .. }));
    let (mut far, near): (Vec<_>, Vec<_>) = misses.iter().partition(|(_, miss)| elsewhere(miss));
    far.sort_by_key(|(_, miss)| miss.map_or(0, |miss| culprit.distance(&miss)));
    far.truncate(MOST);
    let mut kept: Vec<usize> =
        near.iter().rev().take(2 * MOST).chain(&far).map(|(event, _)| *event).collect();
    kept.sort_unstable();
    kept
}

/// A note on each event of `trace`.
fn notes(trace: &Trace) -> Result<Vec<Option<String>>, ConfigError> {
    let mut machine = Machine::new(&trace.config)?;
    let mut notes: Vec<Option<String>> = vec![None; trace.events.len()];
    for event in &trace.events {
        let stop = machine.step(event).is_err();
        // A later event may link the table that a store belongs to.
        for (note, event) in notes.iter_mut().zip(&trace.events) {
            let (Event::Store { pa, .. } | Event::Update { pa, .. } | Event::Fill { pa, .. }) = *event else {
                continue;
            };
            if note.is_none() {
                machine.each_place(pa, |place| {
                    *note = Some(format!("level {} entry for {:#x}", place.level, place.va));
                });
            }
        }
        if stop {
            break;
        }
    }
    for (note, event) in notes.iter_mut().zip(&trace.events) {
        *note = match *event {
            Event::Tlbi { cpu, tlbi, operand } => {
                let context = Context { is_host: machine.is_host(cpu), vmid: None };
                let range = Scope::of(tlbi, operand, &machine.shapes, context).range;
                range.map(|(from, last)| format!("{from:#x} to {last:#x}"))
            }
            Event::Write {
                register:
                    Register::Ttbr0
                    | Register::Ttbr1
                    | Register::Ttbr0El2
                    | Register::Ttbr1El2
                    | Register::Ttbr0El3
                    | Register::Vttbr,
                value,
                ..
            } => Some(format!("root {:#x}", value & 0xffff_ffff_fffe)),
            _ => note.take(),
        };
    }
    Ok(notes)
}

impl Display for Witness {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Violation { rule, cpu, va, pa, old, new, event } = self.violation;
        writeln!(f, "{rule}")?;
        let lines: Vec<String> = self.trace.events.iter().map(Event::to_string).collect();
        let width = lines.iter().map(String::len).max().unwrap_or(0).min(72);
        for (nth, (line, note)) in lines.iter().zip(&self.notes).enumerate() {
            let mark = if nth == event { '>' } else { ' ' };
            let missed = self.missed.iter().find(|missed| missed.event == nth);
            let missed = missed.map(|missed| format!("misses: {}", missed.why));
            let note = match (note, missed) {
                (Some(note), Some(missed)) => Some(format!("{note}; {missed}")),
                (note, missed) => missed.or_else(|| note.clone()),
            };
            match note {
                Some(note) => writeln!(f, "{mark} {nth:3}  {line:width$}  # {note}")?,
                None => writeln!(f, "{mark} {nth:3}  {line}")?,
            }
        }
        if self.left_out > 0 {
            writeln!(f, "  and {} more TLBIs that do not reach it", self.left_out)?;
        }
        let line = |f: &mut Formatter<'_>, name, value: Option<u64>| match value {
            Some(value) => writeln!(f, "  {name:<10} {value:#018x}"),
            None => Ok(()),
        };
        if let Some(cpu) = cpu {
            writeln!(f, "  {:<10} {cpu}", "cpu")?;
        }
        line(f, "address", va)?;
        line(f, "entry at", pa)?;
        line(f, "may hold", old)?;
        line(f, "meets", new.filter(|new| Some(*new) != old))
    }
}

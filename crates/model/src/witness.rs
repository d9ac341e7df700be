//! A mistake, shown by as few events as possible.

use std::fmt::{self, Display, Formatter};

use linmap_trace::{Event, Register};

use crate::config::ConfigError;
use crate::machine::Machine;
use crate::minimise::minimise;
use crate::scope::Scope;
use crate::space::Space;
use crate::trace::Trace;
use crate::violation::Violation;

/// A trace that breaks a rule and from which no event can be dropped: without any one of them the
/// same rule is not broken at the same place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// The events that matter, on the same machine.
    pub trace: Trace,
    /// What they break; its event is one of theirs.
    pub violation: Violation,
    /// A note on each event, such as the level and address of the entry that it stores.
    notes: Vec<Option<String>>,
}

impl Trace {
    /// The mistake in the trace, if it has one, shown by the fewest events that break the rule.
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn witness(&self) -> Result<Option<Witness>, ConfigError> {
        let Err(found) = self.check()? else { return Ok(None) };
        let trace = minimise(
            self,
            |trace| matches!(trace.check(), Ok(Err(violation)) if violation.same_mistake(&found)),
        );
        let violation = trace.check()?.err().unwrap_or(found);
        let notes = notes(&trace)?;
        Ok(Some(Witness { trace, violation, notes }))
    }
}

/// A note on each event of `trace`.
fn notes(trace: &Trace) -> Result<Vec<Option<String>>, ConfigError> {
    let mut machine = Machine::new(&trace.config)?;
    let mut notes: Vec<Option<String>> = vec![None; trace.events.len()];
    for event in &trace.events {
        let stop = machine.step(event).is_err();
        // A later event may link the table that a store belongs to.
        for (note, event) in notes.iter_mut().zip(&trace.events) {
            let (Event::Store { pa, .. } | Event::Fill { pa, .. }) = *event else { continue };
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
            Event::Tlbi { tlbi, operand, .. } => {
                let shape = machine.shapes[Space::Low.index()];
                let range = Scope::of(tlbi, operand, shape, None).range;
                range.map(|(from, last)| format!("{from:#x} to {last:#x}"))
            }
            Event::Write { register: Register::Ttbr0 | Register::Ttbr1, value, .. } => {
                Some(format!("root {:#x}", value & 0xffff_ffff_fffe))
            }
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
            match note {
                Some(note) => writeln!(f, "{mark} {nth:3}  {line:width$}  # {note}")?,
                None => writeln!(f, "{mark} {nth:3}  {line}")?,
            }
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

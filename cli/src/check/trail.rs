//! What a CPU did last, before it broke a rule.

use std::collections::VecDeque;

use linmap_trace::Event;

use super::events::Located;
use super::form::Form;

/// The events of a CPU that are kept.
const KEPT: usize = 1 << 12;

/// An event of a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The event's number.
    pub event: usize,
    /// Where its instruction lies.
    pub pc: Option<u64>,
    /// What it is.
    pub form: Form,
}

/// The last events of each CPU.
#[derive(Default)]
pub struct Trails(Vec<VecDeque<Step>>);

impl Trails {
    /// Adds the next event, which has this number.
    pub fn add(&mut self, event: usize, at: &Located) {
        // No instruction of the kernel's edits.
        if matches!(at.recorded.event, Event::Thread { .. } | Event::User { .. }) {
            return;
        }
        let Some(cpu) = at.recorded.event.cpu() else { return };
        if cpu >= self.0.len() {
            self.0.resize_with(cpu + 1, VecDeque::new);
        }
        let trail = &mut self.0[cpu];
        if trail.len() == KEPT {
            trail.pop_front();
        }
        trail.push_back(Step { event, pc: at.recorded.pc, form: Form::of(&at.recorded.event) });
    }

    /// The last events of `cpu`, oldest first.
    pub fn of(&self, cpu: Option<usize>) -> Vec<Step> {
        let trail = cpu.and_then(|cpu| self.0.get(cpu));
        trail.into_iter().flatten().copied().collect()
    }
}

/// Events of one function, one after the other.
#[derive(PartialEq, Eq, Debug)]
pub struct Run {
    /// The function.
    pub function: String,
    /// The first event and the last.
    pub events: (usize, usize),
    /// What it did, in short.
    pub did: String,
}

/// The steps of a CPU as runs of one function each, the last `most` of them.
pub fn runs(steps: &[Step], function: &dyn Fn(u64) -> String, most: usize) -> Vec<Run> {
    let mut runs: Vec<(String, Vec<Step>)> = Vec::new();
    for step in steps.iter().rev() {
        let own = step.pc.map_or_else(String::new, function);
        let is_full = runs.len() == most;
        match runs.last_mut() {
            Some((last, run)) if *last == own => run.push(*step),
            _ if is_full => break,
            _ => runs.push((own, vec![*step])),
        }
    }
    let finished = runs.into_iter().rev().map(|(function, mut run)| {
        run.reverse();
        let events = (run.first().map_or(0, |step| step.event), run.last().map_or(0, |step| step.event));
        let forms: Vec<Form> = run.iter().map(|step| step.form).collect();
        Run { function, events, did: in_short(&forms) }
    });
    finished.collect()
}

/// The longest sequence that is looked for again behind itself.
const LONGEST: usize = 12;
/// The most that is said of a run.
const MOST_SAID: usize = 12;

/// A sequence of events, with what repeats said once: `3 x (store, dsb ishst), isb`.
fn in_short(forms: &[Form]) -> String {
    let mut said = Vec::new();
    let mut rest = forms;
    while !rest.is_empty() {
        // What covers most by repetition, by the shortest sequence.
        let (mut period, mut times) = (1, 1);
        for length in 1..=LONGEST.min(rest.len() / 2) {
            let chunks = rest.chunks_exact(length);
            let count = chunks.take_while(|chunk| *chunk == &rest[..length]).count();
            if count > 1 && count * length > period * times {
                (period, times) = (length, count);
            }
        }
        let once: Vec<String> = rest[..period].iter().map(ToString::to_string).collect();
        said.push(match (times, period) {
            (1, _) => once.join(", "),
            (_, 1) => format!("{times} x {}", once.join(", ")),
            _ => format!("{times} x ({})", once.join(", ")),
        });
        rest = &rest[period * times..];
    }
    let left_out = said.len().saturating_sub(MOST_SAID);
    let dots = (left_out > 0).then(|| "…".to_owned());
    dots.into_iter().chain(said.drain(left_out..)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use linmap_model::event::{Access, Domain};

    use super::*;

    const DSB: Form = Form::Dsb(Domain::Ish, Access::Stores);

    #[test]
    fn what_repeats_is_said_once() {
        assert_eq!(in_short(&[]), "");
        assert_eq!(in_short(&[Form::Store, DSB]), "store, dsb ishst");
        assert_eq!(in_short(&[Form::Clear; 478]), "478 x clear");
        let each = [Form::Store, DSB, Form::Isb].repeat(512);
        assert_eq!(in_short(&each), "512 x (store, dsb ishst, isb)");
        let forms = [&[Form::Clear][..], &each, &[Form::Clear]].concat();
        assert_eq!(in_short(&forms), "clear, 512 x (store, dsb ishst, isb), clear");
    }

    #[test]
    fn events_of_one_function_are_one_run() {
        let step = |event, pc, form| Step { event, pc: Some(pc), form };
        let steps = [
            step(3, 0x10, Form::Store),
            step(4, 0x20, Form::Clear),
            step(6, 0x24, Form::Clear),
            step(7, 0x28, DSB),
            step(9, 0x10, Form::Store),
        ];
        let function = |pc: u64| if pc < 0x20 { "set".to_owned() } else { "unmap".to_owned() };
        let run = |function: &str, events, did: &str| Run {
            function: function.to_owned(),
            events,
            did: did.to_owned(),
        };
        let last = [run("unmap", (4, 7), "2 x clear, dsb ishst"), run("set", (9, 9), "store")];
        assert_eq!(runs(&steps, &function, 2), last);
        assert_eq!(runs(&steps, &function, 9).len(), 3);
    }
}

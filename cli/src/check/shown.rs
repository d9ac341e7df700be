//! The fewest events that show a violation.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use linmap_model::{Breadth, Chosen, Config, Event, Excerpt, Machine, Trace, Violation, Witness};

use super::events::{Batch, Events, Located};
use super::history::History;
use super::input::Form;
use crate::failure::Failure;
use crate::output::Verbosity;
use crate::progress;

/// The fewest events that show a violation.
pub struct Shown {
    /// The events, in short.
    pub witness: Witness,
    /// The number of each in the trace; `None` for one that stands for others.
    pub numbers: Vec<Option<usize>>,
    /// Where each number is.
    pub located: HashMap<usize, Located>,
    /// TLBIs of other addresses that are left out.
    pub left_out: usize,
    /// The first event of the history, if earlier ones are summed up.
    pub cut: Option<usize>,
}

/// A violation whose events are to be gathered.
pub struct Wanted {
    /// Its place among all that were found.
    pub nth: usize,
    /// The violation.
    pub violation: Violation,
    /// The choices of events, the narrowest first.
    pub excerpts: [Excerpt; Breadth::ALL.len()],
}

impl Wanted {
    /// What is wanted to show `violation`, which `machine` has just found.
    pub fn of(nth: usize, violation: Violation, machine: &Machine) -> Self {
        let excerpts = Breadth::ALL.map(|breadth| machine.excerpt(&violation, breadth));
        Self { nth, violation, excerpts }
    }
}

/// The longest trace that is minimised as it is. In a longer one the events that may take part are
/// chosen first, which shows the same by fewer events unless zeros have to stand for many.
const WHOLE: usize = 1 << 10;

const UNSHOWN: &str = "the events that may take part do not show it by themselves";

/// What shows `violation` by the events of a pipe that are kept.
pub fn from_history(history: &History, machine: &Machine, wanted: Wanted) -> Result<Shown, String> {
    let cut = Some(history.first()).filter(|first| *first > 0);
    let violation = &wanted.violation;
    let found = wanted.excerpts.into_iter().find_map(|mut excerpt| {
        let mut located = HashMap::new();
        history.fill(&mut excerpt, machine, |number, at| {
            located.insert(number, at);
        });
        shown(excerpt, machine.config(), violation, located, cut)
    });
    found.ok_or_else(|| match cut {
        Some(first) => format!(
            "the events from {first} on, which the history holds, do not show it by themselves: judge the \
             trace as a file, or with a longer --history"
        ),
        None => UNSHOWN.to_owned(),
    })
}

/// The place of a violation among all that were found, and the events that show it.
pub type Gathered = (usize, Result<Shown, String>);

/// Reads the file again, up to the last violation to be shown.
///
/// # Errors
/// The file can't be read any more.
pub fn gather(
    path: &Path,
    form: Form,
    config: &Config,
    wanted: Vec<Wanted>,
    verbosity: Verbosity,
) -> Result<Vec<Gathered>, Failure> {
    let Some(last) = wanted.iter().map(|wanted| wanted.violation.event).max() else { return Ok(Vec::new()) };
    let file = File::open(path).map_err(|error| Failure::from(error).of(path.display()))?;
    let len = file.metadata().ok().map(|metadata| metadata.len());
    let bar = progress::of("finding the events that show it", "bytes", len, verbosity);
    let events = Events::of(form, Box::new(file));
    let mut wanted: Vec<_> = wanted.into_iter().map(|wanted| (wanted, HashMap::new())).collect();
    let mut whole = Vec::new();
    let mut number = 0;
    'file: while let Some(batch) = events.next() {
        let Batch::Events(batch) = batch else { continue };
        for &at in &batch {
            if number > last {
                break 'file;
            }
            for (wanted, located) in &mut wanted {
                for excerpt in &mut wanted.excerpts {
                    if number <= wanted.violation.event && excerpt.add(number, &at.recorded.event) {
                        located.insert(number, at);
                    }
                }
            }
            if number < WHOLE {
                whole.push(at);
            }
            number += 1;
        }
        bar.set_position(events.bytes());
        events.emptied(batch);
    }
    bar.finish_and_clear();
    let each = wanted.into_iter().map(|(Wanted { nth, violation, excerpts }, located)| {
        let chosen = excerpts
            .into_iter()
            .find_map(|excerpt| shown(excerpt, config, &violation, located.clone(), None));
        // What came before the first violation is legal, so that it shows it by itself.
        let entire = (nth == 0 && violation.event < whole.len())
            .then(|| entire(config, &whole[..=violation.event], &violation))
            .flatten();
        let found = match (entire, chosen) {
            (Some(entire), Some(chosen)) if chosen.numbers.len() < entire.numbers.len() => Some(chosen),
            (entire, chosen) => entire.or(chosen),
        };
        (nth, found.ok_or_else(|| UNSHOWN.to_owned()))
    });
    Ok(each.collect())
}

/// What shows `violation` by all events up to it.
fn entire(config: &Config, events: &[Located], violation: &Violation) -> Option<Shown> {
    let trace = Trace {
        config: config.clone(),
        events: events.iter().map(|located| located.recorded.event).collect::<Vec<Event>>(),
    };
    let witness = trace.witness().ok()??;
    let numbers: Vec<_> = witness.numbers.iter().copied().map(Some).collect();
    if !is_of(violation, &witness.violation, &numbers) {
        return None;
    }
    let located = numbers.iter().flatten().map(|&number| (number, events[number])).collect();
    Some(Shown { witness, numbers, located, left_out: 0, cut: None })
}

/// Whether `found`, among events with these numbers, is `violation` and not one of an event before.
fn is_of(violation: &Violation, found: &Violation, numbers: &[Option<usize>]) -> bool {
    found.same_mistake(violation) && numbers.get(found.event) == Some(&Some(violation.event))
}

/// What shows `violation` by the events of `excerpt`, if they do.
fn shown(
    excerpt: Excerpt,
    config: &Config,
    violation: &Violation,
    located: HashMap<usize, Located>,
    cut: Option<usize>,
) -> Option<Shown> {
    let Chosen { trace, numbers, shown, left_out } = excerpt.finish(config);
    // Events that are left out may make a mistake of an event before.
    let first = trace.check().ok()?.err()?;
    if !is_of(violation, &first, &numbers) {
        return None;
    }
    let witness = trace.witness_with(&shown).ok()??;
    let numbers: Vec<_> = witness.numbers.iter().map(|&nth| numbers.get(nth).copied().flatten()).collect();
    is_of(violation, &witness.violation, &numbers).then_some(Shown {
        witness,
        numbers,
        located,
        left_out,
        cut,
    })
}

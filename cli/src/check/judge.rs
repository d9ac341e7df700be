//! The verdict: every event run on the model, and each violation with the events that show it.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use linmap_model::{
    Breadth, Chosen, Config, Event, Excerpt, Legal, Leniency, Machine, Resumed, Trace, Violation, Witness,
};

use super::events::{Batch, Events, Located};
use super::history::History;
use super::input::{Form, Input};
use crate::failure::Failure;
use crate::output::Verbosity;
use crate::progress;

/// A trace that was judged.
pub struct Judged {
    /// What it is called.
    pub name: String,
    /// Its form.
    pub form: Form,
    /// The number of events that were judged.
    pub events: usize,
    /// What the verdict covers, if it is legal.
    pub legal: Option<Legal>,
    /// The violations, in the order of their events.
    pub found: Vec<Found>,
    /// The number of violations, of which not all may be in `found`.
    pub count: usize,
    /// What a reader of the verdict should know.
    pub notes: Vec<String>,
    /// Where the vectors of a CPU lay last, if a recorder said so.
    pub vectors: Option<u64>,
}

/// A violation, and what shows it.
pub struct Found {
    /// The violation.
    pub violation: Violation,
    /// The event that it is found at.
    pub at: Located,
    /// The events that show it, or why they are not to be had.
    pub shown: Result<Shown, String>,
}

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

/// How to judge.
pub struct Options {
    /// What is taken beyond the architecture's text.
    pub leniency: Leniency,
    /// Goes on behind a violation.
    pub all: bool,
    /// The events of a pipe that are kept.
    pub history: usize,
    /// The most violations that are shown by their events.
    pub shown: usize,
    /// How much is said.
    pub verbosity: Verbosity,
}

/// The longest trace that is minimised as it is. In a longer one the events that may take part are
/// chosen first, which shows the same by fewer events unless zeros have to stand for many.
const WHOLE: usize = 1 << 10;

/// The most notes that are kept.
const MOST_NOTES: usize = 1000;

/// A violation whose events are still to be gathered.
struct Open {
    violation: Violation,
    at: Located,
    excerpts: Vec<Excerpt>,
    shown: Option<Result<Shown, String>>,
}

/// Judges `input`.
///
/// # Errors
/// It can't be read, or isn't a trace.
pub fn judge(input: Input, options: &Options) -> Result<Judged, Failure> {
    let (name, form, again) = (input.name(), input.form(), input.again());
    let bar = progress::of("judging", "bytes", input.len(), options.verbosity);
    let mut history = again.is_none().then(|| History::new(options.history));
    let events = Events::of(form, input.into_bytes());
    let mut judged = Judged {
        name,
        form,
        events: 0,
        legal: None,
        found: Vec::new(),
        count: 0,
        notes: Vec::new(),
        vectors: None,
    };
    let mut machine = None;
    let mut open = Vec::new();
    let named = |failure: Failure| failure.of(&judged.name);
    while let Some(batch) = events.next() {
        match batch {
            Batch::Machine(config) => {
                let config = Config { leniency: options.leniency, ..config };
                machine = Some(Machine::new(&config).map_err(|error| named(error.into()))?);
            }
            Batch::Note(note) if judged.notes.len() < MOST_NOTES => judged.notes.push(note),
            Batch::Note(_) => {}
            Batch::Vectors(va) => judged.vectors = Some(va),
            Batch::Failed(failure) => return Err(named(failure)),
            Batch::Events(batch) => {
                let Some(machine) = &mut machine else { continue };
                let end = run(machine, &batch, &mut open, history.as_mut(), &mut judged.count, options);
                bar.set_position(events.bytes());
                events.emptied(batch);
                match end {
                    None => {}
                    Some(End::First) => break,
                    Some(End::Stuck) => {
                        judged.notes.insert(0, STUCK.to_owned());
                        break;
                    }
                }
            }
        }
    }
    drop(events);
    bar.finish_and_clear();
    let Some(machine) = machine else { return Err(named(Failure::new("no machine"))) };
    judged.events = machine.events();
    judged.legal = machine.verdict().ok().filter(|_| judged.count == 0);
    let config = machine.config().clone();
    // The tables are as large as all that follows.
    drop(machine);
    if let Some(path) = again
        && open.iter().any(|open| !open.excerpts.is_empty())
    {
        gather(&path, form, &config, &mut open, options)?;
    }
    judged.found = open
        .into_iter()
        .map(|Open { violation, at, shown, .. }| {
            let shown = shown.unwrap_or_else(|| Err("only the first violations are shown by events".into()));
            Found { violation, at, shown }
        })
        .collect();
    Ok(judged)
}

/// Why the rest of a trace is not judged.
enum End {
    /// The first violation is all that is wanted.
    First,
    /// The model can't go on behind a violation.
    Stuck,
}

/// Runs a batch. Returns why the rest is not to be judged, if so.
fn run(
    machine: &mut Machine,
    batch: &[Located],
    open: &mut Vec<Open>,
    mut history: Option<&mut History>,
    count: &mut usize,
    options: &Options,
) -> Option<End> {
    for &located in batch {
        if let Some(history) = &mut history {
            history.push(located, machine);
        }
        let event = &located.recorded.event;
        let mut judged = machine.step(event);
        while let Err(violation) = judged {
            *count += 1;
            let mut found = Open { violation, at: located, excerpts: Vec::new(), shown: None };
            if open.len() < options.shown {
                let excerpts = Breadth::ALL.map(|breadth| machine.excerpt(&violation, breadth));
                match &history {
                    Some(history) => found.shown = Some(from_history(history, machine, excerpts, &violation)),
                    None => found.excerpts.extend(excerpts),
                }
            }
            open.push(found);
            if !options.all {
                return Some(End::First);
            }
            judged = match machine.resume(event) {
                Resumed::Done => Ok(()),
                Resumed::Broken(violation) => Err(violation),
                Resumed::Stuck => return Some(End::Stuck),
            };
        }
    }
    None
}

/// What shows `violation` by the events of a pipe that are kept.
fn from_history(
    history: &History,
    machine: &Machine,
    excerpts: [Excerpt; 3],
    violation: &Violation,
) -> Result<Shown, String> {
    let cut = Some(history.first()).filter(|first| *first > 0);
    let found = excerpts.into_iter().find_map(|mut excerpt| {
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

const STUCK: &str =
    "behind the last violation the trace is not judged: what that event means for the tables is not known";

const UNSHOWN: &str = "the events that may take part do not show it by themselves";

/// Reads the file again, up to the last violation to be shown, and gathers the events of each.
fn gather(
    path: &Path,
    form: Form,
    config: &Config,
    open: &mut [Open],
    options: &Options,
) -> Result<(), Failure> {
    let file = File::open(path).map_err(|error| Failure::from(error).of(path.display()))?;
    let len = file.metadata().ok().map(|metadata| metadata.len());
    let bar = progress::of("finding the events that show it", "bytes", len, options.verbosity);
    let last = open.iter().filter(|open| !open.excerpts.is_empty()).map(|open| open.violation.event).max();
    let last = last.unwrap_or(0);
    let events = Events::of(form, Box::new(file));
    // There may be many more that are not shown: they cost nothing here.
    let mut wanted: Vec<_> = open
        .iter_mut()
        .enumerate()
        .filter(|(_, open)| !open.excerpts.is_empty())
        .map(|(nth, open)| (nth, open, HashMap::new()))
        .collect();
    let mut whole = Vec::new();
    let mut number = 0;
    'file: while let Some(batch) = events.next() {
        let Batch::Events(batch) = batch else { continue };
        for &at in &batch {
            if number > last {
                break 'file;
            }
            for (_, open, located) in &mut wanted {
                for excerpt in &mut open.excerpts {
                    if number <= open.violation.event && excerpt.add(number, &at.recorded.event) {
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
    for (nth, open, located) in wanted {
        let excerpts = std::mem::take(&mut open.excerpts).into_iter();
        let chosen = excerpts
            .into_iter()
            .find_map(|excerpt| shown(excerpt, config, &open.violation, located.clone(), None));
        // What came before the first violation is legal, so that it shows it by itself.
        let entire = (nth == 0 && open.violation.event < whole.len())
            .then(|| entire(config, &whole[..=open.violation.event], &open.violation))
            .flatten();
        let found = match (entire, chosen) {
            (Some(entire), Some(chosen)) if chosen.numbers.len() < entire.numbers.len() => Some(chosen),
            (entire, chosen) => entire.or(chosen),
        };
        open.shown = Some(found.ok_or_else(|| UNSHOWN.to_owned()));
    }
    Ok(())
}

/// What shows `violation` by all events up to it.
fn entire(config: &Config, events: &[Located], violation: &Violation) -> Option<Shown> {
    let trace = Trace {
        config: config.clone(),
        events: events.iter().map(|located| located.recorded.event).collect::<Vec<Event>>(),
    };
    let witness = trace.witness().ok()??;
    if !witness.violation.same_mistake(violation) {
        return None;
    }
    let numbers: Vec<_> = witness.numbers.iter().copied().map(Some).collect();
    let located = numbers.iter().flatten().map(|&number| (number, events[number])).collect();
    Some(Shown { witness, numbers, located, left_out: 0, cut: None })
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
    let witness = trace.witness_with(&shown).ok()??;
    if !witness.violation.same_mistake(violation) {
        return None;
    }
    let numbers = witness.numbers.iter().map(|&nth| numbers.get(nth).copied().flatten()).collect();
    Some(Shown { witness, numbers, located, left_out, cut })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use linmap_trace::Line;
    use linmap_trace::binary::{Encoder, LONGEST, MAGIC, Record, VERSION};
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] = include_bytes!("../../examples/protect-page.trace");
    const BAD: &[u8] = include_bytes!("../../examples/protect-page-without-tlbi.trace");
    const CASEMATE: &[u8] = include_bytes!("../../../crates/model/tests/casemate/bad_no_bbm_stage1.sexp");

    /// The text trace in binary form.
    fn binary(text: &[u8]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[VERSION]].concat();
        let mut encoder = Encoder::default();
        let mut buffer = [0; LONGEST];
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(line) = Line::read(line).unwrap() {
                bytes.extend_from_slice(encoder.encode(&Record::Line(line), &mut buffer));
            }
        }
        bytes.extend_from_slice(encoder.encode(&Record::End, &mut buffer));
        bytes
    }

    fn piped(bytes: &[u8], history: usize) -> Result<Judged, Failure> {
        let options =
            Options { leniency: Leniency::Strict, all: true, history, shown: 4, verbosity: Verbosity::Quiet };
        judge(Input::of(None, None, Box::new(Cursor::new(bytes.to_vec())))?, &options)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn damaged_traces_are_judged_or_refused(
            which in 0..4_usize,
            cut in any::<prop::sample::Index>(),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            is_cut: bool,
            history in 1_usize..200,
        ) {
            let mut bytes = [GOOD, BAD, CASEMATE, &binary(BAD)][which].to_vec();
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            match piped(&bytes, history) {
                Ok(judged) => prop_assert_eq!(judged.legal.is_some(), judged.found.is_empty()),
                Err(failure) => prop_assert!(!failure.to_string().contains('\n')),
            }
        }

        #[test]
        fn any_bytes_are_judged_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = piped(&bytes, 16);
        }
    }

    #[test]
    fn the_verdict_on_the_binary_form_is_that_on_the_text() {
        for text in [GOOD, BAD] {
            let [of_text, of_binary] = [text, &binary(text)].map(|bytes| piped(bytes, 1 << 18).unwrap());
            assert_eq!(of_binary.form, Form::Binary);
            assert_eq!(of_binary.legal, of_text.legal);
            assert_eq!(of_binary.events, of_text.events);
            assert_eq!(of_binary.notes, of_text.notes);
            let violations = |judged: &Judged| {
                judged.found.iter().map(|found| (found.violation, found.at.recorded)).collect::<Vec<_>>()
            };
            assert_eq!(violations(&of_binary), violations(&of_text));
        }
    }

    #[test]
    fn a_trace_that_ends_within_a_line_says_so() {
        let cut = &GOOD[..GOOD.len() - 3];
        let failure = piped(cut, 16).err().map(|failure| failure.to_string());
        assert!(failure.is_some_and(|failure| failure.contains("unknown event `sett")));
        // What is left of the number is a number.
        let at = GOOD.windows(12).position(|at| at == b"0x13ffd6003\n").unwrap_or_default();
        let judged = piped(&GOOD[..at + 6], 16);
        let notes = judged.map(|judged| judged.notes).unwrap_or_default();
        assert!(notes.iter().any(|note| note.contains("may have been cut off")), "{notes:?}");
    }
}

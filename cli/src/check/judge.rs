//! The verdict: every event run on the model, and each violation with the events that show it.

use indicatif::ProgressBar;
use linmap_model::{Config, Legal, Leniency, Machine, Resumed, TakenBack, Violation};

use super::events::{Batch, Events, Located};
use super::found::{Counts, Found, Place};
use super::history::History;
use super::input::{Form, Input};
use super::shown::{self, Shown, Wanted};
use super::tally::Tally;
use super::trail::{Step, Trails};
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
    /// Where they are.
    pub counts: Counts,
    /// What a reader of the verdict should know.
    pub notes: Vec<String>,
    /// The recorder's last record is missing, and perhaps more.
    pub is_cut: bool,
    /// What the trace has.
    pub tally: Tally,
    /// Access that was taken back, by instruction.
    pub taken_back: Vec<TakenBack>,
    /// How often a thread that may have taken access back has returned to EL0.
    pub returns: u64,
}

impl Judged {
    /// Whether it is what a recorder has of a whole guest.
    pub fn is_guest(&self) -> bool {
        self.form == Form::Binary
    }
}

/// How to judge.
pub struct Options {
    /// What is taken beyond the architecture's text.
    pub leniency: Leniency,
    /// Goes on behind a violation.
    pub all: bool,
    /// The events of a pipe that are kept.
    pub history: usize,
    /// The most violations that are shown by their events: of each rule at each instruction the
    /// first.
    pub shown: usize,
    /// How much is said.
    pub verbosity: Verbosity,
    /// The trace comes while it is recorded, which its user waits for.
    pub is_live: bool,
}

/// The most notes that are kept.
const MOST_NOTES: usize = 1000;
/// The most violations that are kept one by one. All are counted.
const MOST_FOUND: usize = 10_000;
/// The most violations that are kept with what their CPU did before.
const MOST_TRAILS: usize = 64;

/// What was found so far.
struct Judging<'a> {
    options: &'a Options,
    history: Option<History>,
    trails: Trails,
    tally: Tally,
    found: Vec<Open>,
    count: usize,
    counts: Counts,
    /// The violations that are kept with what their CPU did before.
    trails_kept: usize,
    /// The violations whose events are shown, or looked for.
    shown: usize,
    /// The violations whose events are still to be gathered.
    wanted: Vec<Wanted>,
}

/// A violation that may still have to be shown.
struct Open {
    violation: Violation,
    at: Located,
    trail: Vec<Step>,
    shown: Option<Result<Shown, String>>,
}

/// Judges `input`.
///
/// # Errors
/// It can't be read, or isn't a trace.
pub fn judge(input: Input, options: &Options) -> Result<Judged, Failure> {
    let (name, form, again) = (input.name(), input.form(), input.again());
    let bar = if options.is_live {
        progress::live(options.verbosity)
    } else {
        progress::of("judging", "bytes", input.len(), options.verbosity)
    };
    let mut judging = Judging {
        options,
        history: again.is_none().then(|| History::new(options.history)),
        trails: Trails::default(),
        tally: Tally::default(),
        found: Vec::new(),
        count: 0,
        counts: Counts::default(),
        trails_kept: 0,
        shown: 0,
        wanted: Vec::new(),
    };
    let events = Events::of(form, input.into_bytes());
    let mut notes = Vec::new();
    let mut is_cut = false;
    let mut machine = None;
    let named = |failure: Failure| failure.of(&name);
    while let Some(batch) = events.next() {
        match batch {
            Batch::Machine(config) => {
                let config = Config { leniency: options.leniency, ..config };
                machine = Some(Machine::new(&config).map_err(|error| named(error.into()))?);
            }
            Batch::Note(note) if notes.len() < MOST_NOTES => notes.push(note),
            Batch::Note(_) => {}
            Batch::Cut => is_cut = true,
            Batch::Vectors(va) => judging.tally.add_vectors(va),
            Batch::Idle(idle) => judging.tally.add_idle(idle),
            Batch::Failed(failure) => return Err(named(failure)),
            Batch::Events(batch) => {
                let Some(machine) = &mut machine else { continue };
                let end = judging.run(machine, &batch);
                judging.show(&bar, machine, &events);
                events.emptied(batch);
                match end {
                    None => {}
                    Some(End::First) => break,
                    Some(End::Stuck) => {
                        notes.insert(0, STUCK.to_owned());
                        break;
                    }
                }
            }
        }
    }
    drop(events);
    bar.finish_and_clear();
    let Some(machine) = machine else { return Err(named(Failure::new("no machine"))) };
    let Judging { mut tally, mut found, count, counts, wanted, .. } = judging;
    tally.settle();
    let legal = machine.verdict().ok().filter(|_| count == 0);
    let (events, config) = (machine.events(), machine.config().clone());
    let (taken_back, returns) = (machine.taken_back().copied().collect(), machine.returns());
    // The tables are as large as all that follows.
    drop(machine);
    if let Some(path) = again {
        for (nth, shown) in shown::gather(&path, form, &config, wanted, options.verbosity)? {
            if let Some(open) = found.get_mut(nth) {
                open.shown = Some(shown);
            }
        }
    }
    let found = found
        .into_iter()
        .map(|Open { violation, at, trail, shown }| {
            let shown = shown.unwrap_or_else(|| Err(NOT_FIRST.to_owned()));
            Found { violation, at, shown, trail }
        })
        .collect();
    Ok(Judged { name, form, events, legal, found, count, counts, notes, is_cut, tally, taken_back, returns })
}

/// Why the rest of a trace is not judged.
enum End {
    /// The first violation is all that is wanted.
    First,
    /// The model can't go on behind a violation.
    Stuck,
}

impl Judging<'_> {
    /// Runs a batch. Returns why the rest is not to be judged, if so.
    fn run(&mut self, machine: &mut Machine, batch: &[Located]) -> Option<End> {
        for located in batch {
            if let Some(history) = &mut self.history {
                history.push(*located, machine);
            }
            self.tally.add(located, machine);
            let event = &located.recorded.event;
            let number = machine.events();
            let mut judged = machine.step_recorded(&located.recorded);
            while let Err(violation) = judged {
                self.violated(machine, violation, *located);
                if !self.options.all {
                    return Some(End::First);
                }
                judged = match machine.resume(event) {
                    Resumed::Done => Ok(()),
                    Resumed::Broken(violation) => Err(violation),
                    Resumed::Stuck => return Some(End::Stuck),
                };
            }
            self.trails.add(number, located);
            self.tally.tables = self.tally.tables.max(machine.reachable_tables());
        }
        None
    }

    /// `machine` has found `violation` at an event.
    fn violated(&mut self, machine: &Machine, violation: Violation, at: Located) {
        self.count += 1;
        let is_first = self.counts.add(violation.rule, Place::of(&violation, &at));
        if !is_first && self.found.len() >= MOST_FOUND {
            return;
        }
        let nth = self.found.len();
        let mut open = Open { violation, at, trail: Vec::new(), shown: None };
        if is_first && self.trails_kept < MOST_TRAILS {
            self.trails_kept += 1;
            open.trail = self.trails.of(at.recorded.event.cpu());
        }
        if is_first && self.shown < self.options.shown {
            self.shown += 1;
            let wanted = Wanted::of(nth, violation, machine);
            match &self.history {
                Some(history) => open.shown = Some(shown::from_history(history, machine, wanted)),
                None => self.wanted.push(wanted),
            }
        }
        self.found.push(open);
    }

    /// Shows how far the trace was judged.
    fn show(&self, bar: &ProgressBar, machine: &Machine, events: &Events) {
        if self.options.is_live {
            progress::show_events(bar, machine.events() as u64, self.count as u64);
        } else {
            bar.set_position(events.bytes());
        }
    }
}

const STUCK: &str =
    "behind the last violation the trace is not judged: what that event means for the tables is not known";

const NOT_FIRST: &str = "of each rule the first at an instruction is shown by events, at most 16 in all";

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
        let options = Options {
            leniency: Leniency::Strict,
            all: true,
            history,
            shown: 4,
            verbosity: Verbosity::Quiet,
            is_live: false,
        };
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

//! Recordings of `linmap record`, read back.

use std::fs;
use std::path::Path;

use linmap_trace::binary::{Decoder, MAGIC, Record};
use linmap_trace::{Line, Recorded};

/// The events of the trace at `path`, which may have been cut short.
///
/// # Panics
/// When it is not a trace in binary form.
pub fn recorded_events(path: &Path) -> Vec<Recorded> {
    let bytes = fs::read(path).expect("the trace");
    // Behind the name and the version of the form.
    let mut rest = bytes.strip_prefix(&MAGIC).and_then(|rest| rest.get(1..)).expect("a binary trace");
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    while let Some((record, len)) = decoder.decode(rest).expect("a record") {
        rest = &rest[len..];
        match record {
            Record::Line(Line::Event(recorded)) => events.push(recorded),
            Record::End => break,
            _ => {}
        }
    }
    events
}

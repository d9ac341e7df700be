//! The events of a trace, parsed by a thread of its own while the model judges those before.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use linmap_model::Config;
use linmap_model::trace::casemate;
use linmap_model::trace::text::Reader;
use linmap_trace::Recorded;

use super::input::Form;
use crate::failure::Failure;

/// An event and its line.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    /// The event, and where its instruction lies.
    pub recorded: Recorded,
    /// Its line, from 1; 0 if the form has no lines.
    pub line: u64,
}

/// What the reading thread says.
pub enum Batch {
    /// The machine, before the first event.
    Machine(Config),
    /// The next events.
    Events(Vec<Located>),
    /// What a reader of the verdict should know.
    Note(String),
    /// The trace can't be read from here on.
    Failed(Failure),
}

/// The events of a trace, in order.
pub struct Events {
    batches: Receiver<Batch>,
    emptied: SyncSender<Vec<Located>>,
    read: Arc<AtomicU64>,
}

/// Events of a batch.
const BATCH: usize = 4096;
/// Batches that wait for the model.
const WAITING: usize = 4;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;
/// The longest line: a line that people or kernels write has less than a hundred bytes.
const LONGEST: usize = 1 << 16;
/// The largest trace of casemate, whose machine is known at its end.
const MOST_RECORDS: u64 = 256 << 20;

impl Events {
    /// The events in `bytes`.
    pub fn of(form: Form, bytes: Box<dyn Read + Send>) -> Self {
        let (batches, receiver) = sync_channel(WAITING);
        let (emptied, spare) = sync_channel(2 * WAITING);
        let read = Arc::new(AtomicU64::new(0));
        let parser = Parser { batches, spare, read: Arc::clone(&read), events: Vec::new() };
        thread::spawn(move || match form {
            Form::Lines => parser.lines(bytes),
            Form::Casemate => parser.records(bytes),
        });
        Self { batches: receiver, emptied, read }
    }

    /// The next batch; `None` at the end.
    pub fn next(&self) -> Option<Batch> {
        self.batches.recv().ok()
    }

    /// Takes the memory of a batch back.
    pub fn emptied(&self, mut events: Vec<Located>) {
        events.clear();
        // The parser makes another if it has gone, or has enough.
        let _ = self.emptied.try_send(events);
    }

    /// The bytes parsed so far.
    pub fn bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// What parses. It ends when nobody takes its batches any longer.
struct Parser {
    batches: SyncSender<Batch>,
    spare: Receiver<Vec<Located>>,
    read: Arc<AtomicU64>,
    events: Vec<Located>,
}

/// Nobody wants more.
struct Unwanted;

impl Parser {
    fn say(&self, batch: Batch) -> Result<(), Unwanted> {
        self.batches.send(batch).map_err(|_| Unwanted)
    }

    /// Hands on what was parsed.
    fn hand_on(&mut self) -> Result<(), Unwanted> {
        if self.events.is_empty() {
            return Ok(());
        }
        let next = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
        let events = std::mem::replace(&mut self.events, next);
        self.say(Batch::Events(events))
    }

    fn fail(&mut self, failure: Failure) {
        if self.hand_on().is_ok() {
            let _ = self.say(Batch::Failed(failure));
        }
    }

    /// Parses lines of `linmap-trace`.
    fn lines(mut self, mut bytes: impl Read) {
        let mut reader = Reader::default();
        let mut buffer = vec![0; CHUNK];
        // The bytes of the buffer that belong to a line which is not whole.
        let mut start = 0;
        loop {
            if buffer.len() - start < CHUNK / 2 {
                buffer.resize(start + CHUNK, 0);
            }
            let got = match bytes.read(&mut buffer[start..]) {
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return self.fail(error.into()),
            };
            let end = start + got;
            let mut at = 0;
            for feed in memchr::memchr_iter(b'\n', &buffer[start..end]).map(|feed| start + feed) {
                if self.line(&mut reader, &buffer[at..feed]).is_err() {
                    return;
                }
                at = feed + 1;
            }
            self.read.fetch_add(got as u64, Ordering::Relaxed);
            if got == 0 {
                return self.end(&mut reader, &buffer[at..end]);
            }
            buffer.copy_within(at..end, 0);
            start = end - at;
            if start > LONGEST {
                let line = reader.lines() + 1;
                return self.fail(Failure::new(format_args!(
                    "line {line}: longer than {LONGEST} bytes, not a line of a trace"
                )));
            }
            // Events of a slow pipe are judged as they come.
            if got < CHUNK / 2 && self.hand_on().is_err() {
                return;
            }
        }
    }

    fn line(&mut self, reader: &mut Reader, text: &[u8]) -> Result<(), Unwanted> {
        let had_events = reader.has_events();
        match reader.line(text) {
            Ok(None) => Ok(()),
            Ok(Some(recorded)) => {
                if !had_events && let Ok(config) = reader.machine() {
                    self.say(Batch::Machine(config.clone()))?;
                }
                self.events.push(Located { recorded, line: reader.lines() as u64 });
                if self.events.len() == BATCH { self.hand_on() } else { Ok(()) }
            }
            Err(error) => {
                self.fail(error.into());
                Err(Unwanted)
            }
        }
    }

    /// Parses `rest`, what follows the last line feed.
    fn end(&mut self, reader: &mut Reader, rest: &[u8]) {
        if !rest.is_empty() {
            if self.line(reader, rest).is_err() {
                return;
            }
            let line = reader.lines();
            let note = format!("line {line} has no line feed at its end: the trace may have been cut off");
            if self.say(Batch::Note(note)).is_err() {
                return;
            }
        }
        if self.hand_on().is_err() {
            return;
        }
        match reader.machine() {
            Ok(config) if !reader.has_events() => {
                let _ = self.say(Batch::Machine(config.clone()));
            }
            Ok(_) => {}
            Err(error) => self.fail(error.into()),
        }
    }

    /// Parses casemate's records, which say only all together what the machine's memory is.
    fn records(mut self, bytes: impl Read) {
        let mut file = Vec::new();
        if let Err(error) = bytes.take(MOST_RECORDS + 1).read_to_end(&mut file) {
            return self.fail(error.into());
        }
        if file.len() as u64 > MOST_RECORDS {
            return self.fail(
                Failure::new(format_args!("a trace of casemate with more than {MOST_RECORDS} bytes"))
                    .hint("linmap's own form may have any length"),
            );
        }
        self.read.store(file.len() as u64, Ordering::Relaxed);
        let read = match casemate::read(&file) {
            Ok(read) => read,
            Err(error) => return self.fail(error.into()),
        };
        drop(file);
        let mut said = self.say(Batch::Machine(read.trace.config));
        for skipped in read.out_of_scope {
            let note = format!("line {}: no event for {}", skipped.line, skipped.reason);
            said = said.and_then(|()| self.say(Batch::Note(note)));
        }
        if let Some(verdict) = read.verdict {
            let note = format!("casemate's own verdict: {}", verdict.trim());
            said = said.and_then(|()| self.say(Batch::Note(note)));
        }
        for chunk in read.trace.events.chunks(BATCH) {
            let events = chunk.iter().map(|&event| Located { recorded: event.into(), line: 0 }).collect();
            said = said.and_then(|()| self.say(Batch::Events(events)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use linmap_model::trace::text;
    use proptest::prelude::*;

    use super::*;

    /// Gives its bytes in pieces of these lengths, over and over.
    struct Pieces {
        bytes: Cursor<Vec<u8>>,
        lengths: Vec<usize>,
        nth: usize,
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.lengths[self.nth % self.lengths.len()].min(buffer.len());
            self.nth += 1;
            self.bytes.read(&mut buffer[..length])
        }
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_the_bytes_come(
            count in 0_u64..9000,
            lengths in proptest::collection::vec(1_usize..70_000, 1..5),
        ) {
            let mut file =
                "machine cpus=2 bbm=0 granule=4K va=48 pa=48\nram 0x40000000 0x100000\n".to_owned();
            for nth in 0..count {
                file += &format!("1 store {:#x} {nth:#x} pc={nth:#x}\n", 0x4000_0000 + nth % 512 * 8);
            }
            let expected = text::read(file.as_bytes()).unwrap();
            let pieces = Pieces { bytes: Cursor::new(file.into_bytes()), lengths, nth: 0 };
            let events = Events::of(Form::Lines, Box::new(pieces));
            let mut found = Vec::new();
            while let Some(batch) = events.next() {
                match batch {
                    Batch::Machine(config) => prop_assert_eq!(&config, &expected.config),
                    Batch::Events(batch) => found.extend(batch),
                    Batch::Note(note) => panic!("{note}"),
                    Batch::Failed(failure) => panic!("{failure}"),
                }
            }
            prop_assert!(found.iter().map(|at| at.recorded.event).eq(expected.events));
            for (nth, at) in (0..).zip(found) {
                prop_assert_eq!((at.recorded.pc, at.line), (Some(nth), nth + 3));
            }
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let file = b"machine cpus=2 bbm=0 granule=4K va=48 pa=48\n# ".iter().copied();
        let file: Vec<u8> = file.chain(std::iter::repeat_n(b'x', 1 << 20)).collect();
        let events = Events::of(Form::Lines, Box::new(Cursor::new(file)));
        let Some(Batch::Failed(failure)) = events.next() else { panic!("it is refused") };
        assert_eq!(failure.to_string(), "line 2: longer than 65536 bytes, not a line of a trace");
    }
}

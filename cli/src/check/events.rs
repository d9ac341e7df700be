//! The events of a trace, parsed by a thread of its own while the model judges those before.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use linmap_model::Config;
use linmap_model::trace::casemate;
use linmap_model::trace::text::Reader;
use linmap_trace::binary::{Decoder, Idle, MAGIC, Record, VERSION};
use linmap_trace::{Line, Recorded};

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
    /// The trace of a recorder ends without its last record.
    Cut,
    /// Where a CPU's vectors lie.
    Vectors(u64),
    /// Barriers that were left out.
    Idle(Idle),
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
            Form::Binary => parser.binary(bytes),
            Form::Casemate => parser.casemate(bytes),
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

/// The state of parsing records in binary form.
struct Records {
    reader: Reader,
    decoder: Decoder,
    /// The number of records read.
    number: u64,
}

/// How far bytes were parsed.
enum Parsed {
    /// The record that begins there is not whole.
    Until(usize),
    /// The last record was read.
    End,
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
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
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

    /// Parses records of `linmap-trace` in binary form.
    fn binary(mut self, mut bytes: impl Read) {
        let mut start = [0; MAGIC.len() + 1];
        if let Err(error) = bytes.read_exact(&mut start) {
            return self.fail(match error.kind() {
                ErrorKind::UnexpectedEof => Failure::new("a trace that ends within its first bytes"),
                _ => error.into(),
            });
        }
        if start[MAGIC.len()] != VERSION {
            let version = start[MAGIC.len()];
            return self.fail(
                Failure::new(format_args!("a trace in version {version} of the binary form"))
                    .hint(format_args!("this linmap reads version {VERSION}")),
            );
        }
        self.read.store(start.len() as u64, Ordering::Relaxed);
        let mut records = Records { reader: Reader::default(), decoder: Decoder::default(), number: 0 };
        let mut buffer = vec![0; CHUNK];
        // The bytes of the buffer that belong to a record which is not whole: less than LONGEST.
        let mut kept = 0;
        loop {
            let got = match bytes.read(&mut buffer[kept..]) {
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.fail(error.into()),
            };
            if got == 0 {
                return self.end_of_binary(&records, true);
            }
            let end = kept + got;
            match self.records(&mut records, &buffer[..end]) {
                Err(Unwanted) => return,
                Ok(Parsed::End) => return self.end_of_binary(&records, false),
                Ok(Parsed::Until(at)) => {
                    buffer.copy_within(at..end, 0);
                    kept = end - at;
                }
            }
            self.read.fetch_add(got as u64, Ordering::Relaxed);
            if got < CHUNK / 2 && self.hand_on().is_err() {
                return;
            }
        }
    }

    /// Parses the records in `bytes`, as far as they are whole.
    fn records(&mut self, records: &mut Records, bytes: &[u8]) -> Result<Parsed, Unwanted> {
        let mut at = 0;
        loop {
            let (record, len) = match records.decoder.decode(&bytes[at..]) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => return Ok(Parsed::Until(at)),
                Err(error) => {
                    self.fail(Failure::new(format_args!("record {}: {error}", records.number + 1)));
                    return Err(Unwanted);
                }
            };
            records.number += 1;
            at += len;
            match record {
                Record::End => return Ok(Parsed::End),
                Record::Note(text) => self.say(Batch::Note(text.to_owned()))?,
                Record::Vectors(va) => self.say(Batch::Vectors(va))?,
                Record::Idle(idle) => self.say(Batch::Idle(idle))?,
                Record::Line(line) => self.recorded(records, line)?,
            }
        }
    }

    fn recorded(&mut self, records: &mut Records, line: Line) -> Result<(), Unwanted> {
        let had_events = records.reader.has_events();
        match records.reader.record(line) {
            Ok(None) => Ok(()),
            Ok(Some(recorded)) => {
                if !had_events && let Ok(config) = records.reader.machine() {
                    self.say(Batch::Machine(config.clone()))?;
                }
                self.events.push(Located { recorded, line: 0 });
                if self.events.len() == BATCH { self.hand_on() } else { Ok(()) }
            }
            Err(problem) => {
                self.fail(Failure::new(format_args!("record {}: {problem}", records.number)));
                Err(Unwanted)
            }
        }
    }

    fn end_of_binary(mut self, records: &Records, is_cut: bool) {
        if self.hand_on().is_err() {
            return;
        }
        if is_cut && self.say(Batch::Cut).is_err() {
            return;
        }
        match records.reader.machine() {
            Ok(config) if !records.reader.has_events() => {
                let _ = self.say(Batch::Machine(config.clone()));
            }
            Ok(_) => {}
            Err(_) => self.fail(Failure::new("a trace without a machine")),
        }
    }

    /// Parses casemate's records, which say only all together what the machine's memory is.
    fn casemate(mut self, bytes: impl Read) {
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
                    Batch::Cut => panic!("a cut of lines is a note"),
                    Batch::Vectors(va) => panic!("{va:#x}"),
                    Batch::Idle(idle) => panic!("{idle:?}"),
                    Batch::Failed(failure) => panic!("{failure}"),
                }
            }
            prop_assert!(found.iter().map(|at| at.recorded.event).eq(expected.events));
            for (nth, at) in (0..).zip(found) {
                prop_assert_eq!((at.recorded.pc, at.line), (Some(nth), nth + 3));
            }
        }
    }

    /// What the reading thread says of a binary trace with these bytes behind its head.
    fn binary(rest: &[u8]) -> Vec<String> {
        let bytes = [&MAGIC[..], &[VERSION], rest].concat();
        let events = Events::of(Form::Binary, Box::new(Cursor::new(bytes)));
        std::iter::from_fn(|| events.next())
            .map(|batch| match batch {
                Batch::Machine(config) => format!("{} CPUs", config.cpus),
                Batch::Events(events) => format!("{} events", events.len()),
                Batch::Note(note) => note,
                Batch::Cut => "cut".to_owned(),
                Batch::Vectors(va) => format!("vectors at {va:#x}"),
                Batch::Idle(idle) => format!("{} idle at {:#x}", idle.count, idle.pc),
                Batch::Failed(failure) => failure.to_string(),
            })
            .collect()
    }

    #[test]
    fn a_binary_trace_says_where_it_is_wrong_or_cut_off() {
        let machine = [1, 2, 0, 0x80, 0x20, 48, 48, 2, 0x80, 0x80, 0x80, 0x80, 4, 0x80, 0x20];
        let with = |rest: &[u8]| binary(&[&machine[..], rest].concat());
        assert_eq!(with(&[8, 8, 0]), ["2 CPUs", "2 events"]);
        assert_eq!(with(&[8, 18, 8]), ["2 CPUs", "vectors at 0x8", "1 events", "cut"]);
        assert_eq!(with(&[8, 22, 128, 4, 9]), ["2 CPUs", "9 idle at 0x4", "1 events", "cut"]);
        assert_eq!(with(&[8, 0x48]), ["2 CPUs", "1 events", "cut"]);
        assert_eq!(with(&[8, 0x93]), ["2 CPUs", "1 events", "record 4: 0x93 begins no record"]);
        assert_eq!(with(&[0x48, 2]), ["record 3: CPU 2: the machine has 2, numbered from 0"]);
        assert_eq!(binary(&[0]), ["a trace without a machine"]);
        assert_eq!(binary(&[8]), ["record 1: the trace has to begin with the line `machine`"]);
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

//! linmap's own format of traces: lines to be read and written by people.
//!
//! [`linmap_trace`] defines the lines. This module reads and writes a whole file: it checks that
//! the machine comes first and once, that it has the CPUs named, and that stores and freed memory
//! lie in memory declared before.

use std::fmt::Write as _;

use linmap_trace::{Line, Ram, Recorded, Word};

use super::Trace;
use super::ranges::Ranges;
use super::read_error::{Problem, ReadError};
use crate::config::{Config, ConfigError};

/// Reads a trace. Where the instructions lie (`pc=`) is not part of it: see [`Reader`].
///
/// # Errors
/// A [`ReadError`] with the first line that is wrong.
pub fn read(file: &[u8]) -> Result<Trace, ReadError> {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    for text in file.split(|&byte| byte == b'\n') {
        events.extend(reader.line(text)?.map(|recorded| recorded.event));
    }
    Ok(Trace { config: reader.machine()?.clone(), events })
}

/// Writes a trace. [`read`] returns it unchanged if it is one that can be read: its machine
/// possible, its stores aligned and in memory.
#[must_use]
pub fn write(trace: &Trace) -> String {
    let mut text = String::new();
    let head = Line::Machine(trace.config.head());
    let ram = trace.config.ram.iter().map(|&(start, len)| Line::Ram(Ram { start, len }));
    let events = trace.events.iter().copied().map(Line::from);
    for line in [head].into_iter().chain(ram).chain(events) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Reads a trace line by line, in memory that does not grow with the number of events.
///
/// ```
/// use linmap_model::trace::text::Reader;
///
/// let mut reader = Reader::default();
/// reader.line(b"machine cpus=1 bbm=0 granule=4K va=48 pa=48").unwrap();
/// reader.line(b"ram 0x40000000 0x10000000").unwrap();
/// let recorded = reader.line(b"0 store 0x40001000 0x703 pc=0xffff800080012340").unwrap().unwrap();
/// assert_eq!(recorded.pc, Some(0xffff_8000_8001_2340));
/// let error = reader.line(b"1 isb").unwrap_err();
/// assert_eq!(error.to_string(), "line 4, column 1: CPU 1: the machine has 1, numbered from 0");
/// ```
#[derive(Debug, Default)]
pub struct Reader {
    machine: Option<Config>,
    ram: Ranges,
    /// The range of `ram` that held the last store.
    last: (u64, u64),
    lines: usize,
    has_events: bool,
}

/// A line that is not one of this trace.
struct Refused {
    /// The word that says so.
    nth: usize,
    problem: Problem,
}

impl Reader {
    /// Reads the next line, which does not include its line feed. Returns the event, if it is one.
    ///
    /// # Errors
    /// A [`ReadError`]. The reader counts the line all the same.
    pub fn line(&mut self, text: &[u8]) -> Result<Option<Recorded>, ReadError> {
        self.lines += 1;
        let number = self.lines;
        // What is wrong with word `nth` of the line.
        let at = |nth, problem| ReadError { line: number, column: Word::of(text, nth).column, problem };
        if self.machine.is_none() && !matches!(Word::of(text, 0).bytes, b"" | b"machine") {
            return Err(at(0, Problem::NoHead));
        }
        let Some(line) = Line::read(text).map_err(|error| ReadError::of_line(number, error))? else {
            return Ok(None);
        };
        self.accept(line).map_err(|Refused { nth, problem }| at(nth, problem))
    }

    /// Takes the next record of a trace in binary form. Returns the event, if it is one.
    ///
    /// # Errors
    /// What is wrong with the record. The reader counts it all the same.
    pub fn record(&mut self, line: Line) -> Result<Option<Recorded>, Problem> {
        self.lines += 1;
        self.accept(line).map_err(|Refused { problem, .. }| problem)
    }

    fn accept(&mut self, line: Line) -> Result<Option<Recorded>, Refused> {
        let refused = |nth, problem| Refused { nth, problem };
        match (line, &mut self.machine) {
            (Line::Event(recorded), Some(config)) => {
                let (event, cpus) = (recorded.event, config.cpus);
                if let Some(cpu) = event.cpu().filter(|cpu| *cpu >= cpus) {
                    return Err(refused(0, Problem::NoSuchCpu { cpu: cpu as u64, cpus }));
                }
                if let Some((start, len)) = event.memory()
                    && !self.holds(start, len)
                {
                    // The address is the word after the event's name.
                    let nth = if event.cpu().is_some() { 2 } else { 1 };
                    return Err(refused(nth, Problem::OutsideRam { start, len: len.unwrap_or(u64::MAX) }));
                }
                self.has_events = true;
                Ok(Some(recorded))
            }
            (Line::Machine(head), None) => {
                let config = Config::from(head);
                config.check().map_err(|error| refused(0, Problem::Config(error)))?;
                self.machine = Some(config);
                Ok(None)
            }
            (Line::Machine(_), Some(_)) => Err(refused(0, Problem::SecondHead)),
            (_, None) => Err(refused(0, Problem::NoHead)),
            (Line::Ram(_), Some(_)) if self.has_events => Err(refused(0, Problem::LateRam)),
            (Line::Ram(ram), Some(config)) => {
                declare(config, &mut self.ram, ram).map_err(|error| refused(1, Problem::Config(error)))?;
                Ok(None)
            }
        }
    }

    /// The machine and its memory as far as they were read: all of both once an event was.
    ///
    /// # Errors
    /// No line has described a machine.
    pub fn machine(&self) -> Result<&Config, ReadError> {
        let missing = ReadError { line: self.lines, column: 1, problem: Problem::NoHead };
        self.machine.as_ref().ok_or(missing)
    }

    /// Whether an event was read, after which the machine stays as it is.
    pub fn has_events(&self) -> bool {
        self.has_events
    }

    /// The number of lines read.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Whether a range is all memory; a length of `None` is more than there can be.
    fn holds(&mut self, start: u64, len: Option<u64>) -> bool {
        let Some(end) = len.and_then(|len| start.checked_add(len)) else { return false };
        if self.last.0 <= start && end <= self.last.1 {
            return true;
        }
        let range = self.ram.around(start);
        self.last = range.unwrap_or(self.last);
        range.is_some_and(|(_, last)| end <= last)
    }
}

/// Adds memory to a machine.
fn declare(config: &mut Config, declared: &mut Ranges, Ram { start, len }: Ram) -> Result<(), ConfigError> {
    // Each range is checked alone, and against the others by a look-up, so that many ranges take no
    // longer each.
    Config { ram: vec![(start, len)], ..*config }.check()?;
    if declared.meet(start, start + len) {
        return Err(ConfigError::Ram { start, len });
    }
    declared.insert(start, start + len);
    config.ram.push((start, len));
    Ok(())
}

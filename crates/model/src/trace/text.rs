//! linmap's own format of traces: lines to be read and written by people.
//!
//! [`linmap_trace`] defines the lines. This module reads and writes a whole file: it checks that
//! the machine comes first and once, that it has the CPUs named, and that stores and freed memory
//! lie in memory declared before.

use std::fmt::Write as _;

use linmap_trace::{Event, Line, Ram, Word};

use super::Trace;
use super::ranges::Ranges;
use super::read_error::{Problem, ReadError};
use crate::config::{Config, ConfigError};

/// Reads a trace.
///
/// # Errors
/// A [`ReadError`] with the first line that is wrong.
pub fn read(file: &[u8]) -> Result<Trace, ReadError> {
    let mut reader = Reader::default();
    let mut lines = 0;
    for (nth, text) in file.split(|&byte| byte == b'\n').enumerate() {
        lines = nth + 1;
        reader.line(lines, text)?;
    }
    match reader.machine {
        Some(config) => Ok(Trace { config, events: reader.events }),
        None => Err(ReadError { line: lines, column: 1, problem: Problem::NoHead }),
    }
}

/// Writes a trace. [`read`] returns it unchanged if it is one that can be read: its machine
/// possible, its stores aligned and in memory.
#[must_use]
pub fn write(trace: &Trace) -> String {
    let mut text = String::new();
    let head = Line::Machine(trace.config.head());
    let ram = trace.config.ram.iter().map(|&(start, len)| Line::Ram(Ram { start, len }));
    let events = trace.events.iter().copied().map(Line::Event);
    for line in [head].into_iter().chain(ram).chain(events) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    machine: Option<Config>,
    ram: Ranges,
    events: Vec<Event>,
}

impl Reader {
    /// Reads line number `number`.
    fn line(&mut self, number: usize, text: &[u8]) -> Result<(), ReadError> {
        // What is wrong with word `nth` of the line.
        let at = |nth, problem| ReadError { line: number, column: Word::of(text, nth).column, problem };
        if self.machine.is_none() && !matches!(Word::of(text, 0).bytes, b"" | b"machine") {
            return Err(at(0, Problem::NoHead));
        }
        let Some(line) = Line::read(text).map_err(|error| ReadError::of_line(number, error))? else {
            return Ok(());
        };
        match (line, &mut self.machine) {
            (Line::Machine(head), None) => {
                let config = Config::from(head);
                config.check().map_err(|error| at(0, Problem::Config(error)))?;
                self.machine = Some(config);
                Ok(())
            }
            (Line::Machine(_), Some(_)) => Err(at(0, Problem::SecondHead)),
            (_, None) => Err(at(0, Problem::NoHead)),
            (Line::Ram(_), Some(_)) if !self.events.is_empty() => Err(at(0, Problem::LateRam)),
            (Line::Ram(ram), Some(config)) => {
                declare(config, &mut self.ram, ram).map_err(|error| at(1, Problem::Config(error)))
            }
            (Line::Event(event), Some(config)) => {
                let cpus = config.cpus;
                if let Some(cpu) = event.cpu().filter(|cpu| *cpu >= cpus) {
                    return Err(at(0, Problem::NoSuchCpu { cpu: cpu as u64, cpus }));
                }
                if let Some((start, len)) = event.memory().filter(|range| !self.holds(*range)) {
                    // The address is the word after the event's name.
                    let nth = if event.cpu().is_some() { 2 } else { 1 };
                    return Err(at(nth, Problem::OutsideRam { start, len: len.unwrap_or(u64::MAX) }));
                }
                self.events.push(event);
                Ok(())
            }
        }
    }

    /// Whether a range is all memory; a length of `None` is more than there can be.
    fn holds(&self, (start, len): (u64, Option<u64>)) -> bool {
        let end = len.and_then(|len| start.checked_add(len));
        end.is_some_and(|end| self.ram.cover(start, end))
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

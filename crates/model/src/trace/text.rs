//! linmap's own format of traces: lines to be read and written by people.
//!
//! A line is words with spaces or tabs between them; `#` and all after it is a comment; empty lines count for nothing.
//! Numbers are decimal, or hexadecimal after `0x`, with `_` between digits wherever it helps. Words stand in the order
//! shown, none is optional but those in brackets. The first line is the machine, then comes its memory, then the events:
//!
//! ```text
//! machine cpus=N bbm=N granule=4K|16K|64K va=BITS pa=BITS
//! ram START LENGTH
//!
//! CPU store PA VALUE [via=VA]
//! CPU fill PA count=WORDS first=VALUE step=VALUE
//! CPU dsb nsh|nshst|ish|ishst|osh|oshst|sy|st
//! CPU isb
//! CPU tlbi NAME [OPERAND]
//! CPU msr ttbr0_el1|ttbr1_el1|tcr_el1|mair_el1|ttbr0_el2|vttbr_el2 VALUE
//! CPU read|write|exec VA pa=PA
//! CPU read|write|exec VA faults
//! CPU uses VA len=BYTES read|write|exec
//! CPU unuses VA len=BYTES read|write|exec
//! free PA LENGTH
//! settled
//! ```
//!
//! A TLBI has the architecture's name, with `is` when it is broadcast, and an operand when the instruction has one.
//! Stores and fills are whole words, freed memory is whole pages of 4 KiB, and all of it lies in declared memory.

use std::fmt::{self, Display, Formatter, Write as _};

use super::ranges::Ranges;
use super::{Problem, ReadError, TooLarge, names, number, quoted};
use crate::event::{Event, Tlbi, Use};
use crate::{Config, ConfigError, Trace};

const GRANULES: [(&str, u64); 3] = [("4K", 0x1000), ("16K", 0x4000), ("64K", 0x1_0000)];
const PAGE: u64 = 0x1000;

/// Reads a trace.
///
/// # Errors
/// A [`ReadError`] with the first line that is not as the [module](self) says.
pub fn read(file: &[u8]) -> Result<Trace, ReadError> {
    let mut reader = Reader::default();
    let mut lines = 0;
    for (nth, text) in file.split(|&byte| byte == b'\n').enumerate() {
        lines = nth + 1;
        let text = text.split(|&byte| byte == b'#').next().unwrap_or_default();
        let mut words = Words { line: lines, text, at: 0 };
        if let Some(word) = words.next() {
            reader.line(word, &mut words)?;
        }
    }
    match reader.machine {
        Some(config) => Ok(Trace { config, events: reader.events }),
        None => Err(ReadError { line: lines, column: 1, problem: Problem::NoHead }),
    }
}

/// Writes a trace. [`read`] gives it back unchanged when it is one that can be read: its machine possible, its stores
/// aligned and in memory.
#[must_use]
pub fn write(trace: &Trace) -> String {
    let config = &trace.config;
    let mut text = format!("machine cpus={} bbm={} granule=", config.cpus, config.bbm);
    // Writing to a String can't fail, here and below.
    let _ = match GRANULES.iter().find(|(_, bytes)| *bytes == config.granule) {
        Some((name, _)) => write!(text, "{name}"),
        None => write!(text, "{:#x}", config.granule),
    };
    let _ = writeln!(text, " va={} pa={}", config.va_bits, config.pa_bits);
    for (start, len) in &config.ram {
        let _ = writeln!(text, "ram {start:#x} {len:#x}");
    }
    for event in &trace.events {
        let _ = writeln!(text, "{event}");
    }
    text
}

impl Display for Use {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "exec",
        })
    }
}

impl Display for Tlbi {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (stem, is) = names::of_tlbi(*self);
        write!(f, "{stem}{is}")
    }
}

/// The event as a line of a trace.
impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Store { cpu, pa, value, via } => {
                write!(f, "{cpu} store {pa:#x} {value:#x}")?;
                via.map_or(Ok(()), |via| write!(f, " via={via:#x}"))
            }
            Self::Fill { cpu, pa, count, first, step } => {
                write!(f, "{cpu} fill {pa:#x} count={count} first={first:#x} step={step:#x}")
            }
            Self::Dsb { cpu, domain, access } => {
                write!(f, "{cpu} dsb {}", names::of_barrier(domain, access))
            }
            Self::Isb { cpu } => write!(f, "{cpu} isb"),
            Self::Tlbi { cpu, tlbi, operand } => {
                write!(f, "{cpu} tlbi {tlbi}")?;
                if names::takes_operand(tlbi.scope) { write!(f, " {operand:#x}") } else { Ok(()) }
            }
            Self::Write { cpu, register, value } => {
                write!(f, "{cpu} msr {} {value:#x}", names::of_register(register))
            }
            Self::Access { cpu, va, kind, pa } => write!(f, "{cpu} {kind} {va:#x} pa={pa:#x}"),
            Self::Faults { cpu, va, kind } => write!(f, "{cpu} {kind} {va:#x} faults"),
            Self::Uses { cpu, va, len, kind } => write!(f, "{cpu} uses {va:#x} len={len:#x} {kind}"),
            Self::Unuses { cpu, va, len, kind } => write!(f, "{cpu} unuses {va:#x} len={len:#x} {kind}"),
            Self::Free { pa, len } => write!(f, "free {pa:#x} {len:#x}"),
            Self::Settled => f.write_str("settled"),
        }
    }
}

/// A word and the column where it begins.
#[derive(Clone, Copy)]
struct Word<'a> {
    line: usize,
    column: usize,
    bytes: &'a [u8],
}

impl<'a> Word<'a> {
    fn error(self, problem: Problem) -> ReadError {
        ReadError { line: self.line, column: self.column, problem }
    }

    fn unexpected(self, expected: &'static str) -> ReadError {
        let found = if self.bytes.is_empty() { "the end of the line".into() } else { quoted(self.bytes) };
        self.error(Problem::Expected { expected, found })
    }

    fn number(self) -> Result<u64, ReadError> {
        let value = match self.bytes.strip_prefix(b"0x") {
            Some(digits) => number(digits, 16),
            None => number(self.bytes, 10),
        };
        let value = value.ok_or_else(|| self.unexpected("a number"))?;
        value.map_err(|TooLarge| self.error(Problem::TooLarge(quoted(self.bytes))))
    }

    /// A number that fits a smaller type.
    fn small<T: TryFrom<u64>>(self) -> Result<T, ReadError> {
        T::try_from(self.number()?).map_err(|_| self.error(Problem::TooLarge(quoted(self.bytes))))
    }

    /// A number that is a multiple of another.
    fn multiple(self, multiple: u64) -> Result<u64, ReadError> {
        let value = self.number()?;
        if value.is_multiple_of(multiple) {
            Ok(value)
        } else {
            Err(self.error(Problem::Unaligned { value, multiple }))
        }
    }

    /// A number that is not 0.
    fn length(self) -> Result<u64, ReadError> {
        match self.number()? {
            0 => Err(self.error(Problem::Empty)),
            len => Ok(len),
        }
    }

    fn kind(self) -> Result<Use, ReadError> {
        kind(self.bytes).ok_or_else(|| self.unexpected("read, write or exec"))
    }

    /// What stands behind `key`, as a word of its own.
    fn after(self, key: &'static str) -> Result<Word<'a>, ReadError> {
        let bytes = self.bytes.strip_prefix(key.as_bytes()).ok_or_else(|| self.unexpected(key))?;
        Ok(Word { column: self.column + key.len(), bytes, ..self })
    }
}

fn kind(word: &[u8]) -> Option<Use> {
    match word {
        b"read" => Some(Use::Read),
        b"write" => Some(Use::Write),
        b"exec" => Some(Use::Execute),
        _ => None,
    }
}

/// The words of a line.
struct Words<'a> {
    line: usize,
    text: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    /// The next word; an empty one behind the last.
    fn word(&mut self) -> Word<'a> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace());
        let rest = start.and_then(|start| rest.get(start..)).unwrap_or_default();
        let len = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let bytes = rest.get(..len).unwrap_or_default();
        let column = match start {
            Some(start) => self.at + start + 1,
            None => self.text.trim_ascii_end().len() + 1,
        };
        self.at = column - 1 + len;
        Word { line: self.line, column, bytes }
    }

    fn next(&mut self) -> Option<Word<'a>> {
        Some(self.word()).filter(|word| !word.bytes.is_empty())
    }

    /// The next word behind `key`.
    fn field(&mut self, key: &'static str) -> Result<Word<'a>, ReadError> {
        self.word().after(key)
    }

    fn end(&mut self) -> Result<(), ReadError> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(word.error(Problem::Trailing(quoted(word.bytes)))),
        }
    }
}

#[derive(Default)]
struct Reader {
    machine: Option<Config>,
    ram: Ranges,
    events: Vec<Event>,
}

impl Reader {
    fn line(&mut self, first: Word<'_>, words: &mut Words<'_>) -> Result<(), ReadError> {
        let Some(config) = &mut self.machine else {
            if first.bytes != b"machine" {
                return Err(first.error(Problem::NoHead));
            }
            self.machine = Some(machine(first, words)?);
            return words.end();
        };
        let event = match first.bytes {
            b"machine" => return Err(first.error(Problem::SecondHead)),
            b"ram" => {
                if !self.events.is_empty() {
                    return Err(first.error(Problem::LateRam));
                }
                return ram(config, &mut self.ram, words);
            }
            b"free" => {
                let start = words.word();
                let pa = start.multiple(PAGE)?;
                let len = words.word();
                let len = len.length().and(len.multiple(PAGE))?;
                self.in_ram(start, pa, Some(len))?;
                Event::Free { pa, len }
            }
            b"settled" => Event::Settled,
            [b'0'..=b'9', ..] => {
                let cpu = first.number()?;
                let cpus = config.cpus;
                match usize::try_from(cpu) {
                    Ok(cpu) if cpu < cpus => self.on_cpu(cpu, words)?,
                    _ => return Err(first.error(Problem::NoSuchCpu { cpu, cpus })),
                }
            }
            word => return Err(first.error(Problem::UnknownEvent(quoted(word)))),
        };
        words.end()?;
        self.events.push(event);
        Ok(())
    }

    fn on_cpu(&self, cpu: usize, words: &mut Words<'_>) -> Result<Event, ReadError> {
        let name = words.word();
        Ok(match name.bytes {
            b"store" => {
                let at = words.word();
                let pa = at.multiple(8)?;
                self.in_ram(at, pa, Some(8))?;
                let value = words.word().number()?;
                let via = words.next().map(|word| word.after("via=")?.number()).transpose()?;
                Event::Store { cpu, pa, value, via }
            }
            b"fill" => {
                let at = words.word();
                let pa = at.multiple(8)?;
                let count = words.field("count=")?.length()?;
                self.in_ram(at, pa, count.checked_mul(8))?;
                let first = words.field("first=")?.number()?;
                let step = words.field("step=")?.number()?;
                Event::Fill { cpu, pa, count, first, step }
            }
            b"dsb" => {
                let word = words.word();
                let barrier = names::barrier(word.bytes);
                let (domain, access) =
                    barrier.ok_or_else(|| unknown(word, "the option of a DSB", Problem::UnknownBarrier))?;
                Event::Dsb { cpu, domain, access }
            }
            b"isb" => Event::Isb { cpu },
            b"tlbi" => {
                let word = words.word();
                let tlbi = names::tlbi(word.bytes);
                let tlbi = tlbi.ok_or_else(|| unknown(word, "the name of a TLBI", Problem::UnknownTlbi))?;
                let operand = if names::takes_operand(tlbi.scope) { words.word().number()? } else { 0 };
                Event::Tlbi { cpu, tlbi, operand }
            }
            b"msr" => {
                let word = words.word();
                let register = names::register(word.bytes);
                let register =
                    register.ok_or_else(|| unknown(word, "a register", Problem::UnknownRegister))?;
                Event::Write { cpu, register, value: words.word().number()? }
            }
            b"uses" | b"unuses" => {
                let start = words.word();
                let va = start.number()?;
                let len = words.field("len=")?.length()?;
                if va.checked_add(len - 1).is_none() {
                    return Err(start.error(Problem::BeyondEnd { start: va, len }));
                }
                let kind = words.word().kind()?;
                match name.bytes {
                    b"uses" => Event::Uses { cpu, va, len, kind },
                    _ => Event::Unuses { cpu, va, len, kind },
                }
            }
            other => {
                let kind = kind(other).ok_or_else(|| unknown(name, "an event", Problem::UnknownEvent))?;
                let va = words.word().number()?;
                let outcome = words.word();
                match outcome.bytes {
                    b"faults" => Event::Faults { cpu, va, kind },
                    _ if outcome.bytes.starts_with(b"pa=") => {
                        Event::Access { cpu, va, kind, pa: outcome.after("pa=")?.number()? }
                    }
                    _ => return Err(outcome.unexpected("pa= or faults")),
                }
            }
        })
    }

    /// Whether the bytes from `start` are all memory; a length of `None` is more than there can be.
    fn in_ram(&self, word: Word<'_>, start: u64, len: Option<u64>) -> Result<(), ReadError> {
        let end = len.and_then(|len| start.checked_add(len));
        if end.is_some_and(|end| self.ram.cover(start, end)) {
            return Ok(());
        }
        Err(word.error(Problem::OutsideRam { start, len: len.unwrap_or(u64::MAX) }))
    }
}

/// The error for a word that names nothing, or for no word at all.
fn unknown(word: Word<'_>, expected: &'static str, problem: fn(String) -> Problem) -> ReadError {
    if word.bytes.is_empty() { word.unexpected(expected) } else { word.error(problem(quoted(word.bytes))) }
}

fn machine(head: Word<'_>, words: &mut Words<'_>) -> Result<Config, ReadError> {
    let cpus = words.field("cpus=")?.small()?;
    let bbm = words.field("bbm=")?.small()?;
    let word = words.field("granule=")?;
    let granule = GRANULES.iter().find(|(name, _)| name.as_bytes() == word.bytes);
    let &(_, granule) = granule.ok_or_else(|| word.unexpected("4K, 16K or 64K"))?;
    let va_bits = words.field("va=")?.small()?;
    let pa_bits = words.field("pa=")?.small()?;
    let config = Config { cpus, bbm, granule, va_bits, pa_bits, ram: Vec::new() };
    config.check().map_err(|error| head.error(Problem::Config(error)))?;
    Ok(config)
}

fn ram(config: &mut Config, ram: &mut Ranges, words: &mut Words<'_>) -> Result<(), ReadError> {
    let word = words.word();
    let start = word.number()?;
    let len = words.word().number()?;
    words.end()?;
    // One range at a time: whether it overlaps another is looked up, so that many ranges take no longer each.
    let alone = Config { ram: vec![(start, len)], ..*config };
    alone.check().map_err(|error| word.error(Problem::Config(error)))?;
    if ram.meet(start, start + len) {
        return Err(word.error(Problem::Config(ConfigError::Ram { start, len })));
    }
    ram.insert(start, start + len);
    config.ram.push((start, len));
    Ok(())
}

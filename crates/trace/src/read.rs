//! The text form, read line by line.

use crate::event::{Event, Register, Tlbi, Use};
use crate::head::{GRANULES, Head, PAGE, Ram};
use crate::line::Line;
use crate::malformed::{LineError, Malformed};
use crate::names::barrier_named;
use crate::recorded::Recorded;
use crate::words::{Word, Words};

impl Line {
    /// Reads `line`, which does not include its line feed. Returns `None` for a line without words.
    ///
    /// The line is judged by itself. The order of lines, the number of CPUs and the extent of
    /// memory are for the reader of the whole trace to check.
    ///
    /// # Errors
    /// [`LineError`], which says what is wrong and where.
    pub fn read(line: &[u8]) -> Result<Option<Self>, LineError> {
        let mut words = Words::of(line);
        let Some(first) = words.next() else { return Ok(None) };
        let event = match first.bytes {
            [b'0'..=b'9', ..] => on_cpu(first.small()?, &mut words)?,
            b"settled" => Event::Settled,
            b"free" => {
                let pa = words.multiple(PAGE)?;
                let len = words.word();
                Event::Free { pa, len: len.length().and(len.multiple(PAGE))? }
            }
            b"machine" => {
                let head = head(&mut words)?;
                words.end()?;
                return Ok(Some(Self::Machine(head)));
            }
            b"ram" => {
                let ram = Ram { start: words.number()?, len: words.number()? };
                words.end()?;
                return Ok(Some(Self::Ram(ram)));
            }
            _ => return Err(first.unknown("an event", Malformed::UnknownEvent)),
        };
        let pc = words.optional("pc=")?;
        words.end()?;
        Ok(Some(Self::Event(Recorded { event, pc })))
    }
}

fn head(words: &mut Words<'_>) -> Result<Head, LineError> {
    let cpus = words.field("cpus=")?.small()?;
    let bbm = words.field("bbm=")?.small()?;
    let word = words.field("granule=")?;
    let granule = GRANULES.iter().find(|(name, _)| name.as_bytes() == word.bytes);
    let &(_, granule) = granule.ok_or_else(|| word.unexpected("4K, 16K or 64K"))?;
    let va_bits = words.field("va=")?.small()?;
    let pa_bits = words.field("pa=")?.small()?;
    Ok(Head { cpus, bbm, granule, va_bits, pa_bits })
}

/// Reads what `cpu` does.
fn on_cpu(cpu: usize, words: &mut Words<'_>) -> Result<Event, LineError> {
    let name = words.word();
    Ok(match name.bytes {
        b"store" => {
            let (pa, value, via) = stored(words)?;
            Event::Store { cpu, pa, value, via }
        }
        b"update" => {
            let (pa, value) = (words.multiple(8)?, words.number()?);
            let (old, via) = (words.optional("old=")?, words.optional("via=")?);
            Event::Update { cpu, pa, value, old, via }
        }
        b"fill" => {
            let pa = words.multiple(8)?;
            let count = words.field("count=")?.length()?;
            let first = words.field("first=")?.number()?;
            let step = words.field("step=")?.number()?;
            Event::Fill { cpu, pa, count, first, step }
        }
        b"dsb" => {
            let word = words.word();
            let (domain, access) = barrier_named(word.bytes)
                .ok_or_else(|| word.unknown("the option of a DSB", Malformed::UnknownBarrier))?;
            Event::Dsb { cpu, domain, access }
        }
        b"dmb" => {
            let word = words.word();
            let (domain, access) = barrier_named(word.bytes)
                .ok_or_else(|| word.unknown("the option of a DMB", Malformed::UnknownBarrier))?;
            Event::Dmb { cpu, domain, access }
        }
        b"release" => Event::Release { cpu, pa: words.multiple(8)? },
        b"acquire" => Event::Acquire { cpu, pa: words.multiple(8)? },
        b"isb" => Event::Isb { cpu },
        b"thread" => Event::Thread { cpu, thread: words.number()? },
        b"user" => Event::User { cpu, thread: words.number()? },
        b"tlbi" => {
            let word = words.word();
            let tlbi = Tlbi::named(word.bytes)
                .ok_or_else(|| word.unknown("the name of a TLBI", Malformed::UnknownTlbi))?;
            let operand = if tlbi.scope.takes_operand() { words.number()? } else { 0 };
            Event::Tlbi { cpu, tlbi, operand }
        }
        b"msr" => {
            let word = words.word();
            let register = Register::named(word.bytes)
                .ok_or_else(|| word.unknown("a register", Malformed::UnknownRegister))?;
            Event::Write { cpu, register, value: words.number()? }
        }
        b"uses" => {
            let (va, len, kind) = in_use(words)?;
            Event::Uses { cpu, va, len, kind }
        }
        b"unuses" => {
            let (va, len, kind) = in_use(words)?;
            Event::Unuses { cpu, va, len, kind }
        }
        _ => access(cpu, name, words)?,
    })
}

/// Reads an address, a value, and the virtual address that leads there.
fn stored(words: &mut Words<'_>) -> Result<(u64, u64, Option<u64>), LineError> {
    let pa = words.multiple(8)?;
    let value = words.number()?;
    let via = words.optional("via=")?;
    Ok((pa, value, via))
}

/// Reads a range of virtual addresses and how it is used.
fn in_use(words: &mut Words<'_>) -> Result<(u64, u64, Use), LineError> {
    let start = words.word();
    let va = start.number()?;
    let len = words.field("len=")?.length()?;
    if va.checked_add(len - 1).is_none() {
        return Err(start.error(Malformed::BeyondEnd { start: va, len }));
    }
    Ok((va, len, words.word().kind()?))
}

/// Reads an access of the kind called `name`, and how it has to end.
fn access(cpu: usize, name: Word<'_>, words: &mut Words<'_>) -> Result<Event, LineError> {
    let kind = Use::named(name.bytes).ok_or_else(|| name.unknown("an event", Malformed::UnknownEvent))?;
    let va = words.number()?;
    let outcome = words.word();
    match outcome.bytes {
        b"faults" => Ok(Event::Faults { cpu, va, kind }),
        bytes if bytes.starts_with(b"pa=") => {
            Ok(Event::Access { cpu, va, kind, pa: outcome.after("pa=")?.number()? })
        }
        _ => Err(outcome.unexpected("pa= or faults")),
    }
}

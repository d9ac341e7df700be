//! The binary form, read.

use core::str;

use thiserror::Error;

use super::bytes::{Missing, Reader};
use super::{Barrier, Context, HAS_PC, ISB, Idle, KIND, LONGEST_NOTE, OTHER_CPU, Record, kind};
use crate::event::{Event, Tlbi, Use};
use crate::head::{Head, PAGE, Ram};
use crate::line::Line;
use crate::malformed::Malformed;
use crate::names::{barrier_numbered, register_numbered, tlbi_numbered};
use crate::recorded::Recorded;

/// Reads records one after the other.
///
/// ```
/// use linmap_trace::binary::{Decoder, Record};
///
/// let mut decoder = Decoder::default();
/// // More bytes are needed than these.
/// assert_eq!(decoder.decode(&[0x48]), Ok(None));
/// // ISB of CPU 1, and what follows.
/// let Ok(Some((Record::Line(line), 2))) = decoder.decode(&[0x48, 1, 0xff]) else { panic!() };
/// assert_eq!(line.to_string(), "1 isb");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    context: Context,
}

/// Bytes that are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No record has this first byte.
    #[error("{0:#04x} begins no record")]
    UnknownRecord(u8),
    /// A field that holds none of the values it can.
    #[error("{number} is not {expected}")]
    Unknown {
        /// What is here.
        number: u64,
        /// What it should be.
        expected: &'static str,
    },
    /// A number of more bits than its field has.
    #[error("a number is too large for its field")]
    TooLarge,
    /// A note that is not UTF-8, or longer than notes are.
    #[error("a note is not text of at most {LONGEST_NOTE} bytes")]
    Note,
    /// What a line of the text form can't be either.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

const BARRIER: &str = "a barrier's option";

/// What ended the reading of a record.
enum Stop {
    /// The record is longer than the bytes.
    More,
    Error(DecodeError),
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Bytes => Self::More,
            Missing::TooLarge => Self::Error(DecodeError::TooLarge),
        }
    }
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Error(malformed.into())
    }
}

impl Decoder {
    /// Reads the record that `bytes` begin with, and says how many bytes it has. Returns `None` if
    /// `bytes` end within the record: give it again with the bytes behind.
    ///
    /// Each record is judged by itself, as [`Line::read`] judges a line.
    ///
    /// # Errors
    /// [`DecodeError`]. Nothing behind can be read.
    pub fn decode<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(Record<'b>, usize)>, DecodeError> {
        let mut context = self.context;
        let mut reader = Reader { bytes, at: 0 };
        match record(&mut context, &mut reader) {
            Ok(record) => {
                self.context = context;
                Ok(Some((record, reader.at)))
            }
            Err(Stop::More) => Ok(None),
            Err(Stop::Error(error)) => Err(error),
        }
    }
}

fn record<'b>(context: &mut Context, from: &mut Reader<'b>) -> Result<Record<'b>, Stop> {
    let first = from.byte()?;
    Ok(match first {
        kind::END => Record::End,
        kind::VECTORS => Record::Vectors(from.number()?),
        kind::IDLE => {
            let barrier = match from.byte()? {
                ISB => Barrier::Isb,
                number => {
                    let (domain, access) = named(number, barrier_numbered, BARRIER)?;
                    Barrier::Dsb(domain, access)
                }
            };
            Record::Idle(Idle { barrier, pc: from.number()?, count: from.number()? })
        }
        kind::NOTE => {
            let len = usize::try_from(from.number()?).ok().filter(|len| *len <= LONGEST_NOTE);
            let text = from.take(len.ok_or(Stop::Error(DecodeError::Note))?)?;
            Record::Note(str::from_utf8(text).map_err(|_| Stop::Error(DecodeError::Note))?)
        }
        kind::MACHINE => Record::Line(Line::Machine(Head {
            cpus: small(from.number()?)?,
            bbm: small(from.number()?)?,
            granule: from.number()?,
            va_bits: from.byte()?,
            pa_bits: from.byte()?,
        })),
        kind::RAM => Record::Line(Line::Ram(Ram { start: from.number()?, len: from.number()? })),
        _ => Record::Line(Line::Event(event(context, first, from)?)),
    })
}

fn event(context: &mut Context, first: u8, from: &mut Reader<'_>) -> Result<Recorded, Stop> {
    let unknown = Stop::Error(DecodeError::UnknownRecord(first));
    let kind = first & KIND;
    let is_event =
        matches!(kind, kind::STORE..=kind::SETTLED | kind::DMB..=kind::ACQUIRE | kind::THREAD | kind::USER);
    if first & !(KIND | HAS_PC | OTHER_CPU) != 0 || !is_event {
        return Err(unknown);
    }
    if first & OTHER_CPU != 0 {
        if matches!(kind, kind::FREE | kind::SETTLED) {
            return Err(unknown);
        }
        context.cpu = from.number()?;
    }
    let cpu = small(context.cpu)?;
    let pc = if first & HAS_PC != 0 { Some(from.relative(&mut context.pc)?) } else { None };
    let event = match kind {
        kind::STORE | kind::STORE_VIA => {
            let pa = word(&mut context.pa, from)?;
            let value = from.relative(&mut context.value)?;
            let via = if kind == kind::STORE_VIA { Some(from.number()?) } else { None };
            Event::Store { cpu, pa, value, via }
        }
        kind::UPDATE => {
            let pa = word(&mut context.pa, from)?;
            let value = from.relative(&mut context.value)?;
            let has = choice(from.byte()?, 4, "which numbers an update has")?;
            let old = if has & 1 != 0 { Some(from.number()?) } else { None };
            let via = if has & 2 != 0 { Some(from.number()?) } else { None };
            Event::Update { cpu, pa, value, old, via }
        }
        kind::FILL => {
            let pa = word(&mut context.pa, from)?;
            let count = length(from.number()?)?;
            let first = from.relative(&mut context.value)?;
            Event::Fill { cpu, pa, count, first, step: from.number()? }
        }
        kind::DSB | kind::DMB => {
            let (domain, access) = named(from.byte()?, barrier_numbered, BARRIER)?;
            if kind == kind::DSB {
                Event::Dsb { cpu, domain, access }
            } else {
                Event::Dmb { cpu, domain, access }
            }
        }
        kind::RELEASE => Event::Release { cpu, pa: word(&mut context.word, from)? },
        kind::ACQUIRE => Event::Acquire { cpu, pa: word(&mut context.word, from)? },
        kind::ISB => Event::Isb { cpu },
        kind::THREAD => Event::Thread { cpu, thread: from.relative(&mut context.thread)? },
        kind::USER => Event::User { cpu, thread: from.relative(&mut context.thread)? },
        kind::TLBI => {
            let number = from.byte()?;
            let scope = named(number >> 1, tlbi_numbered, "a TLBI")?;
            let operand = if scope.takes_operand() { from.relative(&mut context.operand)? } else { 0 };
            Event::Tlbi { cpu, tlbi: Tlbi { scope, broadcast: number & 1 != 0 }, operand }
        }
        kind::MSR => {
            let register = named(from.byte()?, register_numbered, "a register")?;
            Event::Write { cpu, register, value: from.number()? }
        }
        kind::ACCESS => {
            let kind = access(from.byte()?)?;
            Event::Access { cpu, kind, va: from.number()?, pa: from.number()? }
        }
        kind::FAULTS => {
            let kind = access(from.byte()?)?;
            Event::Faults { cpu, kind, va: from.number()? }
        }
        kind::USES | kind::UNUSES => {
            let used = access(from.byte()?)?;
            let (va, len) = (from.number()?, length(from.number()?)?);
            if va.checked_add(len - 1).is_none() {
                return Err(Malformed::BeyondEnd { start: va, len }.into());
            }
            if kind == kind::USES {
                Event::Uses { cpu, va, len, kind: used }
            } else {
                Event::Unuses { cpu, va, len, kind: used }
            }
        }
        kind::FREE => {
            let (pa, len) = (from.number()?, length(from.number()?)?);
            for value in [pa, len] {
                if !value.is_multiple_of(PAGE) {
                    return Err(Malformed::Unaligned { value, multiple: PAGE }.into());
                }
            }
            Event::Free { pa, len }
        }
        _ => Event::Settled,
    };
    Ok(Recorded { event, pc })
}

/// The address of a word, which is relative to that of the word before.
fn word(before: &mut u64, from: &mut Reader<'_>) -> Result<u64, Stop> {
    let word = from.relative(before)?;
    word.checked_mul(8).ok_or(Stop::Error(DecodeError::TooLarge))
}

fn small<T: TryFrom<u64>>(number: u64) -> Result<T, Stop> {
    T::try_from(number).map_err(|_| Stop::Error(DecodeError::TooLarge))
}

fn length(number: u64) -> Result<u64, Stop> {
    if number == 0 { Err(Malformed::Empty.into()) } else { Ok(number) }
}

fn choice(number: u8, of: u8, expected: &'static str) -> Result<u8, Stop> {
    if number < of { Ok(number) } else { named(number, |_| None, expected) }
}

fn named<T>(number: u8, of: fn(u8) -> Option<T>, expected: &'static str) -> Result<T, Stop> {
    let unknown = DecodeError::Unknown { number: number.into(), expected };
    of(number).ok_or(Stop::Error(unknown))
}

fn access(number: u8) -> Result<Use, Stop> {
    let of = |number| match number {
        0 => Some(Use::Read),
        1 => Some(Use::Write),
        2 => Some(Use::Execute),
        _ => None,
    };
    named(number, of, "a kind of access")
}

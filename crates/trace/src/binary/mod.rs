//! The binary form of a trace: what a recorder streams, at a few bytes an event.
//!
//! The README has the grammar. Numbers are relative to the ones before, so a reader needs every
//! byte from the first on.

mod bytes;
mod decode;
mod encode;

pub use decode::{DecodeError, Decoder};
pub use encode::Encoder;

use crate::event::{Access, Domain};
use crate::line::Line;

/// What a trace in binary form begins with: a byte that no text begins with, a name, the version.
pub const MAGIC: [u8; 8] = *b"\x93LMTRACE";

/// The version of the form, the byte behind [`MAGIC`].
pub const VERSION: u8 = 1;

/// The most bytes of a record.
pub const LONGEST: usize = 512;

/// The most bytes of a note; a longer one is cut.
pub const LONGEST_NOTE: usize = 400;

/// A record of a trace in binary form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Record<'a> {
    /// What the text form has as a line.
    Line(Line),
    /// What a reader of the verdict should know.
    Note(&'a str),
    /// The vectors of a CPU lie here (VBAR_ELx): by their symbol a reader finds where a kernel
    /// runs.
    Vectors(u64),
    /// How often a barrier was left out of the events.
    Idle(Idle),
    /// The recorder ended in order. Without this record the trace was cut short.
    End,
}

/// A barrier that had no effect on any table when it was executed: no store to one waited to be
/// ordered, no TLBI to be completed, no change to be synchronized. A recorder leaves such barriers
/// out of the events and counts them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Idle {
    /// Where the instruction lies.
    pub pc: u64,
    /// Which barrier it is.
    pub barrier: Barrier,
    /// How often it had no effect.
    pub count: u64,
}

/// A barrier instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Barrier {
    /// DSB of this option.
    Dsb(Domain, Access),
    /// ISB.
    Isb,
}

/// What numbers are relative to: those of the record before that had such a number.
#[derive(Clone, Copy, Debug, Default)]
struct Context {
    cpu: u64,
    pc: u64,
    pa: u64,
    value: u64,
    operand: u64,
    /// Of releases and acquires.
    word: u64,
    thread: u64,
}

/// The kinds of records, the low five bits of their first byte.
mod kind {
    pub const END: u8 = 0;
    pub const MACHINE: u8 = 1;
    pub const RAM: u8 = 2;
    pub const STORE: u8 = 3;
    pub const STORE_VIA: u8 = 4;
    pub const UPDATE: u8 = 5;
    pub const FILL: u8 = 6;
    pub const DSB: u8 = 7;
    pub const ISB: u8 = 8;
    pub const TLBI: u8 = 9;
    pub const MSR: u8 = 10;
    pub const ACCESS: u8 = 11;
    pub const FAULTS: u8 = 12;
    pub const USES: u8 = 13;
    pub const UNUSES: u8 = 14;
    pub const FREE: u8 = 15;
    pub const SETTLED: u8 = 16;
    pub const NOTE: u8 = 17;
    pub const VECTORS: u8 = 18;
    pub const DMB: u8 = 19;
    pub const RELEASE: u8 = 20;
    pub const ACQUIRE: u8 = 21;
    pub const IDLE: u8 = 22;
    pub const THREAD: u8 = 23;
    pub const USER: u8 = 24;
}

/// What an idle ISB has in place of a DSB's option.
const ISB: u8 = 0x80;

/// The low bits of a record's first byte: its kind.
const KIND: u8 = 0x1f;
/// The event has a PC.
const HAS_PC: u8 = 0x20;
/// The event is of another CPU than the event before.
const OTHER_CPU: u8 = 0x40;

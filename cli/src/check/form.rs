//! What an event is, without its addresses and values.

use std::fmt;

use linmap_model::Event;
use linmap_model::event::{Access, Domain, Register, Tlbi};
use linmap_trace::barrier_name;
use linmap_trace::binary::Barrier;

use crate::symbols::Instruction;

/// What an event is, without its addresses and values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// A store of a valid descriptor.
    Store,
    /// A store of an invalid descriptor.
    Clear,
    /// An atomic update.
    Update,
    /// Many stores.
    Fill,
    /// DSB.
    Dsb(Domain, Access),
    /// DMB.
    Dmb(Domain, Access),
    /// A store-release.
    Release,
    /// A load-acquire.
    Acquire,
    /// ISB, or another context synchronization.
    Isb,
    /// TLBI.
    Tlbi(Tlbi),
    /// A write of a register.
    Write(Register),
    /// Whose stores those before were.
    Thread,
    /// A return to EL0.
    User,
    /// What software relies on.
    Relies,
    /// Frames are freed.
    Free,
}

impl Form {
    /// The form of `event`.
    pub fn of(event: &Event) -> Self {
        match *event {
            Event::Store { value, .. } if value & 1 == 0 => Self::Clear,
            Event::Store { .. } => Self::Store,
            Event::Update { .. } => Self::Update,
            Event::Fill { .. } => Self::Fill,
            Event::Dsb { domain, access, .. } => Self::Dsb(domain, access),
            Event::Dmb { domain, access, .. } => Self::Dmb(domain, access),
            Event::Release { .. } => Self::Release,
            Event::Acquire { .. } => Self::Acquire,
            Event::Isb { .. } => Self::Isb,
            Event::Tlbi { tlbi, .. } => Self::Tlbi(tlbi),
            Event::Write { register, .. } => Self::Write(register),
            Event::Access { .. }
            | Event::Faults { .. }
            | Event::Uses { .. }
            | Event::Unuses { .. }
            | Event::Settled => Self::Relies,
            Event::Thread { .. } => Self::Thread,
            Event::User { .. } => Self::User,
            Event::Free { .. } => Self::Free,
        }
    }

    /// The kind of the instruction at `pc`, by which the kernel's file is compared. Context is also
    /// synchronized by an exception, whose first instruction may be any: it is in a vector.
    pub fn instruction(self, pc: u64) -> Option<Instruction> {
        match self {
            Self::Dsb(_, Access::All) => Some(Instruction::Dsb),
            Self::Dsb(_, Access::Stores) => Some(Instruction::DsbStores),
            Self::Isb if !pc.is_multiple_of(0x80) => Some(Instruction::Synchronizes),
            Self::Tlbi(_) => Some(Instruction::Tlbi),
            Self::Write(_) => Some(Instruction::Msr),
            _ => None,
        }
    }

    /// Whether it changes a table.
    pub fn is_store(self) -> bool {
        matches!(self, Self::Store | Self::Clear | Self::Update | Self::Fill)
    }
}

impl From<Barrier> for Form {
    fn from(barrier: Barrier) -> Self {
        match barrier {
            Barrier::Dsb(domain, access) => Self::Dsb(domain, access),
            Barrier::Isb => Self::Isb,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Store => f.write_str("store"),
            Self::Clear => f.write_str("clear"),
            Self::Update => f.write_str("update"),
            Self::Fill => f.write_str("fill"),
            Self::Dsb(domain, access) => write!(f, "dsb {}", barrier_name(domain, access)),
            Self::Dmb(domain, access) => write!(f, "dmb {}", barrier_name(domain, access)),
            Self::Release => f.write_str("release"),
            Self::Acquire => f.write_str("acquire"),
            Self::Isb => f.write_str("isb"),
            Self::Tlbi(tlbi) => write!(f, "tlbi {tlbi}"),
            Self::Write(register) => write!(f, "msr {}", register.name()),
            Self::Thread => f.write_str("thread"),
            Self::User => f.write_str("user"),
            Self::Relies => f.write_str("relies"),
            Self::Free => f.write_str("free"),
        }
    }
}

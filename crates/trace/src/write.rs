//! The text form, written: every value of a trace as its line or word.

use core::fmt::{Display, Formatter, Result};

use crate::event::{Event, Register, Tlbi, Use};
use crate::head::{GRANULES, Head, Ram};
use crate::line::Line;
use crate::names::barrier_name;

impl Display for Use {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())
    }
}

impl Display for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.name())
    }
}

impl Display for Tlbi {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}{}", self.scope.name(), if self.broadcast { "is" } else { "" })
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Self::Store { cpu, pa, value, via } => {
                write!(f, "{cpu} store {pa:#x} {value:#x}")?;
                via.map_or(Ok(()), |via| write!(f, " via={via:#x}"))
            }
            Self::Update { cpu, pa, value, old, via } => {
                write!(f, "{cpu} update {pa:#x} {value:#x}")?;
                old.map_or(Ok(()), |old| write!(f, " old={old:#x}"))?;
                via.map_or(Ok(()), |via| write!(f, " via={via:#x}"))
            }
            Self::Fill { cpu, pa, count, first, step } => {
                write!(f, "{cpu} fill {pa:#x} count={count} first={first:#x} step={step:#x}")
            }
            Self::Dsb { cpu, domain, access } => write!(f, "{cpu} dsb {}", barrier_name(domain, access)),
            Self::Dmb { cpu, domain, access } => write!(f, "{cpu} dmb {}", barrier_name(domain, access)),
            Self::Release { cpu, pa } => write!(f, "{cpu} release {pa:#x}"),
            Self::Acquire { cpu, pa } => write!(f, "{cpu} acquire {pa:#x}"),
            Self::Isb { cpu } => write!(f, "{cpu} isb"),
            Self::Thread { cpu, thread } => write!(f, "{cpu} thread {thread:#x}"),
            Self::User { cpu, thread } => write!(f, "{cpu} user {thread:#x}"),
            Self::Tlbi { cpu, tlbi, operand } => {
                write!(f, "{cpu} tlbi {tlbi}")?;
                if tlbi.scope.takes_operand() { write!(f, " {operand:#x}") } else { Ok(()) }
            }
            Self::Write { cpu, register, value } => write!(f, "{cpu} msr {register} {value:#x}"),
            Self::Access { cpu, va, kind, pa } => write!(f, "{cpu} {kind} {va:#x} pa={pa:#x}"),
            Self::Faults { cpu, va, kind } => write!(f, "{cpu} {kind} {va:#x} faults"),
            Self::Uses { cpu, va, len, kind } => write!(f, "{cpu} uses {va:#x} len={len:#x} {kind}"),
            Self::Unuses { cpu, va, len, kind } => write!(f, "{cpu} unuses {va:#x} len={len:#x} {kind}"),
            Self::Free { pa, len } => write!(f, "free {pa:#x} {len:#x}"),
            Self::Settled => f.write_str("settled"),
        }
    }
}

impl Display for Head {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { cpus, bbm, granule, va_bits, pa_bits } = *self;
        write!(f, "machine cpus={cpus} bbm={bbm} granule=")?;
        match GRANULES.iter().find(|(_, bytes)| *bytes == granule) {
            Some((name, _)) => f.write_str(name)?,
            None => write!(f, "{granule:#x}")?,
        }
        write!(f, " va={va_bits} pa={pa_bits}")
    }
}

impl Display for Ram {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "ram {:#x} {:#x}", self.start, self.len)
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Machine(head) => head.fmt(f),
            Self::Ram(ram) => ram.fmt(f),
            Self::Event(event) => event.fmt(f),
        }
    }
}

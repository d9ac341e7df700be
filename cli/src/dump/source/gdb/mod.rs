//! A running guest, by QEMU's gdb stub.
//!
//! Connecting stops the guest. The stub then gives the registers of each CPU by name, physical
//! memory in a mode of its own, and what the monitor says: where memory is, and why the guest is
//! stopped. At the end the mode is what it was, and the guest goes on if it ran.

mod description;
mod link;
mod memory;
mod mtree;
mod packet;
mod session;

use super::given::GivenRegisters;
use super::registers::{Found, NAMES, Registers};
use crate::dump::guest::Guest;
use crate::failure::Failure;
use description::Numbers;
use memory::StubMemory;
use session::{AtEnd, Session};

/// Most CPUs that are looked at for one that is not in user space.
const CPUS: usize = 16;

/// The guest whose gdb stub is at `place`, by its CPU `cpu` or one that is not in user space.
///
/// # Errors
/// There is no stub, it isn't QEMU's, or the guest has no tables.
pub fn open(
    place: &str,
    cpu: Option<usize>,
    keep_stopped: bool,
    given: &GivenRegisters,
) -> Result<Guest, Failure> {
    let mut session = Session::connect(place)?;
    if keep_stopped {
        session.at_end(AtEnd::StayStopped);
    }
    let mut notes = Vec::new();
    let numbers = session.registers()?;
    let status = session.monitor("info status")?;
    if let Some(note) = session.note_status(&status, keep_stopped) {
        notes.push(note);
    }
    let memory = mtree::memory(&session.monitor("info mtree -f")?);
    if memory.is_empty() {
        let failure = session.failure("QEMU's monitor does not tell where memory is");
        return Err(failure.hint("`info mtree -f` in the monitor should; QEMU's does, from version 4.1 on"));
    }
    let cpus = session.cpus()?;
    let found = match cpu {
        Some(cpu) => {
            let id = cpus.get(cpu).ok_or_else(|| {
                let failure = session.failure(format_args!("the guest has no CPU {cpu}"));
                failure.hint(format_args!("its CPUs are 0 to {}", cpus.len().saturating_sub(1)))
            })?;
            of_cpu(&mut session, &numbers, id, given)?
        }
        None => {
            let mut first = None;
            let mut chosen = None;
            for (nth, id) in cpus.iter().enumerate().take(CPUS) {
                let this = of_cpu(&mut session, &numbers, id, given)?;
                if this.el != Some(0) && !this.found.roots.is_empty() {
                    chosen = Some((nth, this));
                    break;
                }
                first = first.or(Some((nth, this)));
            }
            let (nth, this) = chosen.or(first).ok_or_else(|| session.failure("the guest has no CPU"))?;
            if nth != 0 {
                notes.push(format!("the tables are those of CPU {nth}"));
            }
            this
        }
    };
    if found.el == Some(0) {
        notes.push(
            "the CPU is in user space: a kernel that isolates its tables has others in TTBR1 then".to_owned(),
        );
    }
    let (roots, of_roots) = found.found.roots_and_notes().map_err(|failure| failure.of(place))?;
    notes.extend(of_roots);
    session.read_physically()?;
    Ok(Guest { memory: Box::new(StubMemory::new(session, memory)), roots, notes })
}

/// What a CPU's registers say.
struct OfCpu {
    /// The exception level that it is at, if it is known.
    el: Option<u64>,
    found: Found,
}

fn of_cpu(
    session: &mut Session,
    numbers: &Numbers,
    id: &str,
    given: &GivenRegisters,
) -> Result<OfCpu, Failure> {
    session.choose_cpu(id)?;
    let mut registers = Registers::default();
    for name in NAMES {
        // QEMU calls this one as AArch32 does.
        let other = if name == "SCTLR_EL1" { "SCTLR" } else { name };
        if let Some(number) = numbers.of(name).or_else(|| numbers.of(other)) {
            registers.set(name, session.register(number)?);
        }
    }
    if registers.get("TCR_EL1").is_none() {
        let failure = session.failure("the stub does not tell system registers");
        return Err(failure.hint("QEMU's does, from version 3.0 on"));
    }
    let cpsr = match numbers.of("cpsr") {
        Some(number) => Some(session.register(number)?),
        None => None,
    };
    // M[4] is set in AArch32, whose EL1 has other tables.
    if cpsr.is_some_and(|cpsr| cpsr >> 4 & 1 != 0) && cpsr.is_some_and(|cpsr| cpsr & 0xf != 0) {
        let failure = session.failure("the CPU is in AArch32, whose tables have another form");
        return Err(failure.hint("--cpu N names another CPU"));
    }
    let el = cpsr.map(|cpsr| if cpsr >> 4 & 1 != 0 { 0 } else { cpsr >> 2 & 0b11 });
    let given_roots = given.apply(&mut registers)?;
    Ok(OfCpu { el, found: registers.roots(&given.regime, &given_roots) })
}

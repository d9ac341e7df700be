//! Meeting the end because somebody asks for it, to see what comes of it.

use crate::arch::percpu;
use crate::boot::entry;
use crate::kexec::command::KexecError;
use crate::report;
use crate::shell::commands::CommandError;
use crate::smp::cross_call;

/// Panics.
pub fn panic(rest: &str) -> Result<(), CommandError> {
    meet_the_end(rest, PANIC, |milliseconds| {
        percpu::wait_until(milliseconds as u64, || false);
        panic!("CPU {} was asked to", percpu::this_cpu())
    })
}

/// Reads what is not mapped.
pub fn fault(rest: &str) -> Result<(), CommandError> {
    meet_the_end(rest, FAULT, |milliseconds| {
        percpu::wait_until(milliseconds as u64, || false);
        let [guard, _] = entry::guards();
        // SAFETY: nothing is mapped there, so that nothing is read.
        unsafe { core::ptr::with_exposed_provenance::<u64>(guard.0 as usize).read_volatile() };
    })
}

/// The words of `panic`.
pub const PANIC: &str = "panic [CPU [MILLISECONDS]]";
/// The words of `fault`.
pub const FAULT: &str = "fault [CPU [MILLISECONDS]]";

/// Has a CPU do `end`, which ends the kernel after so many milliseconds. With a time given, this CPU goes on while another
/// waits.
fn meet_the_end(rest: &str, usage: &'static str, end: fn(usize)) -> Result<(), CommandError> {
    let mut words = rest.split_whitespace();
    let mut next = || words.next().map(|word| word.parse::<usize>().map_err(|_| CommandError::Usage(usage)));
    let (cpu, delay) = (next().transpose()?.unwrap_or(0), next().transpose()?);
    if words.next().is_some() {
        return Err(CommandError::Usage(usage));
    }
    if cpu != 0 {
        cross_call::idle(cpu).map_err(KexecError::from)?;
    }
    report!("end=asked cpu={cpu}");
    if cpu == 0 {
        end(delay.unwrap_or(0));
        return Ok(());
    }
    cross_call::start_work(cpu, end, delay.unwrap_or(0)).map_err(KexecError::from)?;
    if delay.is_none() {
        // This CPU is stopped while it waits.
        percpu::wait_until(cross_call::PATIENCE, || false);
    }
    Ok(())
}

//! Commands that end the kernel, to see what happens then.

use crate::arch::image;
use crate::arch::per_cpu;
use crate::arch::wait::{PATIENCE, wait_until};
use crate::shell::error::CommandError;
use crate::smp::cross_call;
use crate::{report, say};

/// The words of `panic`.
pub const PANIC: &str = "panic [CPU [MILLISECONDS]]";
/// The words of `fault`.
pub const FAULT: &str = "fault [CPU [MILLISECONDS]]";

/// Panics.
pub fn panic(rest: &str) -> Result<(), CommandError> {
    end_kernel(rest, PANIC, |milliseconds| {
        wait_until(milliseconds as u64, || false);
        panic!("CPU {} was asked to", per_cpu::this_cpu())
    })
}

/// Reads unmapped memory.
pub fn fault(rest: &str) -> Result<(), CommandError> {
    end_kernel(rest, FAULT, |milliseconds| {
        wait_until(milliseconds as u64, || false);
        let [guard, _] = image::guards();
        // SAFETY: nothing is mapped there, so nothing is read.
        unsafe { core::ptr::with_exposed_provenance::<u64>(guard.0 as usize).read_volatile() };
    })
}

/// Has a CPU run `fail`, which ends the kernel after some milliseconds. If the time is given, this
/// CPU continues while another one waits.
fn end_kernel(rest: &str, usage: &'static str, fail: fn(usize)) -> Result<(), CommandError> {
    let mut words = rest.split_whitespace();
    let mut next = || words.next().map(|word| word.parse::<usize>().map_err(|_| CommandError::Usage(usage)));
    let (cpu, delay) = (next().transpose()?.unwrap_or(0), next().transpose()?);
    if words.next().is_some() {
        return Err(CommandError::Usage(usage));
    }
    if cpu != 0 {
        cross_call::idle(cpu)?;
    }
    say!("CPU {cpu} ends this kernel{}.", if delay.is_some() { " when the time is over" } else { "" });
    report!("end=asked cpu={cpu}");
    if cpu == 0 {
        fail(delay.unwrap_or(0));
        return Ok(());
    }
    cross_call::start_work(cpu, fail, delay.unwrap_or(0))?;
    if delay.is_none() {
        // This CPU is stopped while it waits.
        wait_until(PATIENCE, || false);
    }
    Ok(())
}

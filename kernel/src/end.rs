//! Meeting the end because somebody asks for it, to see what comes of it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::kexec::KexecError;
use crate::percpu::Job;
use crate::shell::CommandError;
use crate::{cross_call, entry, percpu, report};

/// Panics.
pub fn panic(rest: &str) -> Result<(), CommandError> {
    meet_the_end(rest, PANIC, |cpu| panic!("CPU {cpu} was asked to"))
}

/// Reads what is not mapped.
pub fn fault(rest: &str) -> Result<(), CommandError> {
    meet_the_end(rest, FAULT, |_| {
        let [guard, _] = entry::guards();
        // SAFETY: nothing is mapped there, so that nothing is read.
        unsafe { core::ptr::with_exposed_provenance::<u64>(guard.0 as usize).read_volatile() };
    })
}

/// The words of `panic`.
pub const PANIC: &str = "panic [CPU [MILLISECONDS]]";
/// The words of `fault`.
pub const FAULT: &str = "fault [CPU [MILLISECONDS]]";

/// Has a CPU do what ends the kernel. With a time given, another CPU waits so long, and this one goes on meanwhile.
fn meet_the_end(rest: &str, usage: &'static str, end: fn(usize)) -> Result<(), CommandError> {
    static END: Job = Job::NONE;
    static DELAY: AtomicU64 = AtomicU64::new(0);
    let mut words = rest.split_whitespace();
    let cpu = words.next().map_or(Ok(0), |word| word.parse().map_err(|_| CommandError::Usage(usage)))?;
    let delay =
        words.next().map(|word| word.parse::<u64>().map_err(|_| CommandError::Usage(usage))).transpose()?;
    if words.next().is_some() {
        return Err(CommandError::Usage(usage));
    }
    END.set(end, cpu);
    DELAY.store(delay.unwrap_or(0), Ordering::Relaxed);
    report!("end=asked cpu={cpu}");
    if cpu == 0 {
        end(cpu);
        return Ok(());
    }
    let job = |_| {
        percpu::wait_until(DELAY.load(Ordering::Relaxed), || false);
        END.run();
    };
    cross_call::start_work(cpu, job, 0).map_err(KexecError::from)?;
    if delay.is_none() {
        // This CPU is stopped while it waits.
        percpu::wait_until(cross_call::PATIENCE, || false);
    }
    Ok(())
}

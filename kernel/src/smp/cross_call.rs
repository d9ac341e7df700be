//! Calls that interrupt other CPUs, and work that can be interrupted.
//!
//! The boot CPU asks and the others answer. The boot CPU always masks interrupts and is never a
//! target.

use core::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::arch::cpu_set::CpuSet;
use crate::arch::per_cpu::{self, PerCpu, State};
use crate::arch::wait::{patience_with, wait_until};
use crate::gic::interrupt::interrupt;
use crate::gic::sgi::Sgi;

/// CPUs that did not answer in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("CPU {cpus} did not answer within {milliseconds} ms")]
pub struct DidNotAnswer {
    /// The CPUs.
    pub cpus: CpuSet,
    /// How long was waited.
    pub milliseconds: u64,
}

/// A CPU that can't be given work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NotIdle {
    /// It is the boot CPU, or it is not online.
    #[error("CPU {0} is not an online secondary CPU")]
    NotOnline(usize),
    /// It has work.
    #[error("CPU {0} has not finished its work")]
    Busy(usize),
}

/// Runs `function(argument)` in interrupt context on each of `targets` at once, and waits until all
/// have. It runs on the CPU's exception stack (8 KiB) with interrupts masked, and has to be short.
///
/// # Errors
/// [`DidNotAnswer`], with the CPUs that are late or not online. They may still run the function
/// later, so that what `argument` refers to has to stay. Until they have, calls to them are
/// refused.
pub fn call(targets: CpuSet, function: fn(usize), argument: usize) -> Result<(), DidNotAnswer> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
    let me = per_cpu::this_cpu();
    let (mut asked, mut late) = (CpuSet::EMPTY, CpuSet::EMPTY);
    for target in targets.iter() {
        let cpu = per_cpu::of(target);
        let free = cpu.call_done.load(Ordering::Acquire) == cpu.call_wanted.load(Ordering::Relaxed);
        if target == me || cpu.state() != State::Online || !free {
            late.insert(target);
            continue;
        }
        cpu.call.set(function, argument);
        cpu.call_wanted.store(number, Ordering::Release);
        asked.insert(target);
    }
    interrupt(Sgi::Call, asked);
    let mut waiting = asked;
    let milliseconds = patience_with(asked.len());
    wait_until(milliseconds, || {
        for target in waiting.iter() {
            if per_cpu::of(target).call_done.load(Ordering::Acquire) == number {
                waiting.remove(target);
            }
        }
        waiting.is_empty()
    });
    waiting.iter().for_each(|target| late.insert(target));
    if late.is_empty() { Ok(()) } else { Err(DidNotAnswer { cpus: late, milliseconds }) }
}

/// Runs the function of a [`call`] to this CPU, if there is one.
pub fn answer_call() {
    let cpu = per_cpu::of(per_cpu::this_cpu());
    let wanted = cpu.call_wanted.load(Ordering::Acquire);
    if wanted != cpu.call_done.load(Ordering::Relaxed) {
        cpu.call.run();
        cpu.call_done.store(wanted, Ordering::Release);
    }
}

/// The CPU `number`, if it can be given work.
///
/// # Errors
/// [`NotIdle`].
pub fn idle(number: usize) -> Result<&'static PerCpu, NotIdle> {
    let is_it = |(other, cpu): &(usize, &PerCpu)| *other == number && cpu.state() == State::Online;
    let found = per_cpu::known().find(is_it).filter(|_| number != per_cpu::this_cpu());
    let (_, cpu) = found.ok_or(NotIdle::NotOnline(number))?;
    if is_finished(number) { Ok(cpu) } else { Err(NotIdle::Busy(number)) }
}

/// Has the CPU `number` run `function(argument)` outside interrupt context, and does not wait.
/// Calls and [`Sgi::Park`] can interrupt it. It runs on the CPU's own stack (16 KiB).
///
/// # Errors
/// [`NotIdle`].
pub fn start_work(number: usize, function: fn(usize), argument: usize) -> Result<(), NotIdle> {
    let cpu = idle(number)?;
    cpu.work.set(function, argument);
    cpu.working.store(1, Ordering::Release);
    interrupt(Sgi::Work, CpuSet::one(number));
    Ok(())
}

/// Whether the CPU `number` has finished all its work. If so, everything that it stored is visible
/// here.
pub fn is_finished(number: usize) -> bool {
    per_cpu::of(number).working.load(Ordering::Acquire) == 0
}

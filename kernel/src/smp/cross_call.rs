//! CPUs asking CPUs: interrupts, calls that interrupt, and work that can be interrupted.
//!
//! The boot CPU asks; the others answer. The boot CPU has interrupts masked always and is never a target.

use core::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::arch::exceptions::Frame;
use crate::arch::percpu::{self, CpuSet, PerCpu, State, wait_until};
use crate::end::fatal;
use crate::gic::controller as gic;
use crate::smp::parking;
use crate::smp::secondary;

/// How long a CPU may take to answer, in milliseconds. Emulated CPUs of a busy host take seconds.
pub const PATIENCE: u64 = 5000;

/// What one CPU tells another, by the number of a software-generated interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Sgi {
    /// Run the function of [`call`].
    Call,
    /// Look whether there is work; the interrupt alone ends the wait for it.
    Work,
    /// Leave the live tables: [`parking::interrupted`].
    Park,
    /// Stop for good, because a CPU met its end.
    Stop,
    /// Leave: the machine is handed over, or this CPU was asked to go.
    Off,
}

impl Sgi {
    const ALL: [Self; 5] = [Self::Call, Self::Work, Self::Park, Self::Stop, Self::Off];

    /// A bit for each of them, by its number.
    pub const MASK: u32 = (1 << Self::ALL.len()) - 1;
}

// What comes in as a number is looked up.
const _: () = {
    let mut i = 0;
    while i < Sgi::ALL.len() {
        assert!(Sgi::ALL[i] as usize == i);
        i += 1;
    }
};

/// CPUs that did not answer in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("CPU {0} did not answer within {PATIENCE} ms")]
pub struct DidNotAnswer(pub CpuSet);

/// A CPU that can't be given work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NotIdle {
    /// It is the boot CPU, or not online.
    #[error("CPU {0} is no secondary CPU that is online")]
    NotOnline(usize),
    /// It has work.
    #[error("CPU {0} has not finished its work")]
    Busy(usize),
}

/// Interrupts each of `targets` with `sgi`. What this CPU stored before is visible to them when they take it. Stops for good when
/// another CPU met its end: the targets may be in the next kernel already.
pub fn interrupt(sgi: Sgi, targets: CpuSet) {
    fatal::stop_if_elsewhere();
    for number in targets.iter() {
        gic::send(sgi as u32, number, secondary::affinity_of(number));
    }
}

/// Runs `function(argument)` in interrupt context on each of `targets` at once, whatever they are doing, and waits until all
/// have. It runs on the CPU's stack for exceptions (8 KiB), interrupts masked, and must be short.
///
/// # Errors
/// [`DidNotAnswer`], with the CPUs that are late or not online. They may still run the function later, so that what
/// `argument` leads to must live on; until they have, calls to them are refused.
pub fn call(targets: CpuSet, function: fn(usize), argument: usize) -> Result<(), DidNotAnswer> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
    let me = percpu::this_cpu();
    let (mut asked, mut late) = (CpuSet::EMPTY, CpuSet::EMPTY);
    for target in targets.iter() {
        let cpu = percpu::of(target);
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
    wait_until(PATIENCE, || {
        for target in waiting.iter() {
            if percpu::of(target).call_done.load(Ordering::Acquire) == number {
                waiting.remove(target);
            }
        }
        waiting.is_empty()
    });
    waiting.iter().for_each(|target| late.insert(target));
    if late.is_empty() { Ok(()) } else { Err(DidNotAnswer(late)) }
}

/// The CPU `number`, if it can be given work.
///
/// # Errors
/// [`NotIdle`].
pub fn idle(number: usize) -> Result<&'static PerCpu, NotIdle> {
    let is_it = |(other, cpu): &(usize, &PerCpu)| *other == number && cpu.state() == State::Online;
    let found = percpu::known().find(is_it).filter(|_| number != percpu::this_cpu());
    let (_, cpu) = found.ok_or(NotIdle::NotOnline(number))?;
    if finished(number) { Ok(cpu) } else { Err(NotIdle::Busy(number)) }
}

/// Has the CPU `number` run `function(argument)` outside interrupt context, where it can be interrupted by calls and by
/// [`Sgi::Park`]; does not wait. It runs on the CPU's own stack of 16 KiB.
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

/// Whether the CPU `number` has finished all work it was given, and what it stored meanwhile is visible here.
pub fn finished(number: usize) -> bool {
    percpu::of(number).working.load(Ordering::Acquire) == 0
}

/// An interrupt of what `frame` has, from the vectors: does what it says. `false` when there is nothing that could have interrupted.
pub fn interrupted(frame: &Frame) -> bool {
    let Some(id) = gic::take() else {
        // Taken back before we came, or there is no controller in use, so that nothing of ours interrupts.
        return gic::is_in_use();
    };
    match Sgi::ALL.get(id as usize) {
        Some(Sgi::Call) => answer_call(),
        // The idle loop looks by itself.
        Some(Sgi::Work) => {}
        Some(Sgi::Park) => parking::interrupted(),
        Some(Sgi::Stop) => fatal::told_to_stop(frame),
        Some(Sgi::Off) => secondary::leave(),
        // Nothing else is switched on; one that was pending from before is taken once and never again.
        None => {}
    }
    true
}

fn answer_call() {
    let cpu = percpu::of(percpu::this_cpu());
    let wanted = cpu.call_wanted.load(Ordering::Acquire);
    if wanted != cpu.call_done.load(Ordering::Relaxed) {
        cpu.call.run();
        cpu.call_done.store(wanted, Ordering::Release);
    }
}

//! Waiting with a limit.

use core::hint;

use crate::arch::cpu;
use crate::arch::stop;

/// How long a CPU may take to answer another one, in milliseconds. Emulated CPUs of a busy host
/// take seconds.
pub const PATIENCE: u64 = 5000;

/// How long all of `cpus` CPUs may take to answer, in milliseconds: they may share few CPUs of a
/// host, and an interrupt controller takes longer to reach many.
pub const fn patience_with(cpus: usize) -> u64 {
    const FOR_EACH: u64 = 100;
    PATIENCE + FOR_EACH * cpus as u64
}

/// How long CPUs wait for each other when the kernel ends, in milliseconds: any of them may first
/// have to finish work during which it does not look.
pub const LAST_PATIENCE: u64 = 6 * PATIENCE;

/// Waits until `done`, at most `milliseconds`. Returns whether it was done. If another CPU ends the
/// kernel, this CPU stops for good instead.
pub fn wait_until(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    poll_until(milliseconds, || {
        done() || {
            stop::stop_if_elsewhere();
            false
        }
    })
}

/// Waits like [`wait_until`], but keeps waiting when another CPU ends the kernel.
pub fn poll_until(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let started = cpu::counter();
    let patience = cpu::ticks_of_milliseconds(milliseconds);
    loop {
        if done() {
            return true;
        }
        if cpu::ticks_since(started) > patience {
            return done();
        }
        hint::spin_loop();
    }
}

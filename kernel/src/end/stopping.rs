//! How a CPU stops because another one ends the kernel.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use crate::arch::cpu;
use crate::arch::frame::Frame;
use crate::arch::per_cpu;
use crate::arch::stop;
use crate::arch::wait::{LAST_PATIENCE, PATIENCE, poll_until};
use crate::gic::controller;
use crate::gic::interrupt::interrupt;
use crate::gic::sgi::Sgi;
use crate::kexec::crash::description;
use crate::kexec::departure;
use crate::memory::parking;
use crate::smp::leave;

/// Whether all other CPUs have been told to stop.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Interrupts all other CPUs, once: also those that have stopped by themselves, because they wait
/// for the interrupt. The boot CPU takes no interrupts. It stops when it next prints or waits.
pub fn interrupt_others() {
    if TOLD.load(Ordering::Acquire) {
        return;
    }
    // The same fence is in `leave_others`: either a CPU that leaves sees that the kernel ends, or
    // this CPU sees that it leaves.
    fence(Ordering::SeqCst);
    let mut others = per_cpu::others();
    others.remove(0);
    for number in others.iter() {
        per_cpu::of(number).told_to_stop.store(true, Ordering::Release);
    }
    interrupt(Sgi::Stop, others);
    TOLD.store(true, Ordering::Release);
}

/// Stops this CPU, whose registers are in `frame`. If a crash kernel waits, the CPU is switched
/// off: the crash kernel may reuse the memory where it would wait, and a CPU from a spin table can
/// only wait there.
pub fn stop(frame: &Frame) -> ! {
    record(frame);
    if description::waits() && leave::takes_interrupts() {
        // An interrupt that arrives after this CPU is off would stay pending for the next kernel.
        // Its number may mean something else there: Linux would stop the CPU again.
        poll_until(LAST_PATIENCE, || TOLD.load(Ordering::Acquire));
        if per_cpu::of(per_cpu::this_cpu()).told_to_stop.load(Ordering::Acquire) {
            poll_until(PATIENCE, || controller::take() == Some(Sgi::Stop as u32));
        }
    }
    leave_or_halt()
}

/// Stops this CPU, whose registers are in `frame`, on [`Sgi::Stop`].
pub fn told_to_stop(frame: &Frame) -> ! {
    record(frame);
    leave_or_halt()
}

fn record(frame: &Frame) {
    cpu::mask_interrupts();
    let me = per_cpu::this_cpu();
    per_cpu::of(me).stopped.store(ptr::from_ref(frame).cast_mut(), Ordering::Release);
    if me == 0 {
        // Only the boot CPU releases the CPUs that wait for it.
        parking::abandon();
        departure::call_off();
    }
}

fn leave_or_halt() -> ! {
    if description::waits() {
        // The boot CPU sends interrupts until it has stopped, or until it ends the kernel itself.
        poll_until(LAST_PATIENCE, || stop::has_stopped(0) || stop::owner() == Some(0));
        leave::drain_interrupts();
        leave::off();
    }
    cpu::halt()
}

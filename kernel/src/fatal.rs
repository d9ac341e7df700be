//! The end of the kernel: one CPU says why, all others stop.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::cross_call::{self, Sgi};
use crate::exceptions::Frame;
use crate::percpu::{self, CpuSet, State};
use crate::{cpu, crash, gic, park, secondary};

/// The CPU whose last words are printed: its number plus 1, 0 for none.
static OWNER: AtomicUsize = AtomicUsize::new(0);

/// That CPU has failed again while it said why.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// Makes this CPU, which is where `frame` says, the one that says why the kernel ends: from now on it is not interrupted, and
/// no other prints a line or waits for anything without stopping. A CPU that comes second stops here. One that fails again
/// while it says why says no more; a crash kernel is tried once.
pub fn begin(frame: &Frame) {
    cpu::mask_interrupts();
    let me = percpu::this_cpu() + 1;
    match OWNER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(owner) if owner != me => stopped(frame),
        Err(_) => {
            if !AGAIN.swap(true, Ordering::AcqRel) {
                crash::enter_silently(frame);
            }
            cpu::halt();
        }
    }
}

/// Stops this CPU, which has said why and where `frame` was, and all others by an interrupt. The boot CPU takes none: it
/// stops at the next line it prints, or the next time it waits. A crash kernel is entered, if one waits.
pub fn stop(frame: &Frame) -> ! {
    // What is sent to a CPU that is on its way off would wait there for the next kernel.
    let mut running: CpuSet = percpu::others().iter().filter(|&number| !has_stopped(number)).collect();
    running.remove(0);
    cross_call::interrupt(Sgi::Stop, running);
    crash::enter(frame);
    cpu::halt()
}

/// Whether the CPU `number` has stopped for good.
pub fn has_stopped(number: usize) -> bool {
    !percpu::of(number).stopped.load(Ordering::Acquire).is_null()
}

/// Stops this CPU, which was where `frame` says, because another met its end. If a crash kernel waits it goes off, since
/// sooner or later somebody uses the memory that it would wait in; one from a spin table has no other place.
pub fn stopped(frame: &Frame) -> ! {
    cpu::mask_interrupts();
    let me = percpu::this_cpu();
    percpu::of(me).stopped.store(ptr::from_ref(frame).cast_mut(), Ordering::Release);
    if me == 0 {
        // Nobody else lets those go that wait for it.
        park::abandon();
    }
    if crash::waits() {
        leave_interrupts();
        secondary::off();
    }
    cpu::halt()
}

/// Takes what interrupts wait for this CPU, so that the next kernel does not, and lets no more through.
pub fn leave_interrupts() {
    let me = percpu::this_cpu();
    // The boot CPU is sent none. Any other's interface works once it is online.
    if me != 0 && percpu::of(me).state() == State::Online {
        while gic::take().is_some() {}
        gic::stop_this_cpu();
    }
}

/// Whether this CPU is the one whose last words are printed.
pub fn is_here() -> bool {
    OWNER.load(Ordering::Acquire) == percpu::this_cpu() + 1
}

/// Whether another CPU ends the kernel.
pub fn is_elsewhere() -> bool {
    let owner = OWNER.load(Ordering::Acquire);
    owner != 0 && owner != percpu::this_cpu() + 1
}

/// Stops for good if another CPU ends the kernel.
pub fn stop_if_elsewhere() {
    if is_elsewhere() {
        stopped(&Frame::here());
    }
}

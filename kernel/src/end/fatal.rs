//! The end of the kernel: one CPU says why, all others stop.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crate::arch::cpu;
use crate::arch::exceptions::Frame;
use crate::arch::percpu::{self, State};
use crate::gic::controller as gic;
use crate::kexec::crash;
use crate::kexec::departure;
use crate::smp::cross_call::{self, PATIENCE, Sgi};
use crate::smp::parking;
use crate::smp::secondary;

/// The CPU whose last words are printed: its number plus 1, 0 for none.
static OWNER: AtomicUsize = AtomicUsize::new(0);

/// All others have been told to stop.
static TOLD: AtomicBool = AtomicBool::new(false);

/// How long CPUs wait for each other when one has met its end, in milliseconds: any of them may be in the middle of work that looks
/// for nothing else.
pub const LAST_PATIENCE: u64 = 6 * PATIENCE;

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
                interrupt_others();
                crash::enter_silently(frame);
            }
            cpu::halt();
        }
    }
}

/// Stops this CPU, which has said why and where `frame` was, and all others by an interrupt. The boot CPU takes none: it
/// stops at the next line it prints, or the next time it waits. A crash kernel is entered, if one waits.
pub fn stop(frame: &Frame) -> ! {
    interrupt_others();
    crash::enter(frame);
    cpu::halt()
}

/// Interrupts all others, once; those too that have stopped by themselves, since they wait for it.
fn interrupt_others() {
    if TOLD.load(Ordering::Acquire) {
        return;
    }
    // Either a CPU that leaves sees that one met its end, or it is seen to leave.
    fence(Ordering::SeqCst);
    let mut others = percpu::others();
    others.remove(0);
    for number in others.iter() {
        percpu::of(number).told_to_stop.store(true, Ordering::Release);
    }
    cross_call::interrupt(Sgi::Stop, others);
    TOLD.store(true, Ordering::Release);
}

/// Whether the CPU `number` has stopped for good.
pub fn has_stopped(number: usize) -> bool {
    !percpu::of(number).stopped.load(Ordering::Acquire).is_null()
}

/// Stops this CPU, which was where `frame` says, because another met its end. If a crash kernel waits it goes off, since
/// sooner or later somebody uses the memory that it would wait in; one from a spin table has no other place.
pub fn stopped(frame: &Frame) -> ! {
    note(frame);
    if crash::waits() && takes_interrupts() {
        // What comes once this CPU is off waits for the next kernel, to which the number may mean something else: Linux
        // would stop it again.
        percpu::poll_until(LAST_PATIENCE, || TOLD.load(Ordering::Acquire));
        if percpu::of(percpu::this_cpu()).told_to_stop.load(Ordering::Acquire) {
            percpu::poll_until(PATIENCE, || gic::take() == Some(Sgi::Stop as u32));
        }
    }
    leave()
}

/// The same, when [`Sgi::Stop`] has come.
pub fn told_to_stop(frame: &Frame) -> ! {
    note(frame);
    leave()
}

fn note(frame: &Frame) {
    cpu::mask_interrupts();
    let me = percpu::this_cpu();
    percpu::of(me).stopped.store(ptr::from_ref(frame).cast_mut(), Ordering::Release);
    if me == 0 {
        // Nobody else lets those go that wait for it.
        parking::abandon();
        departure::call_off();
    }
}

fn leave() -> ! {
    if crash::waits() {
        // The boot CPU sends interrupts until it has stopped, or until it says why the kernel ends.
        percpu::poll_until(LAST_PATIENCE, || has_stopped(0) || OWNER.load(Ordering::Acquire) == 1);
        leave_interrupts();
        secondary::off();
    }
    cpu::halt()
}

/// Whether others interrupt this CPU. The boot CPU is sent none; any other's interface works once it is online, and one that
/// leaves early never comes here.
fn takes_interrupts() -> bool {
    let me = percpu::this_cpu();
    me != 0 && matches!(percpu::of(me).state(), State::Online | State::Leaving)
}

/// Takes this CPU, which is online, from the others: no interrupt is sent to it any more, and none waits for the next kernel.
pub fn leave_others() {
    percpu::of(percpu::this_cpu()).set_state(State::Leaving);
    fence(Ordering::SeqCst);
    stop_if_elsewhere();
    leave_interrupts();
}

/// Takes what interrupts wait for this CPU, so that the next kernel does not, and lets no more through.
pub fn leave_interrupts() {
    if takes_interrupts() {
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

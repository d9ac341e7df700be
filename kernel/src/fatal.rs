//! The end of the kernel: one CPU says why, all others stop.

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::cross_call::{self, Sgi};
use crate::exceptions::Frame;
use crate::{cpu, crash, percpu, secondary};

/// The CPU whose last words are printed: its number plus 1, 0 for none.
static OWNER: AtomicUsize = AtomicUsize::new(0);

/// Makes this CPU the one that says why the kernel ends: from now on no other prints a line or waits for anything without
/// stopping. A CPU that comes second stops here, and so does one that fails again while it says why.
pub fn begin() {
    let me = percpu::this_cpu();
    if OWNER.compare_exchange(0, me + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
        stopped(&Frame::here());
    }
}

/// Stops this CPU, which has said why and where `frame` was, and all others by an interrupt. The boot CPU takes none: it
/// stops at the next line it prints, or the next time it waits. A crash kernel is entered, if one waits.
pub fn stop(frame: &Frame) -> ! {
    cross_call::interrupt(Sgi::Stop, percpu::others());
    crash::enter(frame);
    cpu::halt()
}

/// Stops this CPU, which was where `frame` says, because another met its end. If a crash kernel waits it goes off, since
/// sooner or later somebody uses the memory that it would wait in.
pub fn stopped(frame: &Frame) -> ! {
    percpu::of(percpu::this_cpu()).stopped.store(ptr::from_ref(frame).cast_mut(), Ordering::Release);
    if crash::waits() {
        cpu::mask_interrupts();
        secondary::off();
    }
    cpu::halt()
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

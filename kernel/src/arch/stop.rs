//! Which CPU ends the kernel, and how all others stop.
//!
//! At most one CPU ends the kernel: the first that claims it. All others look here whenever they
//! wait or print, and stop for good once it is claimed. How a CPU stops depends on all that the
//! kernel has started, so it is a hook that is installed at boot.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use core::{mem, ptr};

use crate::arch::cpu;
use crate::arch::frame::Frame;
use crate::arch::per_cpu;

/// The CPU that ends the kernel: its number plus 1, 0 for none.
static OWNER: AtomicUsize = AtomicUsize::new(0);

/// The [`StopHook`]; null until it is installed.
static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Stops the CPU that calls it, whose registers are in the frame, because another CPU ends the
/// kernel.
pub type StopHook = fn(&Frame) -> !;

/// Who ends the kernel after a [`claim`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// This CPU, from now on.
    First,
    /// This CPU already did: it failed again.
    Again,
    /// Another CPU.
    Elsewhere,
}

/// Installs `hook`. Before that, a CPU that has to stop halts.
pub fn install(hook: StopHook) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// Makes this CPU the one that ends the kernel, unless another one does already.
pub fn claim() -> Claim {
    let me = per_cpu::this_cpu() + 1;
    match OWNER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Claim::First,
        Err(owner) if owner == me => Claim::Again,
        Err(_) => Claim::Elsewhere,
    }
}

/// The CPU that ends the kernel, if one does.
pub fn owner() -> Option<usize> {
    OWNER.load(Ordering::Acquire).checked_sub(1)
}

/// Whether this CPU ends the kernel.
pub fn is_here() -> bool {
    owner() == Some(per_cpu::this_cpu())
}

/// Whether another CPU ends the kernel.
pub fn is_elsewhere() -> bool {
    owner().is_some_and(|owner| owner != per_cpu::this_cpu())
}

/// Stops for good if another CPU ends the kernel.
pub fn stop_if_elsewhere() {
    if is_elsewhere() {
        stop(&Frame::here());
    }
}

/// Whether the CPU `number` has stopped for good.
pub fn has_stopped(number: usize) -> bool {
    !per_cpu::of(number).stopped.load(Ordering::Acquire).is_null()
}

fn stop(frame: &Frame) -> ! {
    let hook = HOOK.load(Ordering::Acquire);
    if hook.is_null() {
        cpu::halt();
    }
    // SAFETY: `install` alone stores here, a `StopHook`, and on this target a function pointer is
    // an address.
    let hook: StopHook = unsafe { mem::transmute(hook) };
    hook(frame)
}

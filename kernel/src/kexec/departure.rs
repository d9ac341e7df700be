//! Leaving this kernel together: how other CPUs follow the boot CPU into the relocation code, and
//! how the boot CPU cancels that.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use linmap_relocate::{Departure, Orders, Way};
use linmap_table::Reserved;
use linmap_vmsa::Pa;

use crate::arch::cpu::{self, ThisCpu};
use crate::smp::leave;

/// The orders at which other CPUs wait, once they may.
static AWAITED: AtomicPtr<Orders> = AtomicPtr::new(ptr::null_mut());

/// The [`Departure`] that other CPUs follow, in words. Written before they get the work to follow.
static PUBLISHED: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

/// Lets other CPUs [`follow`] by `departure`. No CPU can follow by [`Way::Unmapped`].
pub fn publish(departure: Departure, orders: &'static Orders) {
    let Departure { code, orders: at, way, reserved } = departure;
    let Way::Mapped { ttbr0, tcr, offset } = way else { return };
    AWAITED.store(ptr::from_ref(orders).cast_mut(), Ordering::Release);
    let words = [code.0, at.0, ttbr0, tcr, offset, reserved.ttbr0, reserved.tcr];
    for (word, value) in PUBLISHED.iter().zip(words) {
        word.store(value, Ordering::Release);
    }
}

/// The departure that was published last.
fn published() -> Departure {
    let [code, orders, ttbr0, tcr, offset, nothing, tcr_before] =
        PUBLISHED.each_ref().map(|word| word.load(Ordering::Acquire));
    Departure {
        code: Pa(code),
        orders: Pa(orders),
        way: Way::Mapped { ttbr0, tcr, offset },
        reserved: Reserved { ttbr0: nothing, tcr: tcr_before },
    }
}

/// Work for another CPU: it leaves with the boot CPU, moves what is in the list `list`, and then
/// switches itself off or goes to the pen.
pub fn follow(list: usize) {
    cpu::mask_interrupts();
    leave::leave_others();
    // SAFETY: the CPU that gives this work promises for what was published, as `go` asks. TTBR0 of
    // a CPU at work is on the reserved table.
    unsafe { published().go(&mut ThisCpu, list) }
}

/// Cancels the departure: the CPUs that have left the live tables for the relocation code switch
/// themselves off, or wait to be called.
pub fn call_off() {
    // SAFETY: the orders' frame stays as long as a CPU may wait there.
    if let Some(orders) = unsafe { AWAITED.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() } {
        orders.call_off();
    }
}

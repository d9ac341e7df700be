//! Leaving this kernel together: how other CPUs follow the boot CPU into the relocation code, and
//! are sent off again.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use linmap_relocate::{Departure, Orders, Way};
use linmap_table::Reserved;
use linmap_vmsa::Pa;

use crate::arch::cpu::{self, ThisCpu};
use crate::end::fatal;

/// The orders by which other CPUs wait, once they may.
static AWAITED: AtomicPtr<Orders> = AtomicPtr::new(ptr::null_mut());

/// The [`Departure`] that other CPUs follow, in words: written before they are told to.
static PUBLISHED: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

/// Lets other CPUs [`follow`] by `departure`. By [`Way::Unmapped`] none can.
pub fn publish(departure: Departure, orders: &'static Orders) {
    let Departure { code, orders: at, way, reserved } = departure;
    let Way::Mapped { ttbr0, tcr, offset } = way else { return };
    AWAITED.store(ptr::from_ref(orders).cast_mut(), Ordering::Release);
    let words = [code.0, at.0, ttbr0, tcr, offset, reserved.ttbr0, reserved.tcr];
    for (word, value) in PUBLISHED.iter().zip(words) {
        word.store(value, Ordering::Release);
    }
}

/// Returns what was published last.
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

/// Work for another CPU: it leaves with the boot CPU, works off the list `list`, and goes off or to
/// the pen.
pub fn follow(list: usize) {
    cpu::mask_interrupts();
    fatal::leave_others();
    // SAFETY: whoever gives this work answers for what was published, as `go` asks; a CPU that
    // works has its TTBR0 on the reserved table.
    unsafe { published().go(&mut ThisCpu, list) }
}

/// Sends the CPUs off again that have left the live tables for the relocation code.
pub fn call_off() {
    // SAFETY: the orders' frame stays as long as a CPU may wait there.
    if let Some(orders) = unsafe { AWAITED.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() } {
        orders.call_off();
    }
}

//! What a secondary CPU does: it arrives, waits for its admission, and waits for work until it
//! leaves. `secondary.S` brings it here.

use core::hint;
use core::sync::atomic::{Ordering, fence};

use linmap_table::Reserved;
use linmap_vmsa::Pa;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::image::Image;
use crate::arch::per_cpu::{self, PerCpu, State};
use crate::arch::stop;
use crate::gic::controller;
use crate::smp::boot_page;
use crate::smp::leave;

unsafe extern "C" {
    fn secondary_entry();
}

/// Where CPUs are entered in `image`: a physical address.
pub fn entry(image: Image) -> Pa {
    image.physical(secondary_entry as *const u8)
}

/// Entered from `secondary.S`, MMU and caches on, at the link address, on this CPU's own stacks.
#[unsafe(no_mangle)]
extern "C" fn secondary_main() -> ! {
    // T0SZ is the kernel's already; the PA size is this CPU's own.
    let reserved = Reserved { ttbr0: boot_page::reserved_ttbr0(), tcr: cpu::tcr() };
    // SAFETY: the kernel runs in TTBR1's half, and TCR does not change.
    unsafe { reserved.restore(&mut ThisCpu) };
    let me = per_cpu::of(per_cpu::this_cpu());
    for (word, value) in me.id.iter().zip([cpu::midr(), cpu::mmfr0(), cpu::mmfr2(), cpu::isar0()]) {
        word.store(value, Ordering::Relaxed);
    }
    if !me.change_state(State::Starting, State::Arrived) {
        // This CPU timed out: the boot CPU has set its state.
        leave::off();
    }
    wait_for_admission(me);
    if !controller::start_this_cpu() {
        leave::leave_early();
    }
    if !me.change_state(State::Admitted, State::Online) {
        leave::off();
    }
    // A CPU that ended the kernel just before has only interrupted CPUs that were online.
    fence(Ordering::SeqCst);
    stop::stop_if_elsewhere();
    work(me)
}

fn wait_for_admission(me: &PerCpu) {
    loop {
        match me.state() {
            State::Arrived => hint::spin_loop(),
            State::Admitted => return,
            _ => leave::leave_early(),
        }
        stop::stop_if_elsewhere();
    }
}

/// Does all work that this CPU is given.
fn work(me: &PerCpu) -> ! {
    loop {
        // An interrupt that arrives between the look and the wait is pending and ends the wait.
        if me.working.load(Ordering::Acquire) == 0 {
            cpu::wait_for_interrupt();
            cpu::take_interrupts();
            continue;
        }
        cpu::unmask_interrupts();
        me.work.run();
        cpu::mask_interrupts();
        me.working.store(0, Ordering::Release);
    }
}

//! The CPU that ends the kernel: it prints the reason, stops all others, and enters a crash kernel
//! if one waits.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::cpu;
use crate::arch::frame::Frame;
use crate::arch::image;
use crate::arch::layout::IMAGE;
use crate::arch::stop::{self, Claim};
use crate::end::stopping;
use crate::kexec::crash::enter;
use crate::say;

/// Whether the CPU that ends the kernel has failed again.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// Makes this CPU, whose registers are in `frame`, the one that ends the kernel. From here on it is
/// not interrupted, and every other CPU stops when it next prints or waits.
///
/// If another CPU already ends the kernel, this one stops. If this CPU fails again while it prints
/// the reason, it prints no more, and tries once to enter a crash kernel.
pub fn begin(frame: &Frame) {
    cpu::mask_interrupts();
    match stop::claim() {
        Claim::First => {}
        Claim::Elsewhere => stopping::stop(frame),
        Claim::Again => {
            if !AGAIN.swap(true, Ordering::AcqRel) {
                stopping::interrupt_others();
                enter::enter_silently(frame);
            }
            cpu::halt();
        }
    }
}

/// Stops all other CPUs and this one, which has printed the reason and whose registers are in
/// `frame`. Prints how far the image is from where it is linked, in the form of Linux, for those
/// who look up addresses, and enters a crash kernel if one waits.
pub fn stop(frame: &Frame) -> ! {
    // A variable, so that the image has no constant that looks like an address of its own.
    let linked = IMAGE;
    match image::offset_from_link() {
        0 => say!("Kernel Offset: disabled"),
        offset => say!("Kernel Offset: {offset:#x} from {linked}"),
    }
    stopping::interrupt_others();
    enter::enter(frame);
    cpu::halt()
}

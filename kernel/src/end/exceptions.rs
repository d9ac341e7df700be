//! Handling exceptions. Interrupts are dispatched, the fault of a probe is recovered, and every
//! other exception is printed and ends the kernel.

use crate::arch::frame::Frame;
use crate::arch::per_cpu;
use crate::arch::probe;
use crate::end::fatal;
use crate::end::interrupts;
use crate::{report, say};

const NAMES: [&str; 4] = ["synchronous", "IRQ", "FIQ", "SError"];

/// Called by `vectors.S` with the number of the vector, 0 to 15. Vectors from 8 on are for lower
/// exception levels.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, frame: &mut Frame) {
    let class = frame.esr >> 26 & 0x3f;
    match vector {
        // With the main stack, and with the exception stack.
        0 | 4 => {
            if let Some(elr) = probe::recovered(frame.esr, frame.elr, frame.x[30]) {
                frame.x[0] = frame.esr;
                frame.elr = elr;
                return;
            }
        }
        1 | 5 if interrupts::dispatch(frame) => return,
        _ => {}
    }
    // A fault while this prints is one of the console: then nothing more is printed.
    fatal::begin(frame);
    let cpu = per_cpu::this_cpu();
    let name = NAMES[vector as usize % 4];
    say!(
        "CPU {cpu}: {name} exception (vector {vector}), class {class:#x}, at {:#018x}, address {:#018x}",
        frame.elr,
        frame.far
    );
    for (i, pair) in frame.x.chunks(2).enumerate() {
        match *pair {
            [a, b] => say!("  x{:<2} {a:#018x}  x{:<2} {b:#018x}", 2 * i, 2 * i + 1),
            _ => say!("  x30 {:#018x}  sp  {:#018x}", frame.x[30], frame.sp),
        }
    }
    report!(
        "error=exception cpu={cpu} vector={vector} esr={:#x} far={:#x} elr={:#x} spsr={:#x}",
        frame.esr,
        frame.far,
        frame.elr,
        frame.spsr
    );
    fatal::stop(frame)
}

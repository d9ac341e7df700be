//! Which CPU executes.
//!
//! QEMU gives callbacks the number of a CPU. Where all CPUs run in one thread, QEMU 10 compiles
//! that number into the translated code, as that of the CPU for which it was translated first
//! (`gen_cpu_index` in accel/tcg/plugin-gen.c); the others execute the same code. So CPUs are told
//! apart by the register in which translated code has the address of its CPU's state, and numbered
//! in the order in which they execute their first barrier or write of a system register.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The most CPUs of a trace.
const MOST: usize = linmap_trace::MAX_CPUS;

/// The addresses of the states of CPUs that were seen.
static STATES: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];

/// The number of the CPU whose state is at `state`, which is one of `cpus`. A new one is numbered
/// if `may_be_new`. `None` if it is unknown: helpers of QEMU's, which make the stores of some
/// instructions, use the register for something else.
pub fn number(state: usize, cpus: usize, may_be_new: bool) -> Option<usize> {
    if state == 0 {
        return None;
    }
    for (number, known) in STATES.iter().enumerate().take(cpus) {
        match known.load(Ordering::Relaxed) {
            known if known == state => return Some(number),
            0 if may_be_new => {
                known.store(state, Ordering::Relaxed);
                return Some(number);
            }
            0 => return None,
            _ => {}
        }
    }
    None
}

/// Defines `$name`, which translated code calls with arguments in the registers below `$x86` or
/// `$arm`: `$to`, with the address of the CPU's state as one argument more.
///
/// The register is TCG_AREG0 in QEMU's tcg/HOST/tcg-target.h, which is reserved in all of the
/// translated code.
macro_rules! in_generated_code {
    ($name:ident, ($($argument:ty),*), $x86:literal, $arm:literal, $to:path) => {
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        extern "C" fn $name($(_: $argument),*) {
            std::arch::naked_asm!(concat!("mov ", $x86, ", rbp"), "jmp {to}", to = sym $to)
        }

        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        extern "C" fn $name($(_: $argument),*) {
            std::arch::naked_asm!(concat!("mov ", $arm, ", x19"), "b {to}", to = sym $to)
        }
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the recorder knows the register of the CPU's state on hosts of x86-64 and arm64 alone");

pub(crate) use in_generated_code;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_numbered_as_they_come_and_no_more_than_there_are() {
        assert_eq!(number(0x1000, 2, false), None);
        assert_eq!(number(0x1000, 2, true), Some(0));
        assert_eq!(number(0x2000, 2, true), Some(1));
        assert_eq!(number(0x1000, 2, false), Some(0));
        assert_eq!((number(0x3000, 2, true), number(0, 2, true)), (None, None));
    }
}

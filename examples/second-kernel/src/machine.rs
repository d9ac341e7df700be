//! The CPU's registers, the console and the end.

use core::arch::asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use arm_pl011_uart::{Uart, UniqueMmioPointer};
use linmap::features::Features;
use linmap_vmsa::id::{Isar0, Midr, Mmfr0, Mmfr2};

use crate::layout::UART;

/// Reads a system register.
macro_rules! register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register has no effect.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags));
        }
        value
    }};
}
pub(crate) use register;

/// Returns the number of this CPU.
pub fn this_cpu() -> usize {
    (register!("mpidr_el1") & 0xff) as usize
}

/// Returns the features of this CPU that a linear map relies on.
pub fn features() -> Features {
    Features::new(
        Midr(register!("midr_el1")),
        Mmfr0(register!("id_aa64mmfr0_el1")),
        Mmfr2(register!("id_aa64mmfr2_el1")),
        Isar0(register!("id_aa64isar0_el1")),
    )
}

/// Unmasks interrupts, or masks them.
pub fn listen(listens: bool) {
    // SAFETY: the handlers are there, and the CPU may park at any time.
    unsafe {
        match listens {
            true => asm!("msr daifclr, #2", options(nostack, preserves_flags)),
            false => asm!("msr daifset, #2", options(nostack, preserves_flags)),
        }
    }
}

/// Waits until `done`, for at most two seconds. Returns whether it is.
pub fn wait(mut done: impl FnMut() -> bool) -> bool {
    let end = register!("cntvct_el0") + 2 * register!("cntfrq_el0");
    while !done() {
        if register!("cntvct_el0") > end {
            return false;
        }
    }
    true
}

/// Returns the console.
pub fn console() -> Uart<'static> {
    let registers = NonNull::new(UART.0 as *mut _).expect("not 0");
    // SAFETY: the PL011, mapped as a device. CPU 0 alone prints, and a CPU that panics.
    Uart::new(unsafe { UniqueMmioPointer::new(registers) })
}

/// Returns the number behind the program's path in the command line, or 1: that of
/// `cargo xtask example --rounds`.
pub fn rounds() -> u64 {
    let mut text = [0u8; 4096];
    let mut block = [text.as_mut_ptr() as u64, text.len() as u64];
    // SAFETY: SYS_GET_CMDLINE fills the buffer and stores its length.
    unsafe { asm!("hlt #0xf000", inout("x0") 0x15u64 => _, in("x1") &raw mut block) };
    let words = text.split(|byte| *byte == b' ' || *byte == 0);
    let mut numbers = words.filter_map(|word| core::str::from_utf8(word).ok()?.parse().ok());
    numbers.next_back().unwrap_or(1)
}

/// Ends the kernel, and QEMU, with the exit code `code`.
pub fn end(code: u64) -> ! {
    // ADP_Stopped_ApplicationExit, and the exit code (Arm semihosting, SYS_EXIT).
    let block = [0x2_0026u64, code];
    loop {
        // SAFETY: QEMU's semihosting ends QEMU.
        unsafe { asm!("hlt #0xf000", in("x0") 0x18u64, in("x1") &raw const block) };
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if PANICKED.swap(true, Ordering::Relaxed) {
        end(1);
    }
    let _ = writeln!(console(), "CPU {}: {info}", this_cpu());
    end(1)
}

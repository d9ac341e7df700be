//! The machine: what the linker script places, the console, other CPUs, the end.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use linmap_vmsa::{Pa, PaRange};

global_asm!(include_str!("entry.S"));

/// Memory of QEMU's `virt` machine, as much as it has at least.
pub const RAM: PaRange = PaRange { start: Pa(0x4000_0000), end: Pa(0x4800_0000) };
/// Its UART, a PL011.
pub const UART: PaRange = PaRange { start: Pa(0x0900_0000), end: Pa(0x0901_0000) };

/// What the linker script places.
pub mod linked {
    use super::{Pa, PaRange};

    macro_rules! range {
        ($(#[$about:meta])* $name:ident, $start:ident, $end:ident) => {
            $(#[$about])*
            pub fn $name() -> PaRange {
                unsafe extern "C" {
                    static $start: u8;
                    static $end: u8;
                }
                PaRange { start: Pa(&raw const $start as u64), end: Pa(&raw const $end as u64) }
            }
        };
    }

    range!(
        /// Text and read-only data, whole pages.
        text, __text_start, __text_end
    );
    range!(
        /// Memory for tables.
        tables, __tables_start, __tables_end
    );
    range!(
        /// The block that the first CPU has its stack in.
        stack, __stack_start, __stack_end
    );
    range!(
        /// A block that nobody uses.
        spare, __stack_end, __spare_end
    );
}

/// Starts CPU `cpu`, which comes to `enter`. Says whether the machine has it.
pub fn start(cpu: u64) -> bool {
    unsafe extern "C" {
        static secondary: u8;
    }
    smccc::psci::cpu_on::<smccc::Hvc>(cpu, &raw const secondary as u64, cpu).is_ok()
}

/// The command line, which begins with the program's name, and its length.
pub fn command_line() -> ([u8; 4096], usize) {
    let mut text = [0u8; 4096];
    let mut block = [text.as_mut_ptr() as u64, text.len() as u64];
    // SAFETY: SYS_GET_CMDLINE fills the buffer and stores its length.
    unsafe { asm!("hlt #0xf000", inout("x0") 0x15u64 => _, in("x1") &raw mut block) };
    let len = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    (text, len)
}

/// The words of a command line, between spaces or commas.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b','))
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the PL011's data register.
            unsafe { (UART.start.0 as *mut u32).write_volatile(byte.into()) };
        }
        Ok(())
    }
}

/// Prints a line. One CPU at a time does.
pub fn say(line: fmt::Arguments<'_>) {
    // The console takes everything.
    let _ = writeln!(Console, "{line}");
}

/// Ends the program, and QEMU, with exit code 1 and the reason.
pub fn fail(why: fmt::Arguments<'_>) -> ! {
    say(format_args!("error: {why}"));
    end(1)
}

/// Ends the program, and QEMU, with an exit code.
pub fn end(code: u64) -> ! {
    // ADP_Stopped_ApplicationExit, and the exit code (Arm semihosting, SYS_EXIT).
    let block = [0x2_0026u64, code];
    loop {
        // SAFETY: QEMU's semihosting ends QEMU.
        unsafe { asm!("hlt #0xf000", in("x0") 0x18u64, in("x1") &raw const block) };
    }
}

/// Entered from the vectors.
#[unsafe(no_mangle)]
extern "C" fn exception() -> ! {
    let (esr, far, elr): (u64, u64, u64);
    // SAFETY: reading the registers has no effect.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far);
        asm!("mrs {}, elr_el1", out(reg) elr);
    }
    fail(format_args!("an exception: {esr:#x} at {elr:#x} for {far:#x}"))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}

//! The CPU's registers at three exception levels, QEMU's UART, and the end of the program.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use linmap_vmsa::registers::Registers;
use linmap_vmsa::{Pa, PaRange};

global_asm!(include_str!("entry.S"));

/// Memory of QEMU's `virt` machine, as much as it has at least.
pub const RAM: PaRange = PaRange { start: Pa(0x4000_0000), end: Pa(0x4800_0000) };
/// Its UART, a PL011.
pub const UART: PaRange = PaRange { start: Pa(0x0900_0000), end: Pa(0x0900_1000) };

/// What the linker script places.
pub mod linked {
    use super::{Pa, PaRange};

    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
        static __tables_start: u8;
        static __tables_end: u8;
    }

    /// Text and read-only data, whole pages.
    pub fn text() -> PaRange {
        PaRange { start: Pa(&raw const __text_start as u64), end: Pa(&raw const __text_end as u64) }
    }

    /// Memory for tables.
    pub fn tables() -> PaRange {
        PaRange { start: Pa(&raw const __tables_start as u64), end: Pa(&raw const __tables_end as u64) }
    }
}

/// Drops what caches hold of `range`, which was written with the MMU off.
pub fn invalidate(range: PaRange) {
    let ctr: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    let line = 4 << (ctr >> 16 & 0xf);
    // Stores with the MMU off are to Device memory, against which DC is not ordered (Arm ARM D7.5).
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    for address in (range.start.0..range.end.0).step_by(line) {
        // SAFETY: memory holds what was stored: no store since the reset went through a cache.
        unsafe { asm!("dc ivac, {}", in(reg) address, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Loads the registers of the exception level and turns MMU and caches on.
///
/// # Safety
/// The tables map what runs and what it uses at its physical addresses.
pub unsafe fn turn_mmu_on(level: u64, registers: &Registers) {
    let Registers { mair, tcr, ttbr0, sctlr, .. } = *registers;
    let ttbr0 = ttbr0.unwrap_or_default();
    macro_rules! load {
        ($el:literal, $tlbi:literal) => {
            asm!(
                concat!("msr mair_", $el, ", {mair}"),
                concat!("msr tcr_", $el, ", {tcr}"),
                concat!("msr ttbr0_", $el, ", {ttbr0}"),
                "isb",
                concat!("tlbi ", $tlbi),
                "dsb nsh",
                "ic iallu",
                "dsb nsh",
                "isb",
                concat!("mrs {old}, sctlr_", $el),
                "orr {old}, {old}, {sctlr}",
                concat!("msr sctlr_", $el, ", {old}"),
                "isb",
                mair = in(reg) mair, tcr = in(reg) tcr, ttbr0 = in(reg) ttbr0, sctlr = in(reg) sctlr,
                old = out(reg) _, options(nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the caller's.
    unsafe {
        match level {
            1 => load!("el1", "vmalle1"),
            2 => load!("el2", "alle2"),
            _ => load!("el3", "alle3"),
        }
    }
}

/// Returns the syndrome and the address of the last exception.
pub fn fault(level: u64) -> (u64, u64) {
    let (esr, far);
    // SAFETY: reading the registers has no effect.
    unsafe {
        match level {
            1 => asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far),
            2 => asm!("mrs {}, esr_el2", "mrs {}, far_el2", out(reg) esr, out(reg) far),
            _ => asm!("mrs {}, esr_el3", "mrs {}, far_el3", out(reg) esr, out(reg) far),
        }
    }
    (esr, far)
}

/// Stores a byte.
///
/// # Safety
/// As for any write: of this program only the exception that follows.
pub unsafe fn store(at: Pa) {
    // SAFETY: the caller's.
    unsafe { asm!("strb wzr, [{}]", in(reg) at.0, options(nostack, preserves_flags)) };
}

/// Prints on the UART, which QEMU has ready.
pub fn say(text: &str) {
    for byte in text.bytes() {
        // SAFETY: the PL011's data register.
        unsafe { (UART.start.0 as *mut u32).write_volatile(byte.into()) };
    }
}

/// Ends the program, and QEMU, with exit code 1 and the reason.
pub fn exit(why: &str) -> ! {
    say("error: ");
    say(why);
    say("\n");
    end(1)
}

/// Ends the program, and QEMU, with exit code 0.
pub fn succeed() -> ! {
    end(0)
}

fn end(code: u64) -> ! {
    // ADP_Stopped_ApplicationExit, and the exit code (Arm semihosting, SYS_EXIT).
    let block = [0x2_0026u64, code];
    loop {
        // SAFETY: QEMU's semihosting ends QEMU.
        unsafe { asm!("hlt #0xf000", in("x0") 0x18u64, in("x1") &raw const block) };
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit("a panic")
}

//! The machine: what the linker script places, the first maps, the console, other CPUs, the end.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use linmap_table::{BumpFrames, DetachedTree, FirstMap, FirstMapError};
use linmap_vmsa::registers::{MAIR, RegisterError, SCTLR_MMU_AND_CACHES, tcr, ttbr};
use linmap_vmsa::{Attributes, Geometry, Granule, Pa, PaRange, Va};

use crate::lock::Lock;

global_asm!(include_str!("entry.S"));

/// Memory of QEMU's `virt` machine, as much as it has at least.
const RAM: PaRange = PaRange { start: Pa(0x4000_0000), end: Pa(0x4800_0000) };
/// Its UART, a PL011.
const UART: PaRange = PaRange { start: Pa(0x0900_0000), end: Pa(0x0900_1000) };
/// What the kernel adds to a physical address: all memory is mapped in the upper half.
pub const OFFSET: u64 = 0xffff_ff80_0000_0000;
/// Both halves: pages of 4 KiB, 39 bits of virtual and 40 bits of physical address.
pub const GEOMETRY: Geometry = match Geometry::new(Granule::K4, 39, 40) {
    Ok(geometry) => geometry,
    Err(_) => panic!("a size that TCR has"),
};

/// What the linker script places, by physical address.
pub mod linked {
    use super::{OFFSET, Pa, PaRange};

    macro_rules! range {
        ($(#[$about:meta])* $name:ident, $start:ident, $end:ident) => {
            $(#[$about])*
            pub fn $name() -> PaRange {
                unsafe extern "C" {
                    static $start: u8;
                    static $end: u8;
                }
                // The addresses are physical before the MMU is on.
                let pa = |address: u64| Pa(if address >= OFFSET { address - OFFSET } else { address });
                PaRange { start: pa(&raw const $start as u64), end: pa(&raw const $end as u64) }
            }
        };
    }

    range!(
        /// Text and read-only data, whole pages.
        text, __text_start, __text_end
    );
    range!(
        /// Memory for the kernel's tables.
        tables, __tables_start, __tables_end
    );
    range!(
        /// Frames for processes.
        frames, __frames_start, __frames_end
    );
}

/// What each CPU loads before its MMU is on: MAIR, TCR, TTBR0, TTBR1, bits of SCTLR. In cache lines
/// of its own.
#[repr(C, align(2048))]
struct BootRegisters([AtomicU64; 256]);

#[unsafe(no_mangle)]
static REGISTERS: BootRegisters = BootRegisters([const { AtomicU64::new(0) }; 256]);

/// Called by `entry.S` where the image lies, with the MMU off: the kernel's half, and the code that
/// turns the MMU on at its physical address.
#[unsafe(no_mangle)]
extern "C" fn first_maps() {
    let Ok((kernel, identity)) = build_maps() else { end(2) };
    let Ok(values) = boot_registers(&kernel, &identity) else { end(2) };
    for (register, value) in REGISTERS.0.iter().zip(values) {
        register.store(value, Ordering::Relaxed);
    }
    invalidate(linked::tables());
    let start = Pa(&raw const REGISTERS as u64);
    invalidate(PaRange { start, end: Pa(start.0 + size_of::<BootRegisters>() as u64) });
}

fn build_maps() -> Result<(DetachedTree, DetachedTree), FirstMapError> {
    // SAFETY: the linker script sets the memory aside for tables.
    let mut frames = unsafe { BumpFrames::new(linked::tables(), GEOMETRY) };
    let mut kernel = FirstMap::<8>::new(GEOMETRY);
    let text = linked::text();
    kernel.at(Va(RAM.start.0 + OFFSET), RAM, Attributes::KERNEL_DATA)?;
    kernel.at(Va(text.start.0 + OFFSET), text, Attributes::KERNEL_TEXT)?;
    kernel.at(Va(UART.start.0 + OFFSET), UART, Attributes::DEVICE)?;
    let mut identity = FirstMap::<8>::new(GEOMETRY);
    identity.identity(text, Attributes::KERNEL_TEXT)?;
    // SAFETY: the linker script sets the memory aside, and the MMU is off.
    Ok(unsafe { (kernel.build(0, &mut frames)?, identity.build(0, &mut frames)?) })
}

fn boot_registers(kernel: &DetachedTree, identity: &DetachedTree) -> Result<[u64; 5], RegisterError> {
    // 8 bits of ASID are more than this example uses.
    Ok([
        MAIR,
        tcr(GEOMETRY, GEOMETRY, false)?,
        ttbr(GEOMETRY, identity.root(), 0)?,
        ttbr(GEOMETRY, kernel.root(), 0)?,
        SCTLR_MMU_AND_CACHES,
    ])
}

/// Drops what caches hold of `range`, which was written with the MMU off.
fn invalidate(range: PaRange) {
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

/// Starts CPU `cpu`, which enters `kernel_main`.
pub fn start(cpu: u64) {
    unsafe extern "C" {
        static secondary: u8;
    }
    let entry = &raw const secondary as u64 - OFFSET;
    if smccc::psci::cpu_on::<smccc::Hvc>(cpu, entry, cpu).is_err() {
        fail(format_args!("CPU {cpu} does not start"));
    }
}

/// The virtual counter.
pub fn counter() -> u64 {
    let ticks;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the PL011's data register.
            unsafe { ((UART.start.0 + OFFSET) as *mut u32).write_volatile(byte.into()) };
        }
        Ok(())
    }
}

static CONSOLE: Lock<Console> = Lock::new(Console);

/// Prints a line.
pub fn say(line: fmt::Arguments<'_>) {
    // The console takes everything.
    let _ = CONSOLE.with(|console| writeln!(console, "{line}"));
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

/// The number behind the program's name in the command line (`cargo xtask example --rounds`), or 1.
pub fn rounds() -> u32 {
    // The name is a path.
    let mut text = [0u8; 4096];
    let mut block = [text.as_mut_ptr() as u64, text.len() as u64];
    // SAFETY: SYS_GET_CMDLINE fills the buffer and stores its length.
    unsafe { asm!("hlt #0xf000", inout("x0") 0x15u64 => _, in("x1") &raw mut block) };
    let words = text.split(|byte| *byte == b' ' || *byte == 0);
    let mut numbers = words.filter_map(|word| core::str::from_utf8(word).ok()?.parse().ok());
    numbers.next_back().unwrap_or(1)
}

/// Entered from the vectors, for every exception but those from EL0.
#[unsafe(no_mangle)]
extern "C" fn exception() -> ! {
    let (esr, far, elr): (u64, u64, u64);
    // SAFETY: reading the registers has no effect.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far);
        asm!("mrs {}, elr_el1", out(reg) elr);
    }
    fail(format_args!("an exception in the kernel: {esr:#x} at {elr:#x} for {far:#x}"))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}

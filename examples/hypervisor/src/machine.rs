//! QEMU's `virt` machine with 768 MiB of RAM and three CPUs: who has which of it; and QEMU's
//! semihosting, since the UART is the guest's.

use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use arrayvec::ArrayString;
use linmap_vmsa::{Pa, PaRange};

const fn range(start: u64, end: u64) -> PaRange {
    PaRange { start: Pa(start), end: Pa(end) }
}

/// All RAM.
pub const RAM: PaRange = range(0x4000_0000, 0x7000_0000);
/// What of it is the guest's: all but the end, where the linker script puts this program.
pub const GUEST_RAM: PaRange = range(RAM.start.0, 0x6e00_0000);
/// What the guest is told to leave alone.
pub const IDLE: PaRange = range(0x5000_0000, 0x6000_0000);
/// The device tree that QEMU makes, where it puts it for a program that is no Linux: 1 MiB.
pub const MACHINES_TREE: PaRange = range(RAM.start.0, 0x4010_0000);
/// Where the guest gets its own.
pub const GUEST_TREE: PaRange = range(0x4700_0000, 0x4710_0000);
/// Where QEMU loads the guest's Image.
pub const GUEST_IMAGE: Pa = Pa(0x4020_0000);
/// Devices and their memory: below RAM, then the second GICv3 region and PCIe.
pub const DEVICES: [PaRange; 3] =
    [range(0, RAM.start.0), range(0x40_0000_0000, 0x40_4000_0000), range(0x80_0000_0000, 0x100_0000_0000)];

/// The guest's CPUs are those below this number, which is the editor's.
pub const EDITOR: usize = 2;

/// What the linker script places.
pub mod linked {
    use super::{Pa, PaRange};

    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
        static __bss_start: u8;
        static __bss_end: u8;
        static __stacks_end: u8;
        static __own_tables: u8;
        static __guest_tables: u8;
        static __end: u8;
    }

    /// Text and read-only data, whole pages.
    pub fn text() -> PaRange {
        PaRange { start: Pa(&raw const __text_start as u64), end: Pa(&raw const __text_end as u64) }
    }

    /// Statics that begin as zeros.
    pub fn cleared() -> PaRange {
        PaRange { start: Pa(&raw const __bss_start as u64), end: Pa(&raw const __bss_end as u64) }
    }

    /// The end of the stack of a CPU, 64 KiB each.
    pub fn stack_end(cpu: usize) -> u64 {
        &raw const __stacks_end as u64 - cpu as u64 * 0x1_0000
    }

    /// Memory for the tables of this program.
    pub fn own_tables() -> PaRange {
        PaRange { start: Pa(&raw const __own_tables as u64), end: Pa(&raw const __guest_tables as u64) }
    }

    /// Memory for the tables of stage 2.
    pub fn guest_tables() -> PaRange {
        PaRange { start: Pa(&raw const __guest_tables as u64), end: Pa(&raw const __end as u64) }
    }
}

/// Prints a line on QEMU's standard error.
macro_rules! say {
    ($($format:tt)*) => { $crate::machine::print(format_args!($($format)*)) };
}
pub(crate) use say;

/// Prints a line, which is cut where it is very long.
pub fn print(line: fmt::Arguments<'_>) {
    let mut text = ArrayString::<512>::new();
    let _ = write!(text, "hypervisor: {line}");
    text.truncate(510);
    text.push_str("\n\0");
    // SYS_WRITE0
    semihosting(4, text.as_ptr() as u64);
}

/// Ends QEMU, with exit code 1 if there is a reason.
pub fn end(error: Option<fmt::Arguments<'_>>) -> ! {
    if let Some(error) = error {
        say!("error: {error}");
    }
    // SYS_EXIT with ADP_Stopped_ApplicationExit and the exit code.
    let block = [0x2_0026u64, error.is_some().into()];
    loop {
        semihosting(0x18, &raw const block as u64);
    }
}

fn semihosting(operation: u64, argument: u64) {
    // SAFETY: QEMU reads what the argument leads to.
    unsafe { asm!("hlt #0xf000", inout("x0") operation => _, in("x1") argument, options(nostack)) };
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(Some(format_args!("{info}")))
}

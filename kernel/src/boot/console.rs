//! Finding the console.

use linmap_platform::{CommandLine, Uart};
use linmap_table::Fixmap;
use linmap_vmsa::{Attributes, Pa, PaRange};

use crate::arch::console::Console;
use crate::arch::cpu::ThisCpu;
use crate::arch::layout::{GEOMETRY, slot};

/// The UART that `earlycon=` names.
pub fn named_by(line: CommandLine<'_>) -> Option<Uart> {
    line.get("earlycon").and_then(Uart::from_earlycon)
}

/// Makes `uart` the console and returns it. If its registers can't be where they are said to be,
/// the previous console stays, and this returns `None`.
pub fn switch_to(uart: Uart, pa_bits: u8, fixmap: &mut Fixmap) -> Option<Uart> {
    let page = GEOMETRY.granule().bytes();
    let offset = uart.registers.0 & (page - 1);
    let in_reach = uart.registers.0 >> pa_bits == 0;
    if !in_reach || !offset.is_multiple_of(4) || offset > page - Console::REGISTERS_LEN {
        return None;
    }
    // The slot may map the previous console.
    fixmap.clear(&mut ThisCpu, slot::CONSOLE);
    let frame = Pa(uart.registers.0 - offset);
    let mapped = fixmap.map(&mut ThisCpu, slot::CONSOLE, frame, Attributes::DEVICE);
    // SAFETY: all registers lie in the page that was just mapped, aligned, and the slot stays
    // mapped. The device tree or the command line says that it is a UART of this kind.
    unsafe { Console::use_uart(mapped.byte_add(offset as usize), uart.kind) };
    Some(uart)
}

/// The page with the registers of `uart`, which is the console.
pub fn registers(uart: Uart) -> PaRange {
    let page = GEOMETRY.granule().bytes();
    let start = uart.registers.0 & !(page - 1);
    PaRange::new(Pa(start), Pa(start + page))
}

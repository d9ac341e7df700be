//! Finding the console.

use arrayvec::ArrayVec;
use linmap_platform::{CommandLine, Identity, Uart};
use linmap_table::Fixmap;
use linmap_vmsa::{Attributes, Pa, PaRange};
use thiserror::Error;

use crate::arch::console::Console;
use crate::arch::cpu::ThisCpu;
use crate::arch::layout::{GRANULE, slot};
use crate::arch::print::Quoted;
use crate::arch::uart::{AbsentUart, MappedUart};
use crate::{report, say};

/// How many UARTs may be named: by `stdout-path` and by the command line.
const MAX_CANDIDATES: usize = 2;

/// Why a UART is not the console.
#[derive(Debug, Error)]
enum ConsoleError {
    /// Its registers lie where the CPU or the early tables reach nothing.
    #[error("its registers lie beyond {pa_bits} bits of physical address")]
    OutOfReach {
        /// The bits in reach.
        pa_bits: u8,
    },
    /// Its registers are not aligned, or not in one page.
    #[error("its registers are not aligned, or they cross the end of a page")]
    Placement,
    /// It is not there.
    #[error(transparent)]
    Absent(#[from] AbsentUart),
}

/// The UART that `earlycon=` names.
pub fn named_by(line: CommandLine<'_>) -> Option<Uart> {
    line.get("earlycon").and_then(Uart::from_earlycon)
}

/// Makes the first of `candidates` that the machine has the console and returns it. The console up
/// to now, `previous`, stays if it is named or if the machine has none of them. Reports the absent
/// ones.
pub fn switch_to_first(
    candidates: impl IntoIterator<Item = Uart>,
    previous: Option<Uart>,
    pa_bits: u8,
    fixmap: &mut Fixmap,
) -> Option<Uart> {
    let mut absent = ArrayVec::<(Uart, ConsoleError), MAX_CANDIDATES>::new();
    let mut console = previous;
    for uart in candidates {
        if previous.is_some_and(|previous| is_same(previous, uart)) {
            break;
        }
        match switch_to(uart, pa_bits, fixmap) {
            Ok(()) => {
                console = Some(uart);
                break;
            }
            // Of more candidates than there are names, the last ones are not reported.
            Err(error) => drop(absent.try_push((uart, error))),
        }
    }
    for (uart, error) in absent {
        let Uart { kind, registers, .. } = uart;
        say!("the console can't be the {kind:?} UART at {registers}: {error}");
        report!("warning=console uart={registers} what={}", Quoted(&error));
    }
    console
}

/// Whether both are driven in the same way at the same place.
fn is_same(a: Uart, b: Uart) -> bool {
    Uart { identity: b.identity, ..a } == b
}

/// Makes `uart` the console if the machine has it. Otherwise the previous console stays.
fn switch_to(uart: Uart, pa_bits: u8, fixmap: &mut Fixmap) -> Result<(), ConsoleError> {
    let page = GRANULE.bytes();
    let offset = uart.registers.0 & (page - 1);
    if uart.registers.0 >> pa_bits != 0 {
        return Err(ConsoleError::OutOfReach { pa_bits });
    }
    let len = if uart.identity == Identity::InRegisters { page } else { MappedUart::registers_len(uart) };
    if !offset.is_multiple_of(uart.width.bytes().into()) || offset + len > page {
        return Err(ConsoleError::Placement);
    }
    let frame = Pa(uart.registers.0 - offset);
    // The console's slot may map the previous console.
    // SAFETY: the registers of a device, by a type for devices.
    let probed = unsafe { fixmap.map(&mut ThisCpu, slot::MOMENT, frame, Attributes::DEVICE) };
    // SAFETY: all registers lie in the page that was just mapped, aligned, and the value is gone
    // when the slot is cleared.
    let present = unsafe { MappedUart::new(probed.byte_add(offset as usize), uart) }.probe(uart.identity);
    fixmap.clear(&mut ThisCpu, slot::MOMENT);
    present?;
    fixmap.clear(&mut ThisCpu, slot::CONSOLE);
    // SAFETY: as above.
    let mapped = unsafe { fixmap.map(&mut ThisCpu, slot::CONSOLE, frame, Attributes::DEVICE) };
    // SAFETY: as above, and this slot stays mapped.
    unsafe { Console::use_uart(MappedUart::new(mapped.byte_add(offset as usize), uart)) };
    Ok(())
}

/// The page with the registers of `uart`, which is the console.
pub fn registers(uart: Uart) -> PaRange {
    let page = GRANULE.bytes();
    let start = uart.registers.0 & !(page - 1);
    PaRange::new(Pa(start), Pa(start + page))
}

//! The console: the UART that every line goes to.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::arch::stop;
use crate::arch::uart::MappedUart;

/// The first word of the UART; 0 while there is no console.
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

/// The second word of the UART.
static FORM: AtomicUsize = AtomicUsize::new(0);

/// Whether the UART took no byte within its time, so that nobody waits for it again until it does.
static STUCK: AtomicBool = AtomicBool::new(false);

/// The console.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Console {
    /// Makes `uart` the console, and turns it on if the firmware has not. Only the boot CPU does
    /// this, before any other CPU prints.
    ///
    /// # Safety
    /// Its registers stay mapped as long as the kernel runs.
    pub unsafe fn use_uart(uart: MappedUart) {
        uart.turn_on();
        let (registers, form) = uart.to_words();
        REGISTERS.store(0, Ordering::Release);
        FORM.store(form, Ordering::Release);
        REGISTERS.store(registers, Ordering::Release);
        STUCK.store(false, Ordering::Relaxed);
    }

    fn uart() -> Option<MappedUart> {
        let registers = REGISTERS.load(Ordering::Acquire);
        let form = FORM.load(Ordering::Acquire);
        // SAFETY: the words of the UART that `use_uart` got.
        (registers != 0).then(|| unsafe { MappedUart::from_words((registers, form)) })
    }

    /// Sends a byte, or drops it if the UART takes none for a second.
    fn send(uart: MappedUart, byte: u8) {
        let was_stuck = STUCK.load(Ordering::Relaxed);
        let has_room = if was_stuck { uart.has_room() } else { uart.wait_for_room() };
        if has_room {
            uart.send(byte);
        }
        if was_stuck == has_room {
            STUCK.store(!has_room, Ordering::Relaxed);
        }
    }

    /// Waits for a byte and returns it, or `None` without a console. Stops for good when another
    /// CPU ends the kernel.
    pub fn receive() -> Option<u8> {
        let uart = Self::uart()?;
        loop {
            if let Some(byte) = uart.received() {
                return Some(byte);
            }
            stop::stop_if_elsewhere();
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(uart) = Self::uart() else { return Ok(()) };
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::send(uart, b'\r');
            }
            Self::send(uart, byte);
        }
        Ok(())
    }
}

//! The console: a PL011 or an SBSA UART, found from the DTB's stdout-path or named by `earlycon=`.

use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use linmap_platform::UartKind;

use crate::arch::stop;

/// Where the registers are mapped; 0 while there is no console.
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

// Register offsets and bits (PrimeCell UART PL011 TRM, chapter 3).
const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const LINE_CONTROL: usize = 0x2c;
const CONTROL: usize = 0x30;
const FLAG_RECEIVE_EMPTY: u32 = 1 << 4;
const FLAG_TRANSMIT_FULL: u32 = 1 << 5;
/// Eight bits a character, FIFOs on.
const LINE_8_BITS_FIFO: u32 = 0b11 << 5 | 1 << 4;
const CONTROL_ENABLE: u32 = 1;
/// Transmit and receive.
const CONTROL_BOTH_WAYS: u32 = 1 << 8 | 1 << 9;

/// The console.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Console {
    /// The length in bytes of the UART's registers, up to the last that is used.
    pub const REGISTERS_LEN: u64 = CONTROL as u64 + 4;

    /// Makes the UART whose registers are mapped at `registers` the console. Turns a PL011 on if
    /// the firmware has not. The line's speed stays as it was.
    ///
    /// # Safety
    /// The registers of a UART of this kind are mapped there, as device memory, as long as the
    /// kernel runs.
    pub unsafe fn use_uart(registers: ptr::NonNull<u64>, kind: UartKind) {
        REGISTERS.store(registers.as_ptr().expose_provenance(), Ordering::Relaxed);
        if kind == UartKind::Pl011 && Self::read(CONTROL).is_some_and(|control| control & CONTROL_ENABLE == 0)
        {
            Self::write(LINE_CONTROL, LINE_8_BITS_FIFO);
            Self::write(CONTROL, CONTROL_BOTH_WAYS | CONTROL_ENABLE);
        }
    }

    fn register(offset: usize) -> Option<*mut u32> {
        let base = REGISTERS.load(Ordering::Relaxed);
        (base != 0).then(|| ptr::with_exposed_provenance_mut(base + offset))
    }

    fn read(offset: usize) -> Option<u32> {
        // SAFETY: the promise of `use_uart`'s caller.
        Self::register(offset).map(|register| unsafe { register.read_volatile() })
    }

    fn write(offset: usize, value: u32) {
        if let Some(register) = Self::register(offset) {
            // SAFETY: as in `read`.
            unsafe { register.write_volatile(value) };
        }
    }

    fn send(byte: u8) {
        while Self::read(FLAGS).is_some_and(|flags| flags & FLAG_TRANSMIT_FULL != 0) {}
        Self::write(DATA, byte.into());
    }

    /// Waits for a byte and returns it, or `None` without a console. Stops for good when another
    /// CPU ends the kernel.
    pub fn receive() -> Option<u8> {
        while Self::read(FLAGS)? & FLAG_RECEIVE_EMPTY != 0 {
            stop::stop_if_elsewhere();
        }
        Self::read(DATA).map(|data| data as u8)
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::send(b'\r');
            }
            Self::send(byte);
        }
        Ok(())
    }
}

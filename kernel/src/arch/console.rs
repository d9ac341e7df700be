//! The console: a PL011 or an SBSA UART, found from the DTB's stdout-path or named by `earlycon=`.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::{hint, ptr};

use linmap_platform::UartKind;

use crate::arch::percpu;
use crate::end::fatal;
use crate::smp::cross_call::PATIENCE;

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
    /// Bytes of registers from a UART's first to the last that is used.
    pub const REGISTERS_LEN: u64 = CONTROL as u64 + 4;

    /// Sends everything to the UART whose registers are mapped at `registers` from now on; turns a PL011 on if the
    /// firmware has not. The line's speed stays as it was.
    ///
    /// # Safety
    /// The registers of such a UART must be mapped there, as device memory, for as long as the kernel runs.
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
        // SAFETY: `use_uart`'s caller vouched for the registers.
        Self::register(offset).map(|register| unsafe { register.read_volatile() })
    }

    fn write(offset: usize, value: u32) {
        if let Some(register) = Self::register(offset) {
            // SAFETY: as in `read`.
            unsafe { register.write_volatile(value) };
        }
    }

    fn put(byte: u8) {
        while Self::read(FLAGS).is_some_and(|flags| flags & FLAG_TRANSMIT_FULL != 0) {}
        Self::write(DATA, byte.into());
    }

    /// Waits for a byte to be received, or stops when another CPU met its end; `None` when there is no console to receive one.
    pub fn get() -> Option<u8> {
        while Self::read(FLAGS)? & FLAG_RECEIVE_EMPTY != 0 {
            fatal::stop_if_elsewhere();
        }
        Self::read(DATA).map(|data| data as u8)
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                Self::put(b'\r');
            }
            Self::put(byte);
        }
        Ok(())
    }
}

/// The CPU that prints a line: its number plus 1, 0 for none.
static PRINTER: AtomicUsize = AtomicUsize::new(0);

/// Prints `prefix` and `text` as one line, which no other CPU's text gets into. An exception may come while this CPU prints,
/// and print as well; a CPU that ends the kernel does not wait for one that has stopped in the middle of a line.
pub fn line(prefix: &str, text: fmt::Arguments<'_>) {
    let me = percpu::this_cpu() + 1;
    let nested = PRINTER.load(Ordering::Relaxed) == me;
    if !nested {
        let free = || PRINTER.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if fatal::is_here() {
            let stopped = || PRINTER.load(Ordering::Relaxed).checked_sub(1).is_some_and(fatal::has_stopped);
            percpu::wait_until(PATIENCE, || free() || stopped());
            PRINTER.store(me, Ordering::Relaxed);
        } else {
            while !free() {
                fatal::stop_if_elsewhere();
                hint::spin_loop();
            }
            if fatal::is_elsewhere() {
                PRINTER.store(0, Ordering::Release);
                fatal::stop_if_elsewhere();
            }
        }
    }
    // The console can't fail.
    let _ = writeln!(Console, "{prefix}{text}");
    if !nested {
        // Unless it was taken from us.
        let _ = PRINTER.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
    }
}

/// Prints a line for people.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::arch::console::line("", format_args!($($arg)*))
    };
}

/// Prints a line for machines: `linmap: ` and `key=value` pairs.
#[macro_export]
macro_rules! report {
    ($($arg:tt)*) => {
        $crate::arch::console::line("linmap: ", format_args!($($arg)*))
    };
}

/// A value for machines that may hold spaces: in double quotes, with `"` and `\` escaped and control characters dropped.
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for c in text.chars().filter(|c| !c.is_control()) {
                    if matches!(c, '"' | '\\') {
                        self.0.write_char('\\')?;
                    }
                    self.0.write_char(c)?;
                }
                Ok(())
            }
        }
        f.write_char('"')?;
        write!(Escape(f), "{}", self.0)?;
        f.write_char('"')
    }
}

//! Printing whole lines: `say!` for people, `report!` for machines.

use core::fmt::{self, Write};
use core::hint;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::console::Console;
use crate::arch::per_cpu;
use crate::arch::stop;
use crate::arch::wait::{PATIENCE, wait_until};

/// The CPU that prints a line: its number plus 1, 0 for none.
static PRINTER: AtomicUsize = AtomicUsize::new(0);

/// Prints `prefix` and `text` as one line; text of other CPUs never gets into it. An exception may
/// interrupt this CPU while it prints, and print a line as well. The CPU that ends the kernel does
/// not wait for one that stopped in the middle of a line.
pub fn line(prefix: &str, text: fmt::Arguments<'_>) {
    let me = per_cpu::this_cpu() + 1;
    let nested = PRINTER.load(Ordering::Relaxed) == me;
    if !nested {
        let free = || PRINTER.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if stop::is_here() {
            let stopped = || PRINTER.load(Ordering::Relaxed).checked_sub(1).is_some_and(stop::has_stopped);
            wait_until(PATIENCE, || free() || stopped());
            PRINTER.store(me, Ordering::Relaxed);
        } else {
            while !free() {
                stop::stop_if_elsewhere();
                hint::spin_loop();
            }
            if stop::is_elsewhere() {
                PRINTER.store(0, Ordering::Release);
                stop::stop_if_elsewhere();
            }
        }
    }
    // The console can't fail.
    let _ = writeln!(Console, "{prefix}{text}");
    if !nested {
        // The CPU that ends the kernel may have claimed the console: then this CPU must not release
        // it.
        let _ = PRINTER.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
    }
}

/// Prints a line for people.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::arch::print::line("", format_args!($($arg)*))
    };
}

/// Prints a line for machines: `linmap: ` and `key=value` pairs.
#[macro_export]
macro_rules! report {
    ($($arg:tt)*) => {
        $crate::arch::print::line("linmap: ", format_args!($($arg)*))
    };
}

/// A value for machines that may hold spaces. It is printed in double quotes, with `"` and `\`
/// escaped and control characters dropped.
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

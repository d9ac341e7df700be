//! The shell on the console.

use core::fmt;

use arrayvec::ArrayString;

use crate::arch::console::Console;
use crate::arch::psci::power_off;
use crate::shell::commands::execute;
use crate::shell::owners::Owners;
use crate::{report, say};

/// Reads and runs commands until the input ends or a command leaves the kernel.
pub fn run(owners: &mut Owners) -> ! {
    report!("shell=ready");
    say!("linmap's shell; `help` lists the commands");
    loop {
        let mut line = ArrayString::new();
        if !read_line(&mut line) {
            power_off(owners.platform.psci);
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Err(error) = execute(owners, line) {
            say!("{error}");
        }
    }
}

/// Reads a line with echo. Backspace and ^U edit it, ^D on an empty line ends the input (`false`).
fn read_line(line: &mut ArrayString<256>) -> bool {
    let echo = |text: fmt::Arguments<'_>| {
        let _ = fmt::Write::write_fmt(&mut Console, text);
    };
    echo(format_args!("linmap> "));
    loop {
        let Some(byte) = Console::receive() else { return false };
        match byte {
            b'\r' | b'\n' => {
                echo(format_args!("\n"));
                return true;
            }
            0x08 | 0x7f if line.pop().is_some() => echo(format_args!("\x08 \x08")),
            0x15 => {
                while line.pop().is_some() {
                    echo(format_args!("\x08 \x08"));
                }
            }
            0x04 if line.is_empty() => return false,
            b' '..=b'~' if line.try_push(char::from(byte)).is_ok() => {
                echo(format_args!("{}", char::from(byte)));
            }
            _ => {}
        }
    }
}

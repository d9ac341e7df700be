//! Symbols of a System.map: lines of address, type and name.

use super::table::{Rank, Symbols};
use crate::failure::Failure;

/// The symbols in the lines of `file`.
pub fn symbols(file: &[u8]) -> Result<Symbols, Failure> {
    let mut symbols = Symbols::default();
    let mut lines = 0;
    for (nth, line) in file.split(|&byte| byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        let wrong = || {
            Failure::new(format_args!("line {} is not an address, a type and a name", nth + 1))
                .hint("a text file with symbols is a System.map")
        };
        let address = u64::from_str_radix(address, 16).map_err(|_| wrong())?;
        let (Some(kind), Some(name)) = (words.next(), words.next()) else { return Err(wrong()) };
        lines += 1;
        // Debian ships one line, which is a sentence.
        if words.next().is_some() {
            return Err(if lines == 1 { stub(&line) } else { wrong() });
        }
        // Absolute values are no addresses.
        if !kind.eq_ignore_ascii_case("a") {
            symbols.add(address, Rank::of(kind.chars().next().unwrap_or(' ')), name);
        }
    }
    symbols.finish(None)
}

/// The error for the System.map in which `line` says where the real one is.
fn stub(line: &str) -> Failure {
    let said: Vec<&str> = line.split_ascii_whitespace().skip(2).take(16).collect();
    Failure::new(format_args!("a stub System.map: \"{}\"", said.join(" ")))
        .hint("give the kernel's Image instead: it has its own kallsyms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_symbols_and_absolute_values_are_none() {
        let map = b"0000000000001000 A constant\nffff800080000000 T _text\nffff800080010000 t map_kernel\n";
        let symbols = symbols(map).unwrap();
        assert_eq!(symbols.len(), 2);
        assert_eq!(symbols.address("map_kernel"), Some(0xffff_8000_8001_0000));
    }

    #[test]
    fn the_stub_that_debian_ships_is_named_as_such() {
        let stub =
            b"ffffffffffffffff B The real System.map is in the linux-image-6.12.95+deb13-arm64-dbg package\n";
        let error = symbols(stub).unwrap_err().to_string();
        assert_eq!(
            error,
            "a stub System.map: \"The real System.map is in the \
             linux-image-6.12.95+deb13-arm64-dbg package\"; \
             give the kernel's Image instead: it has its own kallsyms"
        );
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["hello\n", "10 T\n", "10 T a\nzz T b\n", "10 T a\n11 T b c\n", "10 a x\n", "\n"] {
            assert!(symbols(text.as_bytes()).is_err(), "{text}");
        }
    }
}

//! Sizes and addresses as people write them.

use std::fmt;
use std::str::FromStr;

use linmap_vmsa::{Pa, PaRange};

/// Bytes, shown in the largest unit that keeps the number readable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((unit, shift)) = UNITS.into_iter().find(|(_, shift)| self.0 >> shift > 0) else {
            return f.pad(&format!("{} B", self.0));
        };
        let (whole, rest) = (self.0 >> shift, self.0 & ((1 << shift) - 1));
        let text = match (rest, whole) {
            (0, _) => format!("{whole} {unit}"),
            // A rounded fraction could become a whole number.
            (_, 100..) => format!("{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64),
            _ => format!("{:.2} {unit}", self.0 as f64 / (1u64 << shift) as f64),
        };
        f.pad(&text)
    }
}

/// Reads a number: decimal or `0x…`, with `_` between digits, and one of the letters K, M, G and T
/// for powers of 1024.
pub fn number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'K' | 'k') => (&text[..at], 10),
        (at, 'M' | 'm') => (&text[..at], 20),
        (at, 'G' | 'g') => (&text[..at], 30),
        (at, 'T' | 't') => (&text[..at], 40),
        _ => (text, 0),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    let digits: String = digits.chars().filter(|digit| *digit != '_').collect();
    let number = u64::from_str_radix(&digits, radix).ok()?;
    number.checked_mul(1 << shift)
}

/// A bank of memory: `SIZE@START`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bank(pub PaRange);

impl FromStr for Bank {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text.split_once('@').and_then(|(size, start)| {
            PaRange::from_len(Pa(number(start)?), number(size).filter(|size| *size > 0)?)
        });
        range.map(Self).ok_or("a bank is SIZE@START, 948M@0 or 3G@0x40000000 for example")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        let shown = [0, 4096, 1536 << 10, 948 << 20, (4 << 30) - (64 << 10), 64 << 40, u64::MAX]
            .map(|bytes| Bytes(bytes).to_string());
        assert_eq!(
            shown,
            ["0 B", "4 KiB", "1.50 MiB", "948 MiB", "4.00 GiB", "64 TiB", "16384.0 PiB"].map(String::from)
        );
    }

    #[test]
    fn numbers_have_a_radix_and_a_unit() {
        for (text, found) in [
            ("0", Some(0)),
            ("0x4000_0000", Some(1 << 30)),
            ("2G", Some(2 << 30)),
            ("0x10k", Some(16 << 10)),
            ("17179869184G", None),
            ("", None),
            ("G", None),
            ("+1", None),
            ("-1", None),
            ("_1", None),
            ("1 M", None),
            ("é", None),
            ("0x", None),
        ] {
            assert_eq!(number(text), found, "{text:?}");
        }
    }

    #[test]
    fn a_bank_has_a_size_and_a_start() {
        let bank = "948M@0".parse::<Bank>().map(|bank| bank.0.len());
        assert_eq!(bank.ok(), Some(948 << 20));
        for wrong in ["", "1G", "@", "0@1G", "1G@", "2G@0xffffffffffffffff", "1G@0@0"] {
            assert!(wrong.parse::<Bank>().is_err(), "{wrong}");
        }
    }
}

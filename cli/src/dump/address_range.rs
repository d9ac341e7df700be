//! A range of addresses as a user writes it.

use std::str::FromStr;

/// Addresses, from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// It was written as one address: its walk is shown.
    pub is_address: bool,
}

impl FromStr for AddressRange {
    type Err = String;

    /// `START-END`, `START+SIZE`, or one address. Numbers are hexadecimal with `0x`; a size may end
    /// in K, M, G or T.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((start, end)) = text.split_once('-') {
            let (first, end) = (number(start)?, number(end)?);
            // The end of the address space is 2^64.
            let last = end.wrapping_sub(1);
            return match first <= last {
                true => Ok(Self { first, last, is_address: false }),
                false => Err(format!("{start} is not below {end:#x}")),
            };
        }
        if let Some((start, size)) = text.split_once('+') {
            let (first, size) = (number(start)?, size_of(size)?);
            let last = size.checked_sub(1).and_then(|less| first.checked_add(less));
            let last = last.ok_or_else(|| format!("{text} is empty or ends beyond 2^64"))?;
            return Ok(Self { first, last, is_address: false });
        }
        let first = number(text)?;
        Ok(Self { first, last: first, is_address: true })
    }
}

fn number(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(&digits.replace('_', ""), 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no number: hexadecimal ones begin with 0x"))
}

fn size_of(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let shift = match text.chars().last().map(|last| last.to_ascii_uppercase()) {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { text.get(..text.len() - 1).unwrap_or_default() };
    number(digits)?.checked_mul(1 << shift).ok_or_else(|| format!("{text} is more than 2^64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_addresses_or_one_and_a_size() {
        let range = |text: &str| text.parse::<AddressRange>().map(|range| (range.first, range.last));
        assert_eq!(
            range("0xffff000000000000-0xffff000040000000"),
            Ok((0xffff << 48, (0xffff << 48) + 0x3fff_ffff))
        );
        assert_eq!(range("0x1000+8K"), Ok((0x1000, 0x2fff)));
        assert_eq!(range("0xffffffff00000000+4G"), Ok((0xffff_ffff_0000_0000, u64::MAX)));
        assert_eq!(range("4096"), Ok((4096, 4096)));
        for wrong in ["", "0x", "x", "0x2000-0x1000", "0x1000+0", "0x1000+99999999T", "1-2-3", "ä"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}

//! Numbers of a trace.

use thiserror::Error;

/// Why digits are not a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum NumberError {
    /// No digit, a character that is not a digit of the radix, or `_` in front.
    #[error("not a number")]
    NotANumber,
    /// More than 64 bits.
    #[error("the number exceeds 64 bits")]
    TooLarge,
}

/// Reads a number of digits with `_` anywhere after the first.
///
/// ```
/// assert_eq!(linmap_trace::number(b"4000_1000", 16), Ok(0x4000_1000));
/// ```
///
/// # Errors
/// [`NumberError`].
pub fn number(digits: &[u8], radix: u32) -> Result<u64, NumberError> {
    if digits.first().is_none_or(|&first| first == b'_') {
        return Err(NumberError::NotANumber);
    }
    let mut value = 0_u64;
    // 16 digits cannot overflow.
    let (few, rest) = digits.split_at(digits.len().min(16));
    for &digit in few {
        let digit = u64::from(VALUES[usize::from(digit)]);
        if digit >= u64::from(radix) {
            return slow(digits, radix);
        }
        value = value.wrapping_mul(u64::from(radix)).wrapping_add(digit);
    }
    if rest.is_empty() && radix <= 16 { Ok(value) } else { slow(digits, radix) }
}

/// The value of each byte as a digit; 255 for what is none.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut digit = 0;
    while digit < 10 {
        values[b'0' as usize + digit] = digit as u8;
        digit += 1;
    }
    while digit < 36 {
        values[b'a' as usize + digit - 10] = digit as u8;
        values[b'A' as usize + digit - 10] = digit as u8;
        digit += 1;
    }
    values
};

/// The value of the hexadecimal digits that `bytes` begin with, of which the last 16 count, and
/// their number.
#[inline]
pub(crate) fn leading_hex(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0_u64;
    let mut len = 0;
    for &byte in bytes {
        let digit = VALUES[usize::from(byte)];
        if digit >= 16 {
            break;
        }
        value = value << 4 | u64::from(digit);
        len += 1;
    }
    (value, len)
}

/// As [`number`], for digits with `_`, too many of them, or none.
#[cold]
fn slow(digits: &[u8], radix: u32) -> Result<u64, NumberError> {
    let mut value = Some(0_u64);
    for &digit in digits.iter().filter(|&&digit| digit != b'_') {
        let digit = char::from(digit).to_digit(radix).ok_or(NumberError::NotANumber)?;
        value = value.and_then(|value| value.checked_mul(radix.into())?.checked_add(digit.into()));
    }
    value.ok_or(NumberError::TooLarge)
}

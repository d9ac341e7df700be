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
    let mut value = Some(0_u64);
    if digits.first().is_none_or(|&first| first == b'_') {
        return Err(NumberError::NotANumber);
    }
    for &digit in digits.iter().filter(|&&digit| digit != b'_') {
        let digit = char::from(digit).to_digit(radix).ok_or(NumberError::NotANumber)?;
        value = value.and_then(|value| value.checked_mul(radix.into())?.checked_add(digit.into()));
    }
    value.ok_or(NumberError::TooLarge)
}

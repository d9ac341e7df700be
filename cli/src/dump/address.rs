//! Addresses as JSON has them.

/// The address that `text` says.
///
/// # Errors
/// It says none: it has to be hexadecimal and to begin with 0x.
pub fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x");
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    value.ok_or_else(|| format!("{text:?} is not an address: it must begin with 0x"))
}

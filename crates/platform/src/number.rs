//! Numbers in words of a command line.

/// Reads a number: hexadecimal digits after `0x`, or decimal digits with an optional K, M or G
/// (powers of 1024) at the end. Returns `None` for any other text, and for a number of more than 64
/// bits.
pub fn parse_number(word: &str) -> Option<u64> {
    // The standard library's readers accept a sign.
    if let Some(digits) = word.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
    }
    let (digits, shift) = match word.as_bytes().last()? {
        b'K' => (&word[..word.len() - 1], 10),
        b'M' => (&word[..word.len() - 1], 20),
        b'G' => (&word[..word.len() - 1], 30),
        _ => (word, 0),
    };
    digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'))?.checked_mul(1 << shift)
}

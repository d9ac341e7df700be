//! Numbers in words of a command line.

/// Reads a number: decimal digits, or hexadecimal digits after `0x`, with an optional K, M, G or T
/// (powers of 1024, in either case) at the end. Returns `None` for any other text, and for a number
/// of more than 64 bits.
pub fn parse_number(word: &str) -> Option<u64> {
    let (number, shift) = match word.as_bytes().last()? {
        b'K' | b'k' => (&word[..word.len() - 1], 10),
        b'M' | b'm' => (&word[..word.len() - 1], 20),
        b'G' | b'g' => (&word[..word.len() - 1], 30),
        b'T' | b't' => (&word[..word.len() - 1], 40),
        _ => (word, 0),
    };
    let (digits, radix) = number.strip_prefix("0x").map_or((number, 10), |digits| (digits, 16));
    // The standard library's reader accepts a sign.
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
    value.checked_mul(1 << shift)
}

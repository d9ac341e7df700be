//! Numbers in words of the shell and of the command line.

/// A number: hexadecimal after `0x`, else decimal, with K, M or G behind it. `None` for anything else, and for what does not
/// fit into 64 bits.
pub fn number(word: &str) -> Option<u64> {
    // The library's readers take a sign.
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

//! A SHA-256 digest.

use core::fmt;

/// Bytes of a block, the unit of SHA-256.
pub const BLOCK: u64 = 64;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Returns the digest in words of 32 bits, most significant first, as the assembly has it.
    pub fn words(self) -> [u32; 8] {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        words
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_big_endian() {
        let mut bytes = [0; 32];
        bytes[..5].copy_from_slice(&[0xba, 0x78, 0x16, 0xbf, 0x8f]);
        let words = Digest(bytes).words();
        assert_eq!(words[..2], [0xba78_16bf, 0x8f00_0000]);
    }
}

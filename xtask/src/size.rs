//! Memory sizes as a user types them.

use std::fmt;
use std::str::FromStr;

const MIB: u64 = 1 << 20;

/// A memory size in whole mebibytes, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(u64);

/// Why a memory size cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    /// Not a decimal number followed by one of the suffixes.
    #[error("'{0}' is not a memory size: write a whole number and M, G or T, as in 512M, 4G, 1T")]
    Syntax(String),
    /// Zero bytes.
    #[error("a machine without memory cannot boot")]
    Zero,
    /// The number of bytes does not fit 64 bits.
    #[error("'{0}' is more than 64 bits of address can reach")]
    TooLarge(String),
}

impl MemorySize {
    /// `gib` gibibytes.
    pub const fn gib(gib: u32) -> Self {
        Self(gib as u64 * 1024)
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0 * MIB
    }
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || MemorySizeError::Syntax(text.to_owned());
        let (digits, mebibytes) = match text.char_indices().last().ok_or_else(syntax)? {
            (end, 'M' | 'm') => (&text[..end], 1),
            (end, 'G' | 'g') => (&text[..end], 1 << 10),
            (end, 'T' | 't') => (&text[..end], 1 << 20),
            _ => return Err(syntax()),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(syntax());
        }
        let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(mebibytes));
        match size {
            Some(0) => Err(MemorySizeError::Zero),
            Some(size) if size <= u64::MAX / MIB => Ok(Self(size)),
            _ => Err(MemorySizeError::TooLarge(text.to_owned())),
        }
    }
}

/// As QEMU reads it: mebibytes with the suffix M.
impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_either_case_of_suffix() {
        assert_eq!("128M".parse::<MemorySize>().unwrap().bytes(), 128 << 20);
        assert_eq!("4g".parse::<MemorySize>().unwrap().bytes(), 4 << 30);
        assert_eq!("64T".parse::<MemorySize>().unwrap().bytes(), 64 << 40);
        assert_eq!("1T".parse::<MemorySize>().unwrap().to_string(), "1048576M");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "4", "G", "-1G", "+1G", "1.5G", "4GB", "4 G", "0x10M", "４G", "1é"] {
            assert_eq!(text.parse::<MemorySize>(), Err(MemorySizeError::Syntax(text.to_owned())), "{text}");
        }
        assert_eq!("0M".parse::<MemorySize>(), Err(MemorySizeError::Zero));
    }

    #[test]
    fn a_size_that_wraps_is_refused() {
        assert_eq!("16777215T".parse::<MemorySize>().unwrap().bytes(), 16_777_215 << 40);
        for text in ["16777216T", "99999999999999999999G", "18446744073709551615T"] {
            assert_eq!(text.parse::<MemorySize>(), Err(MemorySizeError::TooLarge(text.to_owned())));
        }
    }
}

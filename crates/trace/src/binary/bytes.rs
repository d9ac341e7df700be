//! Numbers as bytes: seven bits a byte, the lowest first, the top bit on all but the last.

/// The longest number.
const MOST: usize = 10;

/// A number whose sign is its lowest bit, so that small differences of either sign are short.
pub fn zigzag(value: u64) -> u64 {
    value << 1 ^ ((value as i64) >> 63) as u64
}

/// The reverse of [`zigzag`].
pub fn unzigzag(value: u64) -> u64 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

/// Bytes being written, as many as fit.
pub struct Writer<'a> {
    pub bytes: &'a mut [u8],
    pub len: usize,
}

impl Writer<'_> {
    pub fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// `value` by its difference to `before`, which it replaces.
    pub fn relative(&mut self, value: u64, before: &mut u64) {
        self.number(zigzag(value.wrapping_sub(*before)));
        *before = value;
    }
}

/// Why no number is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// The bytes end before it does.
    Bytes,
    /// It has more than 64 bits.
    TooLarge,
}

/// Bytes being read.
pub struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn byte(&mut self) -> Result<u8, Missing> {
        let byte = *self.bytes.get(self.at).ok_or(Missing::Bytes)?;
        self.at += 1;
        Ok(byte)
    }

    pub fn number(&mut self) -> Result<u64, Missing> {
        let mut value = 0;
        for nth in 0..MOST {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * nth as u32;
            if bits.leading_zeros() < shift {
                return Err(Missing::TooLarge);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Missing::TooLarge)
    }

    pub fn relative(&mut self, before: &mut u64) -> Result<u64, Missing> {
        *before = before.wrapping_add(unzigzag(self.number()?));
        Ok(*before)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Missing> {
        let end = self.at.checked_add(len).ok_or(Missing::Bytes)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Missing::Bytes)?;
        self.at = end;
        Ok(bytes)
    }
}

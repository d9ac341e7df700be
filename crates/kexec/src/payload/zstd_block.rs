//! The headers inside a compressed zstd block (RFC 8878, 3.1.1.3). The memory that unpacking the
//! block needs follows from them. Headers that break a rule are refused here, before the decoder
//! acts on them.

/// The most bytes of a block, packed or unpacked.
pub(super) const BLOCK_MAX: usize = 0x2_0000;
/// The most symbols of a table: one for each value of a byte.
const SYMBOLS_MAX: u32 = 256;

/// The outline of a compressed block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    /// The number of its sequences.
    pub sequences: usize,
}

impl Outline {
    /// Reads the headers in the content of a compressed block, which may unpack to `most` bytes.
    /// The error is the rule that they break.
    pub fn of(content: &[u8], most: usize) -> Result<Self, &'static str> {
        let literals = Literals::of(content).ok_or("a block ends within its literals")?;
        if literals.len > most {
            return Err("a block has more literals than it may have bytes");
        }
        const TABLE: &str = "a block has an impossible table";
        if literals.has_tree {
            // The tree is a list of weights. It is compressed if its first byte is below 128.
            match literals.packed.split_first() {
                Some((&len, weights)) if len < 128 => {
                    let weights = weights.get(..usize::from(len)).ok_or(TABLE)?;
                    table_len(weights).ok_or(TABLE)?;
                }
                Some(_) => {}
                None => return Err(TABLE),
            }
        }
        let (sequences, modes, mut rest) =
            sequences_header(literals.rest).ok_or("a block ends within its sequences")?;
        // Tables of literal lengths, offsets and match lengths.
        for shift in [6, 4, 2] {
            let len = match modes >> shift & 3 {
                1 => 1,
                2 => table_len(rest).ok_or(TABLE)?,
                _ => 0,
            };
            rest = rest.get(len..).ok_or(TABLE)?;
        }
        Ok(Self { sequences })
    }
}

/// A block's section of literals.
struct Literals<'a> {
    /// The number of literals.
    len: usize,
    /// Whether a Huffman tree precedes them.
    has_tree: bool,
    packed: &'a [u8],
    /// The rest of the block.
    rest: &'a [u8],
}

impl<'a> Literals<'a> {
    fn of(content: &'a [u8]) -> Option<Self> {
        let byte = |at: usize| content.get(at).map(|&byte| u64::from(byte));
        let first = byte(0)?;
        let (kind, size_format) = (first & 3, first >> 2 & 3);
        // Raw and repeated literals have one length. Compressed literals have two, of the same
        // number of bits.
        let (header_len, bits, first_bit) = match (kind, size_format) {
            (0 | 1, 0 | 2) => (1, 5, 3),
            (0 | 1, 1) => (2, 12, 4),
            (0 | 1, _) => (3, 20, 4),
            (_, 0 | 1) => (3, 10, 4),
            (_, 2) => (4, 14, 4),
            _ => (5, 18, 4),
        };
        let mut header = 0;
        for at in 0..header_len {
            header |= byte(at)? << (8 * at);
        }
        let number = |from: u32| usize::try_from(header >> from & ((1 << bits) - 1)).ok();
        let len = number(first_bit)?;
        let packed_len = match kind {
            0 => len,
            1 => 1,
            _ => number(first_bit + bits)?,
        };
        let (packed, rest) = content.get(header_len..)?.split_at_checked(packed_len)?;
        Some(Self { len, has_tree: kind == 2, packed, rest })
    }
}

/// Returns the number of sequences, the modes of their tables, and the rest of the section.
fn sequences_header(section: &[u8]) -> Option<(usize, u8, &[u8])> {
    Some(match *section {
        [0, ref rest @ ..] | [128, 0, ref rest @ ..] => (0, 0, rest),
        [255, low, high, modes, ref rest @ ..] => {
            (usize::from(u16::from_le_bytes([low, high])) + 0x7f00, modes, rest)
        }
        [high @ 128..=254, low, modes, ref rest @ ..] => {
            (usize::from(high - 128) << 8 | usize::from(low), modes, rest)
        }
        [count @ 1..=127, modes, ref rest @ ..] => (count.into(), modes, rest),
        _ => return None,
    })
}

/// Returns the length in bytes of the table of probabilities at the start of `bytes` (RFC 8878,
/// 4.1.1), or `None` if it does not end or has more than [`SYMBOLS_MAX`] symbols.
fn table_len(bytes: &[u8]) -> Option<usize> {
    let mut bits = Bits { bytes, at: 0 };
    let accuracy = bits.peek(4)? + 5;
    bits.at += 4;
    let mut points = 1_u32 << accuracy;
    let mut symbols = 0;
    while points > 0 {
        // A number from 0 to points + 1, where the low ones take a bit less.
        let max = points + 1;
        let width = u32::BITS - max.leading_zeros();
        let wide = bits.peek(width)?;
        let short = (1 << width) - 1 - max;
        let half = 1 << (width - 1);
        let low = wide & (half - 1);
        let number = if low < short {
            bits.at += width as usize - 1;
            low
        } else {
            bits.at += width as usize;
            if wide >= half { wide - short } else { wide }
        };
        symbols += 1;
        // 0 means "less than one", which also uses a point.
        points = points.checked_sub(if number == 0 { 1 } else { number - 1 })?;
        if number == 1 {
            loop {
                let more = bits.peek(2)?;
                bits.at += 2;
                symbols += more;
                if symbols > SYMBOLS_MAX {
                    return None;
                }
                if more != 3 {
                    break;
                }
            }
        }
        if symbols > SYMBOLS_MAX {
            return None;
        }
    }
    Some(bits.at.div_ceil(8))
}

/// Bits, the lowest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Returns the next `count` bits, at most 24.
    fn peek(&self, count: u32) -> Option<u32> {
        let mut word = 0;
        for nth in 0..4 {
            word |= u32::from(self.bytes.get(self.at / 8 + nth).copied().unwrap_or(0)) << (8 * nth);
        }
        let end = self.at + count as usize;
        (end <= self.bytes.len() * 8).then_some(word >> (self.at % 8) & ((1 << count) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_rfc_takes_its_bytes_and_no_more() {
        // Accuracy 5, and one symbol with all 32 points: the number 33 in 6 bits, the highest.
        let table = [0b1111_0000, 0b11, 0xff];
        assert_eq!(table_len(&table), Some(2));
        assert_eq!(table_len(&table[..1]), None);
    }

    #[test]
    fn a_table_that_repeats_no_symbols_for_ever_is_refused() {
        // Accuracy 5, a symbol without points (the number 1: five bits), then "three more, and go
        // on" again and again.
        let mut table = [0xff; 64];
        table[0] = 0b0001_0000;
        table[1] = 0b1111_1110;
        assert_eq!(table_len(&table), None);
    }

    #[test]
    fn more_literals_than_a_block_may_have_are_refused() {
        // 2^20 - 1 repeated literals.
        let content = [0b1111_1101, 0xff, 0xff, 0, 0];
        assert!(Outline::of(&content, BLOCK_MAX).unwrap_err().contains("literals"));
        // 31 of them, and no sequences.
        let content = [0b1111_1001, 0, 0];
        assert_eq!(Outline::of(&content, 31).map(|outline| outline.sequences), Ok(0));
        assert!(Outline::of(&content, 30).is_err());
    }

    #[test]
    fn the_three_lengths_of_a_sequence_count_are_read() {
        assert_eq!(sequences_header(&[5, 0xa8, 1]), Some((5, 0xa8, &[1][..])));
        assert_eq!(sequences_header(&[129, 2, 0xa8]), Some((258, 0xa8, &[][..])));
        assert_eq!(sequences_header(&[255, 1, 2, 0xa8]), Some((0x7f00 + 513, 0xa8, &[][..])));
        for cut in [&[][..], &[5], &[129, 2], &[255, 1, 2]] {
            assert_eq!(sequences_header(cut), None);
        }
    }
}

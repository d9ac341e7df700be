//! The straight loop of a verification.

/// How many values are compared side by side.
const LANES: usize = 4;

/// How many entries are compared before a difference ends the loop: enough to make the test for one
/// cheap, and few enough to find the entry again.
const TURN: usize = 64;

/// The loop that compares entries of tables, nearly all of the work of a verification.
///
/// ```
/// use linmap_table::verify::{CompareEntries, PortableLoop};
///
/// /// One entry a turn: less code than [`PortableLoop`], and slower.
/// struct OneByOne;
///
/// impl CompareEntries for OneByOne {
///     fn leading(&self, entries: &[u64], first: u64, step: u64) -> usize {
///         let wanted = (0..).map(|nth| first.wrapping_add(step.wrapping_mul(nth)));
///         entries.iter().zip(wanted).take_while(|(entry, wanted)| **entry == *wanted).count()
///     }
/// }
///
/// // Three pages, the last of them read-only.
/// let entries = [0x4000_0703, 0x4000_1703, 0x4000_2783];
/// assert_eq!(OneByOne.leading(&entries, 0x4000_0703, 0x1000), 2);
/// assert_eq!(PortableLoop.leading(&entries, 0x4000_0703, 0x1000), 2);
/// ```
pub trait CompareEntries {
    /// Returns how many of `entries`, from the first on, are `first`, `first + step`, `first + 2 ×
    /// step` and so on, wrapping.
    fn leading(&self, entries: &[u64], first: u64, step: u64) -> usize;
}

/// The loop in Rust. It takes two instructions an entry where the compiler may use AArch64's vector
/// registers, and nearly four where it may not.
#[derive(Clone, Copy, Debug)]
pub struct PortableLoop;

impl CompareEntries for PortableLoop {
    #[inline]
    fn leading(&self, entries: &[u64], first: u64, step: u64) -> usize {
        // Each lane is a sum of its own.
        let mut wanted: [u64; LANES] =
            core::array::from_fn(|lane| first.wrapping_add(step.wrapping_mul(lane as u64)));
        let stride = step.wrapping_mul(LANES as u64);
        let (turns, rest) = entries.as_chunks::<TURN>();
        for (nth, turn) in turns.iter().enumerate() {
            let mut differences = [0; LANES];
            for chunk in turn.as_chunks::<LANES>().0 {
                for ((entry, wanted), difference) in chunk.iter().zip(&mut wanted).zip(&mut differences) {
                    *difference |= entry ^ *wanted;
                    *wanted = wanted.wrapping_add(stride);
                }
            }
            if differences.iter().fold(0, |all, difference| all | difference) != 0 {
                let before = nth * TURN;
                return before + leading_one_by_one(turn, first, step, before, 0);
            }
        }
        let before = entries.len() - rest.len();
        before + leading_one_by_one(rest, first, step, before, 0)
    }
}

/// As [`CompareEntries::leading`], where the bits in `ignored` count for nothing and the entries
/// begin `before` entries behind the first.
pub(crate) fn leading_one_by_one(
    entries: &[u64],
    first: u64,
    step: u64,
    before: usize,
    ignored: u64,
) -> usize {
    let mut wanted = first.wrapping_add(step.wrapping_mul(before as u64));
    for (nth, entry) in entries.iter().enumerate() {
        if (entry ^ wanted) & !ignored != 0 {
            return nth;
        }
        wanted = wanted.wrapping_add(step);
    }
    entries.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_first_odd_bit_ends_the_comparison_wherever_it_is() {
        for len in [0, 1, 15, 16, 63, 64, 65, 128, 512] {
            let right: Vec<u64> = (0..len as u64).map(|nth| 0x60_0000_4000_0703 + nth * 0x1000).collect();
            assert_eq!(PortableLoop.leading(&right, 0x60_0000_4000_0703, 0x1000), len);
            for at in 0..len {
                let mut wrong = right.clone();
                wrong[at] ^= 1 << (at % 64);
                assert_eq!(PortableLoop.leading(&wrong, 0x60_0000_4000_0703, 0x1000), at, "{len}");
            }
        }
    }

    #[test]
    fn ignored_bits_count_for_nothing() {
        let entries = [0x403, 0x1003, 0x2403, 0x3003 | 1 << 60];
        assert_eq!(leading_one_by_one(&entries, 3, 0x1000, 0, 1 << 10), 3);
        assert_eq!(leading_one_by_one(&entries[1..], 3, 0x1000, 1, 1 << 10), 2);
    }
}

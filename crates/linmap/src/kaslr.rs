//! Addresses chosen at random: where the kernel image is mapped, and where the linear map begins.

use core::fmt;

use linmap_vmsa::Va;

/// A random number from which addresses are chosen. A seed always chooses the same addresses;
/// whoever knows it knows them, so it does not show in debug output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KaslrSeed(u64);

impl fmt::Debug for KaslrSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KaslrSeed(..)")
    }
}

/// What is chosen. Neither choice tells the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    Image = 1,
    LinearMap = 2,
}

impl KaslrSeed {
    /// Returns the seed `bits`. 0 is none: boot loaders without random numbers leave it, and
    /// kernels that have used a seed.
    pub fn new(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    /// Returns its bits, which are secret.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Returns a number below `count`, which is not 0. All are about equally likely.
    pub(crate) fn choose(self, choice: Choice, count: u64) -> u64 {
        // The finalizer of SplitMix64: every bit of the seed changes half of the bits.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.wrapping_add(STEP.wrapping_mul(choice as u64));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(count)) >> 64) as u64
    }
}

/// The addresses at which a kernel image may be mapped.
///
/// ```
/// use linmap::{ImageRegion, KaslrSeed};
/// use linmap_vmsa::Va;
///
/// let region = ImageRegion {
///     start: Va(0xffff_fff8_0000_0000),
///     len: 1 << 30,
///     image_len: 16 << 20,
///     align: 2 << 20,
///     within: 1 << 30,
/// };
/// let seed = KaslrSeed::new(0x5eed).expect("a seed");
/// assert!(region.offset(seed) + region.image_len <= region.len);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageRegion {
    /// Where the image is linked, the first of them.
    pub start: Va,
    /// The length of the region in bytes. It does not wrap.
    pub len: u64,
    /// The length of the image in memory.
    pub image_len: u64,
    /// What places differ by, a power of two: where the boot protocol lets the image be in memory,
    /// so that VA and PA stay congruent.
    pub align: u64,
    /// A power of two, no multiple of which the image may contain but as its start: what one table
    /// translates, for a kernel that has one such table for its image.
    pub within: u64,
}

impl ImageRegion {
    /// Returns how many places there are.
    pub fn places(&self) -> u64 {
        self.windows().map(|(_, places)| places).sum()
    }

    /// Returns how far from the start of the region `seed` places the image. It is 0 if the image
    /// fits nowhere else.
    pub fn offset(&self, seed: KaslrSeed) -> u64 {
        let mut nth = seed.choose(Choice::Image, self.places().max(1));
        for (first, places) in self.windows() {
            if nth < places {
                return first - self.start.0 + nth * self.align;
            }
            nth -= places;
        }
        0
    }

    /// Returns the first place in each part of the region that the image lies `within`, and how
    /// many places there are in that part.
    fn windows(&self) -> impl Iterator<Item = (u64, u64)> {
        let Self { start, len, image_len, align, within } = *self;
        let last = start.0.saturating_add(len - 1);
        let mut next = (len > 0 && align > 0).then_some(start.0);
        core::iter::from_fn(move || {
            let first = next?.checked_next_multiple_of(align)?;
            let end_of_window = (next? | (within - 1)).min(last);
            next = end_of_window.checked_add(1).filter(|next| *next <= last);
            let room = end_of_window.checked_sub(first).map_or(0, |room| room + 1);
            Some((first, room.checked_sub(image_len).map_or(0, |spare| spare / align + 1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    /// Of 27 GiB, in which the image may not cross a GiB.
    const REGION: ImageRegion = ImageRegion {
        start: Va(0xffff_fff8_4000_0000),
        len: 27 * GIB,
        image_len: 2 * MIB - 4096,
        align: 2 * MIB,
        within: GIB,
    };

    fn seeds() -> impl Iterator<Item = KaslrSeed> {
        // Those of a poor source, and those of a good one.
        let poor = 1..=32;
        let good = (1..=32).map(|n: u64| n.wrapping_mul(0xd129_8a15_3bfb_8f21).rotate_left(23));
        poor.chain(good).map(|bits| KaslrSeed::new(bits).unwrap())
    }

    #[test]
    fn sixty_four_seeds_give_sixty_four_places_spread_over_the_region() {
        let offsets: Vec<u64> = seeds().map(|seed| REGION.offset(seed)).collect();
        assert_eq!(offsets.iter().collect::<BTreeSet<_>>().len(), 64);
        for eighth in 0..8 {
            let part = eighth * REGION.len / 8..(eighth + 1) * REGION.len / 8;
            let count = offsets.iter().filter(|offset| part.contains(offset)).count();
            assert!((2..=16).contains(&count), "{count} of 64 in the part {eighth} of 8");
        }
        let again: Vec<u64> = seeds().map(|seed| REGION.offset(seed)).collect();
        assert_eq!(offsets, again);
    }

    #[test]
    fn every_place_is_aligned_and_the_image_fits_there_within_one_table() {
        for image_len in [4096, 2 * MIB, 7 * MIB, GIB] {
            let region = ImageRegion { image_len, ..REGION };
            for seed in seeds() {
                let offset = region.offset(seed);
                assert!(offset.is_multiple_of(2 * MIB) && offset + image_len <= region.len);
                let first = region.start.0 + offset;
                assert_eq!(first / GIB, (first + image_len - 1) / GIB, "{image_len:#x}");
            }
        }
    }

    #[test]
    fn places_are_counted_as_often_as_the_image_fits() {
        assert_eq!(REGION.places(), 27 * 512);
        assert_eq!(ImageRegion { image_len: 2 * MIB + 1, ..REGION }.places(), 27 * 511);
        assert_eq!(ImageRegion { within: 64 * GIB, image_len: 4 * MIB, ..REGION }.places(), 27 * 512 - 1);
        let none = ImageRegion { image_len: GIB + 1, ..REGION };
        assert_eq!((none.places(), none.offset(KaslrSeed(5))), (0, 0));
    }

    #[test]
    fn a_seed_of_0_is_none_and_no_seed_shows() {
        assert_eq!(KaslrSeed::new(0), None);
        assert_eq!(std::format!("{:?}", KaslrSeed(0x1234)), "KaslrSeed(..)");
    }
}

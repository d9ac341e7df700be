//! The geometry of a translation regime: granule, address sizes, and what follows from them at each
//! level.

use thiserror::Error;

use crate::{Granule, Level, Pa, Regime, Va};

/// The geometry of one half of a translation regime (what one TTBR translates), and which regime
/// it is.
///
/// LPA2 (TCR.DS = 1) is in use exactly when the 4K or 16K granule has more than 48 VA or PA bits;
/// the 64K granule reaches 52 bits without it (FEAT_LVA, FEAT_LPA).
// Aligned, so that it is loaded and stored as one word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(align(4))]
pub struct Geometry {
    granule: Granule,
    va_bits: u8,
    pa_bits: u8,
    regime: Regime,
}

/// Why a geometry is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// TxSZ can't encode this VA size. It encodes 25 (TxSZ 39, without FEAT_TTST) to 52 bits.
    #[error("VA size of {bits} bits is outside 25 to 52")]
    VaBits {
        /// The size asked for.
        bits: u8,
    },
    /// TCR.IPS has no encoding for this PA size.
    #[error("PA size of {bits} bits is not one of 32, 36, 40, 42, 44, 48, 52")]
    PaBits {
        /// The size asked for.
        bits: u8,
    },
}

impl Geometry {
    /// The 4K granule with 48 bits of VA and PA.
    pub const K4_48: Self = Self { granule: Granule::K4, va_bits: 48, pa_bits: 48, regime: Regime::El1And0 };

    /// Returns the geometry with this granule, `va_bits` of virtual and `pa_bits` of physical
    /// address, in the regime [`Regime::El1And0`].
    ///
    /// # Errors
    /// [`GeometryError::VaBits`] unless `va_bits` is 25 to 52, [`GeometryError::PaBits`] unless
    /// `pa_bits` is a size that TCR.IPS encodes (Arm ARM D24.2, TCR_EL1.IPS) of at most 52.
    pub const fn new(granule: Granule, va_bits: u8, pa_bits: u8) -> Result<Self, GeometryError> {
        if va_bits < 25 || va_bits > 52 {
            return Err(GeometryError::VaBits { bits: va_bits });
        }
        if !matches!(pa_bits, 32 | 36 | 40 | 42 | 44 | 48 | 52) {
            return Err(GeometryError::PaBits { bits: pa_bits });
        }
        Ok(Self { granule, va_bits, pa_bits, regime: Regime::El1And0 })
    }

    /// Returns the same geometry in another regime.
    #[must_use]
    pub const fn in_regime(self, regime: Regime) -> Self {
        Self { regime, ..self }
    }

    /// The regime.
    #[inline]
    pub const fn regime(self) -> Regime {
        self.regime
    }

    /// Page and table size.
    #[inline]
    pub const fn granule(self) -> Granule {
        self.granule
    }

    /// Bits of virtual address that the tables resolve.
    #[inline]
    pub const fn va_bits(self) -> u8 {
        self.va_bits
    }

    /// Bits of physical address that descriptors can hold.
    #[inline]
    pub const fn pa_bits(self) -> u8 {
        self.pa_bits
    }

    /// Whether descriptors have the LPA2 form (TCR.DS = 1): `OA[51:50]` in bits 9:8 and
    /// shareability in TCR.
    #[inline]
    pub const fn lpa2(self) -> bool {
        !matches!(self.granule, Granule::K64) && (self.va_bits > 48 || self.pa_bits > 48)
    }

    /// The level at which a walk starts (Arm ARM D8.2.2).
    #[inline]
    pub const fn start_level(self) -> Level {
        let resolved = self.va_bits as u32 - self.granule.shift();
        let levels = resolved.div_ceil(self.granule.index_bits());
        match Level::new(4 - levels as i8) {
            Some(level) => level,
            // 52 bits with the smallest granule (12 bits, and 9 a level) take five levels: −1 to 3.
            None => Level::MINUS_1,
        }
    }

    /// log2 of the bytes that one entry at `level` covers.
    #[inline(always)]
    pub const fn shift(self, level: Level) -> u32 {
        self.granule.shift() + self.granule.index_bits() * level.above_pages()
    }

    /// Bytes that one entry at `level` covers.
    #[inline]
    pub const fn entry_bytes(self, level: Level) -> u64 {
        1 << self.shift(level)
    }

    /// Entries in a table at `level`: fewer than a full table at the start level when the VA size
    /// cuts it short.
    #[inline]
    pub const fn entries(self, level: Level) -> usize {
        // Only at the start level a full table would resolve more bits than are left.
        let left = (self.va_bits as u32).saturating_sub(self.shift(level));
        let full = self.granule.index_bits();
        1 << if left < full { left } else { full }
    }

    /// The index of the entry for `va` in its table at `level`.
    #[inline]
    pub const fn index(self, va: Va, level: Level) -> usize {
        (va.0 >> self.shift(level)) as usize & (self.entries(level) - 1)
    }

    /// Whether a leaf may be at `level`: a page at level 3, and the blocks of Arm ARM D8.3.1
    /// (level 1 with 4K, or with 16K under LPA2, or with 64K and 52-bit PA; level 0 with 4K under
    /// LPA2; level 2 always).
    #[inline(always)]
    pub const fn has_leaf(self, level: Level) -> bool {
        match level.number() {
            3 | 2 => true,
            1 => match self.granule {
                Granule::K4 => true,
                Granule::K16 => self.lpa2(),
                Granule::K64 => self.pa_bits == 52,
            },
            0 => matches!(self.granule, Granule::K4) && self.lpa2(),
            _ => false,
        }
    }

    /// Returns how many entries at `level` make a contiguous run (Arm ARM D8.7.1, "The Contiguous
    /// bit"). `None` where linmap makes no runs: blocks above level 2 are as large as any TLB
    /// entry.
    #[inline]
    pub const fn contiguous_entries(self, level: Level) -> Option<usize> {
        match (self.granule, level.number()) {
            (Granule::K4, 2 | 3) => Some(16),
            (Granule::K16, 3) => Some(128),
            (Granule::K16, 2) | (Granule::K64, 2 | 3) => Some(32),
            _ => None,
        }
    }

    /// Whether a descriptor can hold `pa`.
    #[inline]
    pub const fn holds(self, pa: Pa) -> bool {
        pa.0 >> self.pa_bits == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn geometry(granule: Granule, va: u8, pa: u8) -> Geometry {
        match Geometry::new(granule, va, pa) {
            Ok(geometry) => geometry,
            Err(_) => panic!("no such geometry"),
        }
    }

    #[test]
    fn the_start_level_follows_the_va_size() {
        for (granule, va, level) in [
            (Granule::K4, 52, -1),
            (Granule::K4, 49, -1),
            (Granule::K4, 48, 0),
            (Granule::K4, 40, 0),
            (Granule::K4, 39, 1),
            (Granule::K4, 31, 1),
            (Granule::K4, 30, 2),
            (Granule::K16, 52, 0),
            (Granule::K16, 48, 0),
            (Granule::K16, 47, 1),
            (Granule::K16, 36, 2),
            (Granule::K64, 52, 1),
            (Granule::K64, 43, 1),
            (Granule::K64, 42, 2),
        ] {
            assert_eq!(geometry(granule, va, 48).start_level().number(), level, "{granule:?} {va}");
        }
    }

    #[test]
    fn the_root_table_is_as_short_as_the_va_size_makes_it() {
        assert_eq!(geometry(Granule::K4, 33, 48).entries(Level::L1), 8);
        assert_eq!(geometry(Granule::K4, 48, 48).entries(Level::L0), 512);
        assert_eq!(geometry(Granule::K4, 52, 52).entries(Level::MINUS_1), 16);
        assert_eq!(geometry(Granule::K16, 48, 48).entries(Level::L0), 2);
        assert_eq!(geometry(Granule::K64, 52, 52).entries(Level::L1), 1024);
        assert_eq!(geometry(Granule::K64, 48, 48).entries(Level::L2), 8192);
    }

    #[test]
    fn leaf_sizes_match_the_architecture() {
        let size = |granule, level| geometry(granule, 48, 48).entry_bytes(level);
        assert_eq!(size(Granule::K4, Level::L1), 1 << 30);
        assert_eq!(size(Granule::K4, Level::L2), 2 << 20);
        assert_eq!(size(Granule::K16, Level::L2), 32 << 20);
        assert_eq!(size(Granule::K64, Level::L2), 512 << 20);
        assert!(!geometry(Granule::K4, 48, 48).has_leaf(Level::L0));
        assert!(geometry(Granule::K4, 52, 52).has_leaf(Level::L0));
        assert!(!geometry(Granule::K16, 48, 48).has_leaf(Level::L1));
        assert!(geometry(Granule::K16, 48, 52).has_leaf(Level::L1));
        assert!(!geometry(Granule::K64, 48, 48).has_leaf(Level::L1));
        assert!(geometry(Granule::K64, 48, 52).has_leaf(Level::L1));
    }

    #[test]
    fn contiguous_runs_have_the_published_sizes() {
        let run = |granule, level| {
            let g = geometry(granule, 48, 48);
            g.contiguous_entries(level).map(|n| n as u64 * g.entry_bytes(level))
        };
        assert_eq!(run(Granule::K4, Level::L3), Some(64 << 10));
        assert_eq!(run(Granule::K4, Level::L2), Some(32 << 20));
        assert_eq!(run(Granule::K16, Level::L3), Some(2 << 20));
        assert_eq!(run(Granule::K16, Level::L2), Some(1 << 30));
        assert_eq!(run(Granule::K64, Level::L3), Some(2 << 20));
        assert_eq!(run(Granule::K64, Level::L2), Some(16 << 30));
    }

    #[test]
    fn the_index_ignores_the_bits_above_the_va_size() {
        let g = Geometry::K4_48;
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L0), 256);
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L1), 2);
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L2), 1);
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L3), 3);
    }

    #[test]
    fn lpa2_is_for_the_small_granules_beyond_48_bits() {
        assert!(!Geometry::K4_48.lpa2());
        assert!(geometry(Granule::K4, 48, 52).lpa2());
        assert!(geometry(Granule::K16, 52, 48).lpa2());
        assert!(!geometry(Granule::K64, 52, 52).lpa2());
    }

    #[test]
    fn sizes_that_no_register_can_say_are_refused() {
        assert_eq!(Geometry::new(Granule::K4, 24, 48), Err(GeometryError::VaBits { bits: 24 }));
        assert_eq!(Geometry::new(Granule::K4, 53, 48), Err(GeometryError::VaBits { bits: 53 }));
        assert_eq!(Geometry::new(Granule::K4, 48, 47), Err(GeometryError::PaBits { bits: 47 }));
    }
}

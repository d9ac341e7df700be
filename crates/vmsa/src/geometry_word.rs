//! The word that a geometry is, and which of its bits say what.

/// Some bits of a word.
pub struct Field {
    at: u32,
    bits: u32,
}

/// log2 of the bytes in a page.
pub const PAGE_SHIFT: Field = Field { at: 0, bits: 8 };
/// Bits of virtual address.
pub const VA_BITS: Field = Field { at: 8, bits: 8 };
/// Bits of physical address.
pub const PA_BITS: Field = Field { at: 16, bits: 8 };
/// How many levels a walk has.
pub const LEVELS: Field = Field { at: 24, bits: 3 };
/// The number of the address form.
pub const ADDRESS_FORM: Field = Field { at: 27, bits: 2 };
/// The number of the regime.
pub const REGIME: Field = Field { at: 29, bits: 3 };
/// The number of what new table descriptors take away.
pub const TABLES: Field = Field { at: 32, bits: 4 };
/// The number of the MAIR slots.
pub const MAIR: Field = Field { at: 40, bits: 24 };

impl Field {
    /// The field's value in `word`.
    #[inline(always)]
    pub const fn of(self, word: u64) -> u64 {
        word >> self.at & self.mask()
    }

    /// `word` with `value` in the field.
    #[inline(always)]
    pub const fn set(self, word: u64, value: u64) -> u64 {
        word & !(self.mask() << self.at) | (value & self.mask()) << self.at
    }

    #[inline(always)]
    const fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use crate::{Geometry, Granule, Mair, Regime, Stage2, TablePermissions};

    const REGIMES: [Regime; 8] = [
        Regime::El1And0,
        Regime::El2And0,
        Regime::El2,
        Regime::El3,
        Regime::Stage2(Stage2::Base),
        Regime::Stage2(Stage2::Fwb),
        Regime::Stage2(Stage2::Xnx),
        Regime::Stage2(Stage2::FwbXnx),
    ];

    #[test]
    fn every_part_of_a_geometry_is_read_back_as_it_was_set() {
        let mair = Mair::new(0x0404_ff04_0044_00f0);
        for granule in [Granule::K4, Granule::K16, Granule::K64] {
            for (va_bits, pa_bits) in [(25, 32), (39, 40), (48, 48), (48, 52), (52, 52)] {
                for regime in REGIMES {
                    let g = Geometry::new(granule, va_bits, pa_bits).unwrap().in_regime(regime);
                    assert_eq!((g.granule(), g.va_bits(), g.pa_bits()), (granule, va_bits, pa_bits));
                    assert_eq!((g.regime(), g.mair()), (regime, Mair::DEFAULT));
                    assert_eq!((g.page_shift(), g.page_bytes()), (granule.shift(), granule.bytes()));
                    if let Ok(g) = g.with_mair(mair).with_table_permissions(TablePermissions::READ_ONLY) {
                        assert_eq!((g.mair(), g.table_permissions()), (mair, TablePermissions::READ_ONLY));
                        assert_eq!((g.granule(), g.va_bits(), g.regime()), (granule, va_bits, regime));
                        assert_eq!(
                            g.with_mair(Mair::DEFAULT).in_regime(regime),
                            g.with_mair(Mair::DEFAULT)
                                .with_table_permissions(TablePermissions::UNRESTRICTED)
                                .unwrap()
                        );
                    }
                }
            }
        }
    }
}

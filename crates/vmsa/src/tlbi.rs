//! TLBI operands: what the register argument of a TLBI by address holds.

use crate::{Geometry, Granule, Level, Va};

/// Bits 63:48 of an operand.
const ASID_FIELD: u64 = 0xffff << 48;

/// The argument of a TLBI by virtual address (VAE1, VAAE1, VALE1, VAALE1 and their broadcast forms;
/// Arm ARM C5.5).
///
/// Bits 43:0 are `VA[55:12]` for **every** granule: shifting by the page size would be wrong for
/// 16K and 64K. The argument of IPAS2E1 and IPAS2LE1 is the same for an IPA in place of the VA:
/// `IPA[51:12]` in bits 39:0, zeros above, and the level hint.
///
/// ```
/// use linmap_vmsa::tlbi::{RangeOperand, VaOperand};
/// use linmap_vmsa::{Geometry, Level, Va};
///
/// let geometry = Geometry::K4_48;
/// // TLBI VAE1IS: one page of the space with ASID 7, whose leaf is at level 3.
/// let page = VaOperand::in_asid(Va(0x40_3000), 7).with_level(geometry, Level::L3);
/// assert_eq!(page.0, 7 << 48 | 0b0111 << 44 | 0x403);
/// // TLBI RVAAE1IS: 512 pages at once.
/// let (_, covered) = RangeOperand::any_asid(geometry, Va(0x40_0000), 512).expect("a range");
/// assert_eq!(covered, 512);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct VaOperand(pub u64);

impl VaOperand {
    /// The operand for `va` in every ASID (the VAA forms ignore the ASID field), without a level
    /// hint.
    pub const fn any_asid(va: Va) -> Self {
        Self(va.0 >> 12 & 0xfff_ffff_ffff)
    }

    /// The operand for `va` in `asid`, without a level hint.
    pub const fn in_asid(va: Va, asid: u16) -> Self {
        Self(Self::any_asid(va).0 | (asid as u64) << 48)
    }

    /// The same operand for the forms without an ASID field, which is reserved there.
    pub const fn without_asid(self) -> Self {
        Self(self.0 & !ASID_FIELD)
    }

    /// The same operand with a hint that the leaf is at `level` (TTL, FEAT_TTL). A hint that
    /// does not match the level of the entry leaves it in the TLB. Levels below 0 have no encoding
    /// and give no hint.
    pub const fn with_level(self, geometry: Geometry, level: Level) -> Self {
        let granule: u64 = match geometry.granule() {
            Granule::K4 => 0b01,
            Granule::K16 => 0b10,
            Granule::K64 => 0b11,
        };
        // TTL encodes level 0 only for 4K under LPA2 (0b0100). 0b1000 (16K) is reserved, and CPUs
        // take it as no hint.
        if level.number() < 0 || (level.number() == 0 && !geometry.lpa2()) {
            return self;
        }
        Self(self.0 & !(0xf << 44) | (granule << 2 | level.number() as u64) << 44)
    }
}

/// The argument of a TLBI by range (RVAE1, RVAAE1 and so on, FEAT_TLBIRANGE; Arm ARM C5.5), and,
/// with an IPA in place of the VA and no ASID, of RIPAS2E1 and RIPAS2LE1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct RangeOperand(pub u64);

impl RangeOperand {
    /// The largest operand that covers at most `pages` pages (of one granule) from `va` on, with
    /// the number of pages that it covers. `None` if `pages` is below 2, the smallest range. Also
    /// `None` under LPA2 if `va` is not a multiple of 64 KiB, since the base is `VA[52:16]` there.
    ///
    /// A range covers (NUM + 1) × 2^(5 × SCALE + 1) pages.
    pub const fn any_asid(geometry: Geometry, va: Va, pages: u64) -> Option<(Self, u64)> {
        if geometry.lpa2() && va.0 & 0xffff != 0 {
            return None;
        }
        let mut scale = 3;
        loop {
            let unit = 1u64 << (5 * scale + 1);
            if pages >= unit {
                let units = pages / unit;
                let num = if units > 32 { 31 } else { units - 1 };
                let base_shift = if geometry.lpa2() { 16 } else { geometry.page_shift() };
                let tg: u64 = match geometry.granule() {
                    Granule::K4 => 0b01,
                    Granule::K16 => 0b10,
                    Granule::K64 => 0b11,
                };
                let base = va.0 >> base_shift & 0x1f_ffff_ffff;
                return Some((Self(base | num << 39 | scale << 44 | tg << 46), (num + 1) * unit));
            }
            if scale == 0 {
                return None;
            }
            scale -= 1;
        }
    }

    /// The same operand in `asid`, for the forms RVAE1 and RVALE1.
    pub const fn in_asid(self, asid: u16) -> Self {
        Self(self.0 & !ASID_FIELD | (asid as u64) << 48)
    }

    /// The same operand for the forms without an ASID field, which is reserved there.
    pub const fn without_asid(self) -> Self {
        Self(self.0 & !ASID_FIELD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K64: Geometry = match Geometry::new(Granule::K64, 48, 48) {
        Ok(geometry) => geometry,
        Err(_) => panic!("no such geometry"),
    };

    #[test]
    fn the_va_field_is_bits_55_to_12_for_every_granule() {
        let va = Va(0xffff_8000_8123_0000);
        assert_eq!(VaOperand::any_asid(va).0, 0xff8_0008_1230);
        assert_eq!(VaOperand::in_asid(va, 5).0 & 0xfff_ffff_ffff, 0xff8_0008_1230);
    }

    #[test]
    fn address_bits_never_spill_into_the_level_hint() {
        let operand = VaOperand::any_asid(Va(u64::MAX));
        assert_eq!(operand.0 >> 44, 0);
    }

    #[test]
    fn the_level_hint_names_granule_and_level() {
        let va = VaOperand::any_asid(Va(0));
        assert_eq!(va.with_level(Geometry::K4_48, Level::L3).0 >> 44, 0b0111);
        assert_eq!(va.with_level(K64, Level::L2).0 >> 44, 0b1110);
        assert_eq!(va.with_level(Geometry::K4_48, Level::L0).0 >> 44, 0, "no such hint without LPA2");
    }

    #[test]
    fn an_ipa_of_any_size_stays_within_its_field() {
        let ipa = Va(0x000f_ffff_ffff_f000);
        let guest = Geometry::stage_2(Granule::K64, 52, 52, crate::Stage2::Base).unwrap();
        let operand = VaOperand::any_asid(ipa).with_level(guest, Level::L3);
        assert_eq!(operand.0, 0b1111 << 44 | 0xff_ffff_ffff, "IPA[51:12], TTL; NS and 43:40 are 0");
        let (operand, covered) = RangeOperand::any_asid(guest, Va(0x000f_ffff_0000_0000), 2).unwrap();
        assert_eq!((operand.0 & 0x1f_ffff_ffff, covered), (0xf_ffff_0000, 2), "64 KiB units");
        assert_eq!(operand.0 >> 48, 0, "no ASID, no NS");
    }

    #[test]
    fn a_range_never_covers_more_than_asked() {
        for pages in [2u64, 3, 63, 64, 65, 512, 4096, 1 << 21, 1 << 22] {
            let (operand, covered) = RangeOperand::any_asid(Geometry::K4_48, Va(0x1000), pages).unwrap();
            assert!(covered <= pages && covered >= 2, "{pages} {covered}");
            let (num, scale) = (operand.0 >> 39 & 0x1f, operand.0 >> 44 & 0b11);
            assert_eq!((num + 1) << (5 * scale + 1), covered);
        }
        assert_eq!(RangeOperand::any_asid(Geometry::K4_48, Va(0x1000), 1), None);
    }

    #[test]
    fn a_range_base_counts_granules_and_64k_units_under_lpa2() {
        let (operand, _) = RangeOperand::any_asid(K64, Va(0x12_0000), 2).unwrap();
        assert_eq!(operand.0 & 0x1f_ffff_ffff, 0x12);
        let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
        let (operand, _) = RangeOperand::any_asid(lpa2, Va(0x12_0000), 64).unwrap();
        assert_eq!(operand.0 & 0x1f_ffff_ffff, 0x12);
        assert_eq!(RangeOperand::any_asid(lpa2, Va(0x12_1000), 64), None);
    }
}

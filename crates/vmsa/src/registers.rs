//! Values of the registers that describe a regime: MAIR, TCR, TTBR. They hold for EL1&0, and for
//! EL2&0 when HCR_EL2.E2H is set, which gives TCR_EL2 the layout of TCR_EL1.

use thiserror::Error;

use crate::{Geometry, Granule, MemoryType, Pa};

/// The MAIR_ELx value that gives each [`MemoryType`] its slot (Arm ARM D24.2, MAIR_EL1).
pub const MAIR: u64 = {
    // Normal: inner and outer write-back, non-transient, read and write allocate. Tagged: the same
    // with tags.
    let slots = [
        (MemoryType::Normal, 0xffu64),
        (MemoryType::NormalTagged, 0xf0),
        (MemoryType::NormalNonCacheable, 0x44),
        (MemoryType::DeviceNgnre, 0x04),
        (MemoryType::DeviceNgnrne, 0x00),
    ];
    let mut value = 0;
    let mut i = 0;
    while i < slots.len() {
        value |= slots[i].1 << (8 * slots[i].0.mair_index());
        i += 1;
    }
    value
};

/// The TxSZ value for a VA size: 64 minus its bits.
pub const fn txsz(geometry: Geometry) -> u64 {
    64 - geometry.va_bits() as u64
}

/// A TCR value's T0SZ field, which linmap changes when TTBR0 gets an identity map with its own VA
/// size.
pub const TCR_T0SZ_MASK: u64 = 0x3f;

/// Why a register can't have a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The halves need different descriptor formats or PA sizes, of which TCR has one each: DS and
    /// IPS (Arm ARM D24.2, TCR_EL1).
    #[error("TCR has one descriptor format and one PA size for both halves: {ttbr0:?} and {ttbr1:?} differ")]
    HalvesDiffer {
        /// The geometry of the lower half.
        ttbr0: Geometry,
        /// The geometry of the upper half.
        ttbr1: Geometry,
    },
    /// The TCR value has another granule for TTBR0, or another descriptor format.
    #[error("TCR {tcr:#x} has another granule or descriptor format for TTBR0 than {ttbr0:?}")]
    OtherFormat {
        /// The TCR value.
        tcr: u64,
        /// The geometry of the lower half.
        ttbr0: Geometry,
    },
    /// The root table does not lie in a frame.
    #[error("the root table at {root} is not a frame of {bytes:#x} bytes below {} bits of PA", bits)]
    NotAFrame {
        /// The address of the root table.
        root: Pa,
        /// The granule in bytes.
        bytes: u64,
        /// The PA size in bits.
        bits: u8,
    },
}

/// TCR.TG0 for a granule.
const fn tg0(granule: Granule) -> u64 {
    match granule {
        Granule::K4 => 0b00,
        Granule::K64 => 0b01,
        Granule::K16 => 0b10,
    }
}

/// TCR.DS: descriptors have the LPA2 form.
const DS: u64 = 1 << 59;

/// The TCR value for a TTBR0 half of geometry `ttbr0` and a TTBR1 half of geometry `ttbr1`: inner
/// shareable write-back walks, 16-bit ASIDs if `asid16`, no top-byte-ignore, hardware updates of
/// the access flag and dirty state off. The CPU must have the PA size.
///
/// # Errors
/// [`RegisterError::HalvesDiffer`] unless both halves agree on LPA2 and on the PA size.
pub const fn tcr(ttbr0: Geometry, ttbr1: Geometry, asid16: bool) -> Result<u64, RegisterError> {
    if ttbr0.lpa2() != ttbr1.lpa2() || ttbr0.pa_bits() != ttbr1.pa_bits() {
        return Err(RegisterError::HalvesDiffer { ttbr0, ttbr1 });
    }
    let tg1: u64 = match ttbr1.granule() {
        Granule::K16 => 0b01,
        Granule::K4 => 0b10,
        Granule::K64 => 0b11,
    };
    // IRGN = ORGN = write-back, read and write allocate; SH = inner.
    const WALKS: u64 = 0b01 << 8 | 0b01 << 10 | 0b11 << 12;
    let ds = if ttbr1.lpa2() { DS } else { 0 };
    let asid = if asid16 { 1 << 36 } else { 0 };
    Ok(txsz(ttbr0)
        | txsz(ttbr1) << 16
        | WALKS
        | WALKS << 16
        | tg0(ttbr0.granule()) << 14
        | tg1 << 30
        | ips(ttbr1.pa_bits()) << 32
        | asid
        | ds)
}

/// The geometry of the upper half by the TCR value `tcr`: granule, VA size and, by IPS, PA size.
/// `None` for a value that [`tcr`] never returns.
pub const fn upper_geometry(tcr: u64) -> Option<Geometry> {
    let granule = match tcr >> 30 & 0b11 {
        0b01 => Granule::K16,
        0b10 => Granule::K4,
        0b11 => Granule::K64,
        _ => return None,
    };
    let pa_bits = match tcr >> 32 & 0b111 {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        6 => 52,
        _ => return None,
    };
    match Geometry::new(granule, 64 - (tcr >> 16 & 0x3f) as u8, pa_bits) {
        Ok(geometry) if geometry.lpa2() == (tcr & DS != 0) => Some(geometry),
        Ok(_) | Err(_) => None,
    }
}

/// The value of `tcr` with the T0SZ that a TTBR0 of geometry `ttbr0` needs; granule, descriptor
/// format and PA size stay.
///
/// # Errors
/// [`RegisterError::OtherFormat`] if the value has another granule for TTBR0, or if one of the two
/// has LPA2.
pub const fn tcr_with_t0sz(tcr: u64, ttbr0: Geometry) -> Result<u64, RegisterError> {
    if tcr >> 14 & 0b11 != tg0(ttbr0.granule()) || (tcr & DS != 0) != ttbr0.lpa2() {
        return Err(RegisterError::OtherFormat { tcr, ttbr0 });
    }
    Ok(tcr & !TCR_T0SZ_MASK | txsz(ttbr0))
}

/// The TTBR value for the root table in frame `root`, with ASID `asid`. A 52-bit PA keeps its bits
/// 51:48 in bits 5:2.
///
/// # Errors
/// [`RegisterError::NotAFrame`] if `root` is not a multiple of the granule or has more bits than
/// the PA size.
pub const fn ttbr(geometry: Geometry, root: Pa, asid: u16) -> Result<u64, RegisterError> {
    let bytes = geometry.granule().bytes();
    if root.0 & (bytes - 1) != 0 || !geometry.holds(root) {
        return Err(RegisterError::NotAFrame { root, bytes, bits: geometry.pa_bits() });
    }
    let base =
        if geometry.pa_bits() == 52 { root.0 & 0xffff_ffff_ffc0 | (root.0 >> 48 & 0xf) << 2 } else { root.0 };
    Ok(base | (asid as u64) << 48)
}

/// TCR.IPS, and the encoding of ID_AA64MMFR0_EL1.PARange, for a PA size in bits.
const fn ips(pa_bits: u8) -> u64 {
    match pa_bits {
        32 => 0,
        36 => 1,
        40 => 2,
        42 => 3,
        44 => 4,
        48 => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tcr_has_the_fields_of_the_architecture() {
        let value = tcr(Geometry::K4_48, Geometry::K4_48, true).unwrap();
        assert_eq!(value & 0x3f, 16, "T0SZ");
        assert_eq!(value >> 16 & 0x3f, 16, "T1SZ");
        assert_eq!(value >> 14 & 0b11, 0b00, "TG0: 4K");
        assert_eq!(value >> 30 & 0b11, 0b10, "TG1: 4K");
        assert_eq!(value >> 32 & 0b111, 0b101, "IPS: 48 bits");
        assert_eq!(value >> 8 & 0b11_1111, 0b11_0101, "IRGN0, ORGN0, SH0");
        assert_eq!(value >> 24 & 0b11_1111, 0b11_0101, "IRGN1, ORGN1, SH1");
        assert_eq!(value >> 7 & 1, 0, "EPD0: walks of TTBR0 are on");
        assert_eq!(value >> 23 & 1, 0, "EPD1: walks of TTBR1 are on");
    }

    #[test]
    fn the_granule_encodings_of_both_halves_differ() {
        let k16 = Geometry::new(Granule::K16, 47, 48).unwrap();
        let k64 = Geometry::new(Granule::K64, 48, 48).unwrap();
        assert_eq!(tcr(k16, k16, false).unwrap() >> 14 & 0b11, 0b10);
        assert_eq!(tcr(k16, k16, false).unwrap() >> 30 & 0b11, 0b01);
        assert_eq!(tcr(k64, k64, false).unwrap() >> 14 & 0b11, 0b01);
        assert_eq!(tcr(k64, k64, false).unwrap() >> 30 & 0b11, 0b11);
    }

    #[test]
    fn the_upper_half_is_read_back_from_its_tcr() {
        for granule in [Granule::K4, Granule::K16, Granule::K64] {
            for va_bits in [25, 36, 39, 42, 47, 48, 52] {
                for pa_bits in [32, 36, 40, 42, 44, 48, 52] {
                    let half = Geometry::new(granule, va_bits, pa_bits).unwrap();
                    let value = tcr(half, half, false).unwrap();
                    assert_eq!(upper_geometry(value), Some(half));
                    assert_eq!(upper_geometry(value ^ DS), None, "{half:?}");
                }
            }
        }
        assert_eq!(upper_geometry(0), None);
    }

    #[test]
    fn lpa2_sets_ds_and_the_52_bit_pa_size() {
        let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
        let value = tcr(lpa2, lpa2, true).unwrap();
        assert_eq!(value >> 59 & 1, 1);
        assert_eq!(value >> 32 & 0b111, 0b110);
        assert_eq!(value & 0x3f, 12);
    }

    #[test]
    fn only_t0sz_changes_for_an_identity_map() {
        let base = tcr(Geometry::K4_48, Geometry::K4_48, true).unwrap();
        let narrow = Geometry::new(Granule::K4, 33, 48).unwrap();
        let value = tcr_with_t0sz(base, narrow).unwrap();
        assert_eq!(value & 0x3f, 31);
        assert_eq!(value & !0x3f, base & !0x3f);
    }

    #[test]
    fn a_ttbr_holds_its_root_and_the_high_bits_of_a_52_bit_one_below() {
        assert_eq!(ttbr(Geometry::K4_48, Pa(0x8_4020_3000), 7).unwrap(), 0x0007_0008_4020_3000);
        let k64 = Geometry::new(Granule::K64, 52, 52).unwrap();
        assert_eq!(ttbr(k64, Pa(0x000f_0000_4001_0000), 1).unwrap(), 0x0001_0000_4001_003c);
    }

    #[test]
    fn mair_gives_each_memory_type_its_encoding() {
        assert_eq!(MAIR >> (8 * MemoryType::Normal.mair_index()) & 0xff, 0xff);
        assert_eq!(MAIR >> (8 * MemoryType::DeviceNgnre.mair_index()) & 0xff, 0x04);
        assert_eq!(MAIR >> (8 * MemoryType::NormalNonCacheable.mair_index()) & 0xff, 0x44);
    }

    #[test]
    fn a_root_that_is_not_a_frame_is_an_error() {
        for root in [Pa(0x123), Pa(0x8_4020_3800), Pa(1 << 48)] {
            let error = ttbr(Geometry::K4_48, root, 0).unwrap_err();
            assert!(matches!(error, RegisterError::NotAFrame { .. }), "{root}: {error}");
        }
        let k64 = Geometry::new(Granule::K64, 48, 48).unwrap();
        assert!(ttbr(k64, Pa(0x4000_1000), 0).is_err());
    }

    #[test]
    fn halves_that_tcr_cant_describe_together_are_an_error() {
        let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
        let wide = Geometry::new(Granule::K64, 48, 52).unwrap();
        for (ttbr0, ttbr1) in [(Geometry::K4_48, lpa2), (lpa2, Geometry::K4_48), (wide, Geometry::K4_48)] {
            assert_eq!(tcr(ttbr0, ttbr1, false), Err(RegisterError::HalvesDiffer { ttbr0, ttbr1 }));
        }
        let k16 = Geometry::new(Granule::K16, 47, 48).unwrap();
        assert!(tcr(k16, Geometry::K4_48, false).is_ok(), "granules may differ");
    }

    #[test]
    fn t0sz_changes_only_for_a_map_of_the_granule_and_format_that_tcr_has() {
        let k4 = tcr(Geometry::K4_48, Geometry::K4_48, true).unwrap();
        let k16 = Geometry::new(Granule::K16, 36, 48).unwrap();
        let lpa2 = Geometry::new(Granule::K4, 36, 52).unwrap();
        for other in [k16, lpa2] {
            assert_eq!(tcr_with_t0sz(k4, other), Err(RegisterError::OtherFormat { tcr: k4, ttbr0: other }));
        }
    }
}

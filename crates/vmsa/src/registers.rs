//! Values of the registers that describe a regime: MAIR, TCR, TTBR, SCTLR.
//!
//! [`tcr`] is for the regimes with user space: EL1&0, and EL2&0, where HCR_EL2.E2H gives TCR_EL2
//! the layout of TCR_EL1. [`Registers`] has all values for any regime that uses one tree.

use thiserror::Error;

use crate::{Geometry, GeometryError, Granule, Mair, Pa, Regime};

/// The MAIR_ELx value that gives each [`MemoryType`](crate::MemoryType) its slot in
/// [`Mair::DEFAULT`].
pub const MAIR: u64 = Mair::DEFAULT.value();

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
    /// VTCR_EL2 and VTTBR_EL2 describe stage 2: [`Stage2Registers`](crate::Stage2Registers).
    #[error("TCR and TTBR describe stage 1, and the tables are those of stage 2")]
    Stage2,
    /// TCR and TTBR describe the tables of this regime: [`Registers`].
    #[error("VTCR_EL2 and VTTBR_EL2 describe stage 2, and the tables are those of {regime}")]
    NotStage2 {
        /// The regime.
        regime: Regime,
    },
    /// VTTBR_EL2 has 8 bits for the VMID where VTCR_EL2.VS is clear.
    #[error("VMID {vmid:#x} has more than 8 bits, and VTCR_EL2.VS = 0 gives it no more")]
    Vmid {
        /// The VMID.
        vmid: u16,
    },
    /// Stage 2 can't have this many bits of IPA.
    #[error(transparent)]
    Geometry(GeometryError),
    /// The regime has one range.
    #[error("the {regime} regime has one range of addresses, and no upper half")]
    NoUpperHalf {
        /// The regime.
        regime: Regime,
    },
    /// The root table does not lie in a frame, or a root of several tables is not aligned to their
    /// size.
    #[error("the root table at {root} is not a frame of {bytes:#x} bytes below {} bits of PA", bits)]
    NotAFrame {
        /// The address of the root table.
        root: Pa,
        /// The granule in bytes, times the number of tables in the root.
        bytes: u64,
        /// The PA size in bits.
        bits: u8,
    },
}

/// TCR.TG0 for a granule.
pub(crate) const fn tg0(granule: Granule) -> u64 {
    match granule {
        Granule::K4 => 0b00,
        Granule::K64 => 0b01,
        Granule::K16 => 0b10,
    }
}

/// TCR.IRGN0, ORGN0 and SH0: walks are write-back, read and write allocate, inner shareable.
pub(crate) const WALKS: u64 = 0b01 << 8 | 0b01 << 10 | 0b11 << 12;

/// TCR.DS: descriptors have the LPA2 form.
const DS: u64 = 1 << 59;

/// The TCR value for a TTBR0 half of geometry `ttbr0` and a TTBR1 half of geometry `ttbr1`: inner
/// shareable write-back walks, 16-bit ASIDs if `asid16`, no top-byte-ignore, hardware updates off.
/// A tree that has them takes the bits of [`HardwareUpdates::tcr`](crate::HardwareUpdates::tcr),
/// too. The CPU must have the PA size.
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

/// The TTBR value for the root table in frame `root`, with ASID `asid`; the VTTBR value at stage 2,
/// with a VMID. A 52-bit PA keeps its bits 51:48 in bits 5:2.
///
/// # Errors
/// [`RegisterError::NotAFrame`] if `root` is not a multiple of the granule, or of the size of all
/// [tables of the root](Geometry::root_tables), or has more bits than the PA size.
#[inline]
pub const fn ttbr(geometry: Geometry, root: Pa, asid: u16) -> Result<u64, RegisterError> {
    let bytes = geometry.page_bytes() * geometry.root_tables() as u64;
    if root.0 & (bytes - 1) != 0 || !geometry.holds(root) {
        return Err(RegisterError::NotAFrame { root, bytes, bits: geometry.pa_bits() });
    }
    let base =
        if geometry.pa_bits() == 52 { root.0 & 0xffff_ffff_ffc0 | (root.0 >> 48 & 0xf) << 2 } else { root.0 };
    Ok(base | (asid as u64) << 48)
}

/// TCR.IPS, and the encoding of ID_AA64MMFR0_EL1.PARange, for a PA size in bits.
pub(crate) const fn ips(pa_bits: u8) -> u64 {
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

/// TCR.EPD0: TTBR0 is not walked.
const EPD0: u64 = 1 << 7;
/// TCR.EPD1: TTBR1 is not walked.
const EPD1: u64 = 1 << 23;

/// SCTLR.M, C and I: the MMU, and the caches for data and for instructions.
pub const SCTLR_MMU_AND_CACHES: u64 = 1 | 1 << 2 | 1 << 12;

/// What the registers of a regime hold while one tree is in use. The names of the registers end in
/// _EL1, _EL2 or _EL3, as the regime says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// MAIR: the memory types of [`Attributes`](crate::Attributes) in the slots of the geometry's
    /// [`Mair`]. A kernel whose own value has other types as well keeps that one.
    pub mair: u64,
    /// TCR.
    pub tcr: u64,
    /// TTBR0, if the tree is there.
    pub ttbr0: Option<u64>,
    /// TTBR1, if the tree is there.
    pub ttbr1: Option<u64>,
    /// The bits to set in SCTLR to turn MMU and caches on, in one write after an ISB. Its other
    /// bits stay: which of them are RES1 depends on the CPU.
    pub sctlr: u64,
}

impl Registers {
    /// Returns the values for a tree with its root in frame `root`, in the lower half, or in the
    /// only range where the regime has one. Nothing walks TTBR1.
    ///
    /// # Errors
    /// [`RegisterError::NotAFrame`], [`RegisterError::Stage2`].
    pub const fn of_lower_half(geometry: Geometry, root: Pa) -> Result<Self, RegisterError> {
        let tcr = match tcr_of_one_tree(geometry, EPD1) {
            Ok(tcr) => tcr,
            Err(error) => return Err(error),
        };
        match ttbr(geometry, root, 0) {
            Ok(ttbr0) => Ok(Self {
                mair: geometry.mair().value(),
                tcr,
                ttbr0: Some(ttbr0),
                ttbr1: None,
                sctlr: SCTLR_MMU_AND_CACHES,
            }),
            Err(error) => Err(error),
        }
    }

    /// Returns the values for a tree with its root in frame `root`, in the upper half. Nothing
    /// walks TTBR0.
    ///
    /// # Errors
    /// [`RegisterError::NoUpperHalf`], [`RegisterError::NotAFrame`].
    pub const fn of_upper_half(geometry: Geometry, root: Pa) -> Result<Self, RegisterError> {
        if !geometry.regime().has_user_space() {
            return Err(RegisterError::NoUpperHalf { regime: geometry.regime() });
        }
        let tcr = match tcr_of_one_tree(geometry, EPD0) {
            Ok(tcr) => tcr,
            Err(error) => return Err(error),
        };
        match ttbr(geometry, root, 0) {
            Ok(ttbr1) => Ok(Self {
                mair: geometry.mair().value(),
                tcr,
                ttbr0: None,
                ttbr1: Some(ttbr1),
                sctlr: SCTLR_MMU_AND_CACHES,
            }),
            Err(error) => Err(error),
        }
    }
}

/// The TCR value for one tree. `unused` is the EPD bit of the other half, if there is one.
const fn tcr_of_one_tree(geometry: Geometry, unused: u64) -> Result<u64, RegisterError> {
    if geometry.regime().is_stage_2() {
        return Err(RegisterError::Stage2);
    }
    if geometry.regime().has_user_space() {
        return match tcr(geometry, geometry, false) {
            Ok(tcr) => Ok(tcr | unused),
            Err(error) => Err(error),
        };
    }
    // TCR_EL2 without E2H and TCR_EL3 (Arm ARM D24.2): one granule, PS in bits 18:16, DS in bit 32,
    // bits 23 and 31 RES1.
    const RES1: u64 = 1 << 23 | 1 << 31;
    let ds = if geometry.lpa2() { 1 << 32 } else { 0 };
    Ok(txsz(geometry) | WALKS | tg0(geometry.granule()) << 14 | ips(geometry.pa_bits()) << 16 | RES1 | ds)
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
    fn a_regime_without_user_space_has_one_range_and_its_own_tcr() {
        for regime in [Regime::El2, Regime::El3] {
            let geometry = Geometry::K4_48.in_regime(regime);
            let Registers { tcr, ttbr0, ttbr1, .. } = Registers::of_lower_half(geometry, Pa(0x1000)).unwrap();
            assert_eq!((ttbr0, ttbr1), (Some(0x1000), None));
            assert_eq!(tcr & 0x3f, 16, "T0SZ");
            assert_eq!(tcr >> 16 & 0b111, 0b101, "PS: 48 bits");
            assert_eq!((tcr >> 23 & 1, tcr >> 31 & 1), (1, 1), "RES1");
            assert_eq!(tcr >> 32, 0);
            let error = Registers::of_upper_half(geometry, Pa(0x1000)).unwrap_err();
            assert_eq!(error, RegisterError::NoUpperHalf { regime });
        }
        let lpa2 = Geometry::new(Granule::K16, 52, 52).unwrap().in_regime(Regime::El2);
        assert_eq!(Registers::of_lower_half(lpa2, Pa(0x4000)).unwrap().tcr >> 32, 1, "DS");
    }

    #[test]
    fn the_half_without_a_tree_is_not_walked() {
        let lower = Registers::of_lower_half(Geometry::K4_48, Pa(0x1000)).unwrap();
        let upper = Registers::of_upper_half(Geometry::K4_48, Pa(0x1000)).unwrap();
        assert_eq!((lower.tcr >> 7 & 1, lower.tcr >> 23 & 1), (0, 1), "EPD0, EPD1");
        assert_eq!((upper.tcr >> 7 & 1, upper.tcr >> 23 & 1), (1, 0), "EPD0, EPD1");
        assert_eq!((upper.ttbr0, upper.ttbr1), (None, Some(0x1000)));
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

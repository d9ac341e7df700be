//! How a CPU walks a tree, by the values that its registers hold: for those who read the tables of
//! others. [`registers`](crate::registers) has the opposite direction.

use thiserror::Error;

use crate::id::Mmfr0;
use crate::{Geometry, GeometryError, Granule, HardwareUpdates, Level, Pa, Regime, Shareability, Stage2, Va};

/// The values of the registers that lead to the tables of stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableRegisters {
    /// TCR_ELx.
    pub tcr: u64,
    /// TTBR0_ELx.
    pub ttbr0: u64,
    /// TTBR1_ELx, which only the regimes with user space have.
    pub ttbr1: u64,
}

/// A tree that a CPU walks, and how it does.
///
/// ```
/// use linmap_vmsa::id::Mmfr0;
/// use linmap_vmsa::{Granule, Pa, Regime, TableRegisters, Va, Walk};
///
/// // Linux 6.12 with 48 bits and 4 KiB pages.
/// let registers = TableRegisters {
///     tcr: 0x0000_0075_b550_3510,
///     ttbr0: 0x4318_3000,
///     ttbr1: 0x0017_0000_4320_1001,
/// };
/// let walk = Walk::upper(Regime::El1And0, registers, Mmfr0(0x6))?.expect("EPD1 is 0");
/// assert_eq!((walk.geometry.granule(), walk.geometry.va_bits()), (Granule::K4, 48));
/// assert_eq!((walk.root, walk.id), (Pa(0x4320_1000), 0x17));
/// assert_eq!(walk.first, Va(0xffff_0000_0000_0000));
/// # Ok::<(), linmap_vmsa::WalkError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Granule, sizes, regime and start level. Descriptors of LPA2 (TCR.DS) have the form of 52
    /// bits of physical address, even if TCR.IPS says less.
    pub geometry: Geometry,
    /// The root table. It is aligned to its own size, which is less than a frame if the start level
    /// resolves few bits; or the first table of a root that has several.
    pub root: Pa,
    /// The first address that the tree translates.
    pub first: Va,
    /// The ASID or VMID; 0 where the regime has none.
    pub id: u16,
    /// Under LPA2 the shareability of all that the tree maps: TCR.SHn, unless that is reserved.
    /// `None` otherwise: leaves have their own.
    pub shareability: Option<Shareability>,
    /// Whether the permissions in table descriptors count: TCR.HPD is clear.
    pub has_table_permissions: bool,
    /// What hardware changes in leaves.
    pub updates: HardwareUpdates,
}

/// Why it is unknown how a CPU walks a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum WalkError {
    /// TG0 or TG1 has a reserved value; which granule the CPU then uses is its own choice.
    #[error("{field} is {value:#04b}, which is reserved")]
    Granule {
        /// TG0 or TG1.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// IPS or PS has a reserved value, or that of 56 bits.
    #[error("a PA size of encoding {value:#05b} is not one of VMSAv8-64's")]
    PaSize {
        /// IPS or PS.
        value: u64,
    },
    /// More than 48 bits need DS with the granules 4K and 16K (FEAT_LPA2).
    #[error("TxSZ {} asks for {bits} bits of address, and without DS {granule:?} has at most 48", 64 - bits)]
    NeedsDs {
        /// The granule.
        granule: Granule,
        /// 64 − TxSZ.
        bits: u8,
    },
    /// A size of addresses that is not supported.
    #[error(transparent)]
    Geometry(GeometryError),
    /// VTCR_EL2.SL0 and SL2 choose another start level than the one of the fewest levels.
    #[error(
        "SL0 {sl0} and SL2 {sl2} of VTCR_EL2 do not start at {expected:?}, the level of the fewest \
         levels for {ipa_bits} bits, and no other is supported"
    )]
    StartLevel {
        /// SL0.
        sl0: u64,
        /// SL2.
        sl2: u64,
        /// The start level of the fewest levels.
        expected: Level,
        /// Bits of intermediate physical address.
        ipa_bits: u8,
    },
    /// Stage 2 has its own registers: [`Walk::stage_2`].
    #[error("TCR and TTBR describe stage 1, and the tables are those of stage 2")]
    Stage2,
}

/// What TCR says of one half.
struct HalfOfTcr {
    txsz: u64,
    granule: Option<Granule>,
    granule_field: (&'static str, u64),
    disabled: bool,
    sh: u64,
    hpd: bool,
}

impl Walk {
    /// Returns how a CPU with `mmfr0` walks the tree in TTBR0 of `regime`: the lower half, or the
    /// only range. `None` if TCR.EPD0 is set: it walks no tree.
    ///
    /// If ID_AA64MMFR0_EL1 is unknown, 0x6 is the value that takes nothing away.
    ///
    /// # Errors
    /// Every [`WalkError`] but that of the start level.
    pub fn lower(regime: Regime, registers: TableRegisters, mmfr0: Mmfr0) -> Result<Option<Self>, WalkError> {
        let TableRegisters { tcr, ttbr0, .. } = registers;
        let bit = |nth: u32| tcr >> nth & 1 != 0;
        let tg0 = tcr >> 14 & 0b11;
        let (disabled, hpd) = match regime {
            Regime::Stage2(_) => return Err(WalkError::Stage2),
            Regime::El1And0 | Regime::El2And0 => (bit(7), bit(41)),
            Regime::El2 | Regime::El3 => (false, bit(24)),
        };
        let half = HalfOfTcr {
            txsz: tcr & 0x3f,
            granule: granule_of_tg0(tg0),
            granule_field: ("TG0", tg0),
            disabled,
            sh: tcr >> 12,
            hpd,
        };
        Self::of_half(regime, registers, mmfr0, &half, ttbr0, Va(0))
    }

    /// Returns how a CPU with `mmfr0` walks the tree in TTBR1 of `regime`: the upper half. `None`
    /// if TCR.EPD1 is set, or if the regime has one range.
    ///
    /// # Errors
    /// Every [`WalkError`] but that of the start level.
    pub fn upper(regime: Regime, registers: TableRegisters, mmfr0: Mmfr0) -> Result<Option<Self>, WalkError> {
        let TableRegisters { tcr, ttbr1, .. } = registers;
        let bit = |nth: u32| tcr >> nth & 1 != 0;
        match regime {
            Regime::Stage2(_) => return Err(WalkError::Stage2),
            Regime::El1And0 | Regime::El2And0 => {}
            Regime::El2 | Regime::El3 => return Ok(None),
        }
        let (txsz, tg1) = (tcr >> 16 & 0x3f, tcr >> 30 & 0b11);
        let granule = match tg1 {
            0b01 => Some(Granule::K16),
            0b10 => Some(Granule::K4),
            0b11 => Some(Granule::K64),
            _ => None,
        };
        let half = HalfOfTcr {
            txsz,
            granule,
            granule_field: ("TG1", tg1),
            disabled: bit(23),
            sh: tcr >> 28,
            hpd: bit(42),
        };
        let first = match txsz {
            0 => Va(0),
            txsz => Va(u64::MAX << (64 - txsz)),
        };
        Self::of_half(regime, registers, mmfr0, &half, ttbr1, first)
    }

    fn of_half(
        regime: Regime,
        registers: TableRegisters,
        mmfr0: Mmfr0,
        half: &HalfOfTcr,
        ttbr: u64,
        first: Va,
    ) -> Result<Option<Self>, WalkError> {
        if half.disabled {
            return Ok(None);
        }
        let tcr = registers.tcr;
        let bit = |nth: u32| tcr >> nth & 1 != 0;
        let has_user_space = regime.has_user_space();
        let (ips, ds) = if has_user_space { (tcr >> 32, bit(59)) } else { (tcr >> 16, bit(32)) };
        let (ha, hd) = if has_user_space { (bit(39), bit(40)) } else { (bit(21), bit(22)) };
        let (field, value) = half.granule_field;
        let granule = half.granule.ok_or(WalkError::Granule { field, value })?;
        let sizes = Sizes::new(granule, half.txsz, ips & 0b111, ds, mmfr0)?;
        let geometry = Geometry::new(granule, sizes.va_bits, sizes.pa_bits).map_err(WalkError::Geometry)?;
        let geometry = geometry.in_regime(regime);
        // TCR.A1 says which TTBR has the ASID, TCR.AS how many bits it has.
        let id = if has_user_space {
            let from = if bit(22) { registers.ttbr1 } else { registers.ttbr0 };
            let id = (from >> 48) as u16;
            if bit(36) { id } else { id & 0xff }
        } else {
            0
        };
        Ok(Some(Self {
            geometry,
            root: root(geometry, ttbr, sizes.base_bits),
            first,
            id,
            shareability: shareability(geometry, half.sh),
            has_table_permissions: !half.hpd,
            updates: HardwareUpdates::of_tcr_bits(ha, hd),
        }))
    }

    /// Returns how a CPU with `mmfr0` walks the tree of stage 2 in VTTBR_EL2, whose descriptors
    /// have the form `features`.
    ///
    /// # Errors
    /// Every [`WalkError`] but [`WalkError::Stage2`].
    pub fn stage_2(vtcr: u64, vttbr: u64, features: Stage2, mmfr0: Mmfr0) -> Result<Self, WalkError> {
        let bit = |nth: u32| vtcr >> nth & 1 != 0;
        let tg0 = vtcr >> 14 & 0b11;
        let granule = granule_of_tg0(tg0).ok_or(WalkError::Granule { field: "TG0", value: tg0 })?;
        let sizes = Sizes::new(granule, vtcr & 0x3f, vtcr >> 16 & 0b111, bit(32), mmfr0)?;
        let geometry = Geometry::stage_2(granule, sizes.va_bits, sizes.pa_bits, features)
            .map_err(WalkError::Geometry)?;
        let (sl0, sl2) = (vtcr >> 6 & 0b11, if bit(32) { vtcr >> 33 & 1 } else { 0 });
        let start = match (granule, sl2, sl0 as i8) {
            (Granule::K4, 0, sl0 @ 0..=2) => Some(2 - sl0),
            (Granule::K4, 0, _) => Some(3),
            (Granule::K4, _, 0) => Some(-1),
            (Granule::K16 | Granule::K64, 0, sl0) => Some(3 - sl0),
            _ => None,
        };
        let expected = geometry.start_level();
        if start != Some(expected.number()) {
            return Err(WalkError::StartLevel { sl0, sl2, expected, ipa_bits: sizes.va_bits });
        }
        let vmid = (vttbr >> 48) as u16;
        Ok(Self {
            geometry,
            root: root(geometry, vttbr, sizes.base_bits),
            first: Va(0),
            id: if bit(19) { vmid } else { vmid & 0xff },
            shareability: shareability(geometry, vtcr >> 12),
            has_table_permissions: false,
            updates: HardwareUpdates::of_tcr_bits(bit(21), bit(22)),
        })
    }
}

/// The sizes of addresses, by TxSZ, IPS or PS, and DS.
struct Sizes {
    va_bits: u8,
    /// As descriptors have them.
    pa_bits: u8,
    /// As TTBR has them.
    base_bits: u8,
}

impl Sizes {
    fn new(granule: Granule, txsz: u64, ips: u64, ds: bool, mmfr0: Mmfr0) -> Result<Self, WalkError> {
        let has_lpa2 = ds && !matches!(granule, Granule::K64);
        let size = match ips {
            // A size that the CPU lacks is that of the CPU.
            0..=6 => Mmfr0(ips).pa_bits().min(mmfr0.pa_bits()),
            value => return Err(WalkError::PaSize { value }),
        };
        // Without DS, 52 bits mean 48 with these granules (Arm ARM D8.1.6).
        let base_bits = if has_lpa2 || matches!(granule, Granule::K64) { size } else { size.min(48) };
        let va_bits = 64 - txsz as u8;
        if va_bits > 48 && !has_lpa2 && !matches!(granule, Granule::K64) {
            return Err(WalkError::NeedsDs { granule, bits: va_bits });
        }
        Ok(Self { va_bits, pa_bits: if has_lpa2 { 52 } else { base_bits }, base_bits })
    }
}

const fn granule_of_tg0(tg0: u64) -> Option<Granule> {
    match tg0 {
        0b00 => Some(Granule::K4),
        0b01 => Some(Granule::K64),
        0b10 => Some(Granule::K16),
        _ => None,
    }
}

/// The shareability by the field SH0 or SH1, in the lowest bits of `field`.
const fn shareability(geometry: Geometry, field: u64) -> Option<Shareability> {
    match (geometry.lpa2(), field & 0b11) {
        (true, 0b00) => Some(Shareability::Non),
        (true, 0b10) => Some(Shareability::Outer),
        (true, 0b11) => Some(Shareability::Inner),
        _ => None,
    }
}

/// The root by TTBR. Bits below the root's size are not part of the address, nor are the six lowest
/// (Arm ARM D8.2.5); with 52 bits of PA they hold bits 51:48.
const fn root(geometry: Geometry, ttbr: u64, base_bits: u8) -> Pa {
    let start = geometry.start_level();
    let bytes = (geometry.entries(start) * geometry.root_tables()) as u64 * 8;
    let align = if bytes < 64 { 64 } else { bytes };
    let low = ttbr & 0xffff_ffff_ffff & !(align - 1);
    Pa(if base_bits == 52 { low | (ttbr >> 2 & 0xf) << 48 } else { low })
}

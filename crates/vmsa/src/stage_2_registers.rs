//! Values of the registers that describe stage 2: VTCR_EL2, VTTBR_EL2, HCR_EL2.

use crate::geometry::GeometryError;
use crate::id::Mmfr1;
use crate::registers::{RegisterError, WALKS, ips, tg0, ttbr, txsz};
use crate::{Geometry, Granule, Pa, Regime};

/// The size of VMIDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VmidSize {
    /// 8 bits: VTCR_EL2.VS is clear.
    Bits8,
    /// 16 bits: VTCR_EL2.VS is set, which needs FEAT_VMID16.
    Bits16,
}

impl VmidSize {
    /// Returns the largest size that the CPU has.
    pub const fn of_cpu(mmfr1: Mmfr1) -> Self {
        if mmfr1.vmid16() { Self::Bits16 } else { Self::Bits8 }
    }
}

/// VTCR_EL2.VS: VMIDs have 16 bits.
const VS: u64 = 1 << 19;
/// VTCR_EL2, bit 31.
const RES1: u64 = 1 << 31;
/// VTCR_EL2.DS: descriptors have the LPA2 form.
const DS: u64 = 1 << 32;
/// HCR_EL2.VM: EL1&0 has a stage 2.
const VM: u64 = 1;
/// HCR_EL2.FWB: MemAttr has the form of [`Stage2::has_fwb`](crate::Stage2::has_fwb).
const FWB: u64 = 1 << 46;

/// The values of the EL2 registers for one tree of stage 2 (Arm ARM D24.2).
///
/// ```
/// use linmap_vmsa::{Geometry, Granule, Pa, Stage2, Stage2Registers, VmidSize};
///
/// // 40 bits of IPA: two tables at level 1, one after the other, and no level 0.
/// let geometry = Geometry::stage_2(Granule::K4, 40, 44, Stage2::Fwb)?;
/// assert_eq!(geometry.root_tables(), 2);
/// let registers = Stage2Registers::new(geometry, Pa(0x4000_2000), 7, VmidSize::Bits8)?;
/// assert_eq!(registers.vttbr, 0x0007_0000_4000_2000);
/// assert!(Stage2Registers::new(geometry, Pa(0x4000_1000), 7, VmidSize::Bits8).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Registers {
    /// VTCR_EL2: T0SZ and SL0 by the IPA size, TG0, inner shareable write-back walks (IRGN0, ORGN0,
    /// SH0), PS, VS, bit 31 RES1, and DS under LPA2. SL2 stays 0, since concatenated roots make
    /// level −1 unnecessary. HA and HD are 0: a tree with hardware updates takes the bits of
    /// [`HardwareUpdates::tcr`](crate::HardwareUpdates::tcr).
    pub vtcr: u64,
    /// VTTBR_EL2: the root in BADDR, and the VMID. CnP is 0.
    pub vttbr: u64,
    /// The bits to set in HCR_EL2: VM, and FWB if [`Stage2::has_fwb`](crate::Stage2::has_fwb) is
    /// true. Otherwise FWB must be clear. The hypervisor chooses the other bits.
    pub hcr: u64,
}

impl Stage2Registers {
    /// Returns the values for a tree with its root in the frames from `root` on.
    ///
    /// The CPU must have the PA size, the granule and, for [`VmidSize::Bits16`], FEAT_VMID16, as it
    /// does for values from [`Geometry::stage_2_of_cpu`] and [`VmidSize::of_cpu`].
    ///
    /// # Errors
    /// [`RegisterError::NotStage2`], [`RegisterError::NotAFrame`] unless the root is aligned to the
    /// size of all its tables, [`RegisterError::Vmid`], and [`RegisterError::Geometry`] if the IPA
    /// size is more than the PA size.
    pub const fn new(
        geometry: Geometry,
        root: Pa,
        vmid: u16,
        vmid_size: VmidSize,
    ) -> Result<Self, RegisterError> {
        let Regime::Stage2(features) = geometry.regime() else {
            return Err(RegisterError::NotStage2 { regime: geometry.regime() });
        };
        let (bits, pa_bits) = (geometry.va_bits(), geometry.pa_bits());
        if bits > pa_bits {
            return Err(RegisterError::Geometry(GeometryError::IpaBits { bits, pa_bits }));
        }
        let vs = match vmid_size {
            VmidSize::Bits8 if vmid > 0xff => return Err(RegisterError::Vmid { vmid }),
            VmidSize::Bits8 => 0,
            VmidSize::Bits16 => VS,
        };
        let vttbr = match ttbr(geometry, root, vmid) {
            Ok(vttbr) => vttbr,
            Err(error) => return Err(error),
        };
        let vtcr = txsz(geometry)
            | sl0(geometry) << 6
            | WALKS
            | tg0(geometry.granule()) << 14
            | ips(pa_bits) << 16
            | vs
            | RES1
            | if geometry.lpa2() { DS } else { 0 };
        Ok(Self { vtcr, vttbr, hcr: VM | if features.has_fwb() { FWB } else { 0 } })
    }
}

/// VTCR_EL2.SL0 for the start level. With 4K it counts from level 2 up, with 16K and 64K from level
/// 3 up.
const fn sl0(geometry: Geometry) -> u64 {
    let first = match geometry.granule() {
        Granule::K4 => 2,
        Granule::K16 | Granule::K64 => 3,
    };
    (first - geometry.start_level().number()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stage2;

    fn registers(granule: Granule, ipa: u8, pa: u8) -> Stage2Registers {
        let geometry = Geometry::stage_2(granule, ipa, pa, Stage2::Base).unwrap();
        Stage2Registers::new(geometry, Pa(0x4000_0000), 0, VmidSize::Bits8).unwrap()
    }

    #[test]
    fn vtcr_has_the_fields_of_the_architecture() {
        // As KVM on a CPU with 40 bits of PA: T0SZ 24, SL0 1, walks 0b11_0101, TG0 0, PS 2, RES1.
        assert_eq!(registers(Granule::K4, 40, 40).vtcr, 0x8002_3558);
        for (granule, ipa, pa, sl0, tg0, ps, ds) in [
            (Granule::K4, 32, 36, 0, 0b00, 1, 0),
            (Granule::K4, 36, 36, 1, 0b00, 1, 0),
            (Granule::K4, 44, 44, 2, 0b00, 4, 0),
            (Granule::K4, 48, 48, 2, 0b00, 5, 0),
            (Granule::K4, 52, 52, 2, 0b00, 6, 1),
            (Granule::K16, 29, 32, 0, 0b10, 0, 0),
            (Granule::K16, 40, 40, 1, 0b10, 2, 0),
            (Granule::K16, 48, 48, 2, 0b10, 5, 0),
            (Granule::K16, 52, 52, 3, 0b10, 6, 1),
            (Granule::K64, 32, 32, 0, 0b01, 0, 0),
            (Granule::K64, 42, 42, 1, 0b01, 3, 0),
            (Granule::K64, 52, 52, 2, 0b01, 6, 0),
        ] {
            let value = registers(granule, ipa, pa).vtcr;
            let field = |low: u32, bits: u32| value >> low & ((1 << bits) - 1);
            assert_eq!(field(0, 6), 64 - u64::from(ipa), "T0SZ");
            assert_eq!(field(6, 2), sl0, "SL0 of {granule:?} {ipa}");
            assert_eq!(field(8, 6), 0b11_0101, "SH0, ORGN0, IRGN0");
            assert_eq!(field(14, 2), tg0, "TG0");
            assert_eq!(field(16, 3), ps, "PS");
            assert_eq!(field(19, 4), 0, "VS, HA, HD");
            assert_eq!(field(31, 1), 1, "RES1");
            assert_eq!((field(32, 1), field(33, 31)), (ds, 0), "DS, SL2");
        }
    }

    #[test]
    fn the_root_of_several_tables_is_aligned_to_all_of_them() {
        let geometry = Geometry::stage_2(Granule::K4, 43, 44, Stage2::FwbXnx).unwrap();
        let of = |root| Stage2Registers::new(geometry, Pa(root), 0, VmidSize::Bits8);
        assert_eq!(of(0x4001_0000).unwrap().vttbr, 0x4001_0000);
        let error = RegisterError::NotAFrame { root: Pa(0x4000_8000), bytes: 16 << 12, bits: 44 };
        assert_eq!(of(0x4000_8000), Err(error));
        let wide = Geometry::stage_2(Granule::K64, 52, 52, Stage2::Base).unwrap();
        let vttbr = Stage2Registers::new(wide, Pa(0x000f_0000_4001_0000), 1, VmidSize::Bits8).unwrap().vttbr;
        assert_eq!(vttbr, 0x0001_0000_4001_003c, "PA[51:48] in bits 5:2");
    }

    #[test]
    fn a_vmid_of_16_bits_needs_vs() {
        let geometry = Geometry::stage_2(Granule::K4, 40, 40, Stage2::FwbXnx).unwrap();
        let of = |vmid, size| Stage2Registers::new(geometry, Pa(0x2000), vmid, size);
        assert_eq!(of(0x1ff, VmidSize::Bits8), Err(RegisterError::Vmid { vmid: 0x1ff }));
        let long = of(0x1ff, VmidSize::Bits16).unwrap();
        assert_eq!((long.vttbr >> 48, long.vtcr >> 19 & 1), (0x1ff, 1));
        assert_eq!(of(0xff, VmidSize::Bits8).unwrap().vttbr >> 48, 0xff);
        assert_eq!(VmidSize::of_cpu(Mmfr1(2 << 4)), VmidSize::Bits16);
        assert_eq!(long.hcr, 1 | 1 << 46, "VM and FWB");
        assert_eq!(registers(Granule::K4, 40, 40).hcr, 1, "VM");
    }

    #[test]
    fn each_stage_has_its_own_registers() {
        let stage_1 = Geometry::K4_48;
        let error = RegisterError::NotStage2 { regime: Regime::El1And0 };
        assert_eq!(Stage2Registers::new(stage_1, Pa(0), 0, VmidSize::Bits8), Err(error));
        let stage_2 = stage_1.in_regime(Regime::Stage2(Stage2::Base));
        let registers = crate::registers::Registers::of_lower_half(stage_2, Pa(0x1000));
        assert_eq!(registers, Err(RegisterError::Stage2));
        let narrow = Geometry::new(Granule::K4, 48, 40).unwrap().in_regime(stage_2.regime());
        let error = GeometryError::IpaBits { bits: 48, pa_bits: 40 };
        let found = Stage2Registers::new(narrow, Pa(0x1000), 0, VmidSize::Bits8);
        assert_eq!(found, Err(RegisterError::Geometry(error)));
    }
}

//! Values of the registers that describe a regime: MAIR, TCR, TTBR. They hold for EL1&0, and for
//! EL2&0 when HCR_EL2.E2H is set, which gives TCR_EL2 the layout of TCR_EL1.

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

/// The TCR value for a TTBR0 half with the geometry `ttbr0` and a TTBR1 half with the geometry
/// `ttbr1`: inner shareable write-back walks, 16-bit ASIDs if `asid16`, no top-byte-ignore,
/// hardware updates of the access flag and dirty state off. Both halves must agree on LPA2 and on
/// the PA size, which the CPU must have: IPS is taken from `ttbr1`.
pub const fn tcr(ttbr0: Geometry, ttbr1: Geometry, asid16: bool) -> u64 {
    let tg0: u64 = match ttbr0.granule() {
        Granule::K4 => 0b00,
        Granule::K64 => 0b01,
        Granule::K16 => 0b10,
    };
    let tg1: u64 = match ttbr1.granule() {
        Granule::K16 => 0b01,
        Granule::K4 => 0b10,
        Granule::K64 => 0b11,
    };
    // IRGN = ORGN = write-back, read and write allocate; SH = inner.
    const WALKS: u64 = 0b01 << 8 | 0b01 << 10 | 0b11 << 12;
    let ds = if ttbr1.lpa2() { 1 << 59 } else { 0 };
    let asid = if asid16 { 1 << 36 } else { 0 };
    txsz(ttbr0)
        | txsz(ttbr1) << 16
        | WALKS
        | WALKS << 16
        | tg0 << 14
        | tg1 << 30
        | ips(ttbr1.pa_bits()) << 32
        | asid
        | ds
}

/// The value of `tcr` with the T0SZ of a TTBR0 half with the geometry `ttbr0`; granule and PA size
/// stay.
pub const fn tcr_with_t0sz(tcr: u64, ttbr0: Geometry) -> u64 {
    tcr & !TCR_T0SZ_MASK | txsz(ttbr0)
}

/// The TTBR value for the root table in frame `root`, with ASID `asid`. Bits 51:48 of a 52-bit PA
/// are in bits 5:2.
pub const fn ttbr(geometry: Geometry, root: Pa, asid: u16) -> u64 {
    let base =
        if geometry.pa_bits() == 52 { root.0 & 0xffff_ffff_ffc0 | (root.0 >> 48 & 0xf) << 2 } else { root.0 };
    base | (asid as u64) << 48
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
        let value = tcr(Geometry::K4_48, Geometry::K4_48, true);
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
        assert_eq!(tcr(k16, k16, false) >> 14 & 0b11, 0b10);
        assert_eq!(tcr(k16, k16, false) >> 30 & 0b11, 0b01);
        assert_eq!(tcr(k64, k64, false) >> 14 & 0b11, 0b01);
        assert_eq!(tcr(k64, k64, false) >> 30 & 0b11, 0b11);
    }

    #[test]
    fn lpa2_sets_ds_and_the_52_bit_pa_size() {
        let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
        let value = tcr(lpa2, lpa2, true);
        assert_eq!(value >> 59 & 1, 1);
        assert_eq!(value >> 32 & 0b111, 0b110);
        assert_eq!(value & 0x3f, 12);
    }

    #[test]
    fn only_t0sz_changes_for_an_identity_map() {
        let base = tcr(Geometry::K4_48, Geometry::K4_48, true);
        let narrow = Geometry::new(Granule::K4, 33, 48).unwrap();
        let value = tcr_with_t0sz(base, narrow);
        assert_eq!(value & 0x3f, 31);
        assert_eq!(value & !0x3f, base & !0x3f);
    }

    #[test]
    fn a_ttbr_holds_its_root_and_the_high_bits_of_a_52_bit_one_below() {
        assert_eq!(ttbr(Geometry::K4_48, Pa(0x8_4020_3000), 7), 0x0007_0008_4020_3000);
        let k64 = Geometry::new(Granule::K64, 52, 52).unwrap();
        assert_eq!(ttbr(k64, Pa(0x000f_0000_4001_0000), 1), 0x0001_0000_4001_003c);
    }

    #[test]
    fn mair_gives_each_memory_type_its_encoding() {
        assert_eq!(MAIR >> (8 * MemoryType::Normal.mair_index()) & 0xff, 0xff);
        assert_eq!(MAIR >> (8 * MemoryType::DeviceNgnre.mair_index()) & 0xff, 0x04);
        assert_eq!(MAIR >> (8 * MemoryType::NormalNonCacheable.mair_index()) & 0xff, 0x44);
    }
}

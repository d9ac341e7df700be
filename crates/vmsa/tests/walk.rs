//! Registers that were encoded read back as the geometry and root that they were made from.

use linmap_vmsa::id::Mmfr0;
use linmap_vmsa::registers::{Registers, tcr, ttbr};
use linmap_vmsa::{
    Geometry, GeometryError, Granule, HardwareUpdates, Pa, Regime, Shareability, Stage2, Stage2Registers,
    TableRegisters, Va, VmidSize, Walk, WalkError,
};

const GRANULES: [Granule; 3] = [Granule::K4, Granule::K16, Granule::K64];
const PA_BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];
const ALL_BITS: Mmfr0 = Mmfr0(0x6);
const BOTH_HALVES: Regime = Regime::El1And0;

/// Every geometry, with a root that its PA size reaches.
fn every_geometry() -> impl Iterator<Item = (Geometry, Pa)> {
    GRANULES.into_iter().flat_map(|granule| {
        (25..=52).flat_map(move |va_bits| {
            PA_BITS.into_iter().map(move |pa_bits| {
                let geometry = Geometry::new(granule, va_bits, pa_bits).unwrap();
                let top = 1 << (pa_bits - 1);
                (geometry, Pa(top + 0x2_4120_0000 % top))
            })
        })
    })
}

/// LPA2 has one form of descriptors, whatever IPS says.
fn form(geometry: Geometry) -> Geometry {
    let pa_bits = if geometry.lpa2() { 52 } else { geometry.pa_bits() };
    Geometry::new(geometry.granule(), geometry.va_bits(), pa_bits).unwrap().in_regime(geometry.regime())
}

#[test]
fn both_halves_read_back_from_their_registers() {
    let mut seen = 0;
    for (geometry, root) in every_geometry() {
        let other = Pa(root.0 ^ 1 << 24);
        let registers = TableRegisters {
            tcr: tcr(geometry, geometry, true).unwrap(),
            ttbr0: ttbr(geometry, root, 0x1234).unwrap(),
            ttbr1: ttbr(geometry, other, 0xfedc).unwrap() | 1,
        };
        for regime in [Regime::El1And0, Regime::El2And0] {
            let lower = Walk::lower(regime, registers, ALL_BITS).unwrap().unwrap();
            assert_eq!(lower.geometry, form(geometry.in_regime(regime)));
            assert_eq!((lower.root, lower.first, lower.id), (root, Va(0), 0x1234), "{geometry:?}");
            let upper = Walk::upper(regime, registers, ALL_BITS).unwrap().unwrap();
            assert_eq!(upper.geometry, lower.geometry);
            let first = Va(u64::MAX << geometry.va_bits());
            assert_eq!((upper.root, upper.first, upper.id), (other, first, 0x1234), "{geometry:?}");
            assert!(upper.has_table_permissions && upper.updates == HardwareUpdates::Off);
        }
        seen += 1;
    }
    assert_eq!(seen, 3 * 28 * 7);
}

#[test]
fn the_only_range_of_a_regime_reads_back_from_its_registers() {
    for (geometry, root) in every_geometry() {
        for regime in [Regime::El2, Regime::El3] {
            let geometry = geometry.in_regime(regime);
            let made = Registers::of_lower_half(geometry, root).unwrap();
            let registers = TableRegisters { tcr: made.tcr, ttbr0: made.ttbr0.unwrap(), ttbr1: u64::MAX };
            let walk = Walk::lower(regime, registers, ALL_BITS).unwrap().unwrap();
            assert_eq!((walk.geometry, walk.root, walk.id), (form(geometry), root, 0));
            assert_eq!(Walk::upper(regime, registers, ALL_BITS), Ok(None));
        }
    }
}

#[test]
fn a_half_that_is_off_has_no_tree() {
    for (geometry, root) in every_geometry() {
        let lower = Registers::of_lower_half(geometry, root).unwrap();
        let registers = TableRegisters { tcr: lower.tcr, ttbr0: lower.ttbr0.unwrap(), ttbr1: 0 };
        assert_eq!(Walk::upper(BOTH_HALVES, registers, ALL_BITS), Ok(None));
        assert!(Walk::lower(BOTH_HALVES, registers, ALL_BITS).unwrap().is_some());
        let upper = Registers::of_upper_half(geometry, root).unwrap();
        let registers = TableRegisters { tcr: upper.tcr, ttbr0: 0, ttbr1: upper.ttbr1.unwrap() };
        assert_eq!(Walk::lower(BOTH_HALVES, registers, ALL_BITS), Ok(None));
        assert!(Walk::upper(BOTH_HALVES, registers, ALL_BITS).unwrap().is_some());
    }
}

#[test]
fn stage_2_reads_back_from_its_registers() {
    for (geometry, root) in every_geometry() {
        for features in [Stage2::Base, Stage2::FwbXnx] {
            let (ipa, pa) = (geometry.va_bits(), geometry.pa_bits());
            let Ok(geometry) = Geometry::stage_2(geometry.granule(), ipa, pa, features) else {
                assert!(ipa > pa);
                continue;
            };
            let made = Stage2Registers::new(geometry, root, 0xabcd, VmidSize::Bits16).unwrap();
            let walk = Walk::stage_2(made.vtcr, made.vttbr | 1, features, ALL_BITS).unwrap();
            assert_eq!((walk.geometry, walk.root, walk.id), (form(geometry), root, 0xabcd));
        }
    }
}

#[test]
fn another_start_level_of_stage_2_is_an_error() {
    let geometry = Geometry::stage_2(Granule::K4, 40, 40, Stage2::Base).unwrap();
    let made = Stage2Registers::new(geometry, Pa(0x4000_0000), 0, VmidSize::Bits8).unwrap();
    for (sl0, sl2) in [(0, 0), (2, 0), (3, 0)] {
        let vtcr = made.vtcr & !(0b11 << 6) | sl0 << 6;
        let error = Walk::stage_2(vtcr, made.vttbr, Stage2::Base, ALL_BITS).unwrap_err();
        let expected = geometry.start_level();
        assert_eq!(error, WalkError::StartLevel { sl0, sl2, expected, ipa_bits: 40 });
    }
}

/// A root of few entries lies anywhere in a frame: Linux offsets TTBR1 within the root of 52 bits
/// where the CPU has 48.
#[test]
fn a_root_that_is_less_than_a_frame_keeps_its_place_in_it() {
    let k64 = Geometry::new(Granule::K64, 48, 48).unwrap();
    let tcr = tcr(k64, k64, false).unwrap();
    let registers = TableRegisters { tcr, ttbr0: 0, ttbr1: 0x00ff_0000_4320_1e01 };
    let walk = Walk::upper(BOTH_HALVES, registers, ALL_BITS).unwrap().unwrap();
    assert_eq!(walk.root, Pa(0x4320_1e00));
    assert_eq!(walk.id, 0, "TTBR0 has the ASID");
}

#[test]
fn the_asid_has_8_bits_unless_as_is_set_and_comes_from_where_a1_says() {
    let k4 = Geometry::K4_48;
    let base = tcr(k4, k4, false).unwrap();
    let of = |tcr| {
        let registers = TableRegisters { tcr, ttbr0: 0x1234 << 48, ttbr1: 0x5678 << 48 };
        Walk::lower(BOTH_HALVES, registers, ALL_BITS).unwrap().unwrap().id
    };
    assert_eq!([of(base), of(base | 1 << 22), of(base | 1 << 36 | 1 << 22)], [0x34, 0x78, 0x5678]);
}

#[test]
fn hardware_updates_and_hierarchical_permissions_follow_tcr() {
    let k4 = Geometry::K4_48;
    let base = tcr(k4, k4, false).unwrap();
    let of = |tcr| {
        let registers = TableRegisters { tcr, ttbr0: 0, ttbr1: 0 };
        let lower = Walk::lower(BOTH_HALVES, registers, ALL_BITS).unwrap().unwrap();
        let upper = Walk::upper(BOTH_HALVES, registers, ALL_BITS).unwrap().unwrap();
        (lower.updates, lower.has_table_permissions, upper.has_table_permissions)
    };
    assert_eq!(of(base | 1 << 39), (HardwareUpdates::Accessed, true, true));
    assert_eq!(of(base | 3 << 39), (HardwareUpdates::AccessedAndDirty, true, true));
    assert_eq!(of(base | 1 << 40), (HardwareUpdates::Off, true, true), "HD alone does nothing");
    assert_eq!(of(base | 1 << 41), (HardwareUpdates::Off, false, true));
    assert_eq!(of(base | 1 << 42), (HardwareUpdates::Off, true, false));
}

#[test]
fn a_pa_size_above_the_cpu_s_is_the_cpu_s_and_52_bits_without_ds_are_48() {
    let k4 = Geometry::K4_48;
    let base = tcr(k4, k4, false).unwrap() & !(0b111 << 32) | 6 << 32;
    let registers = TableRegisters { tcr: base, ttbr0: 0x4000_103c, ttbr1: 0 };
    let of = |mmfr0| Walk::lower(BOTH_HALVES, registers, mmfr0).unwrap().unwrap();
    assert_eq!((of(ALL_BITS).geometry, of(ALL_BITS).root), (k4, Pa(0x4000_1000)));
    assert_eq!(of(Mmfr0(4)).geometry.pa_bits(), 44);
    let k64 = Geometry::new(Granule::K64, 48, 52).unwrap();
    let registers = TableRegisters { tcr: tcr(k64, k64, false).unwrap(), ttbr0: 0x4001_003c, ttbr1: 0 };
    let of = |mmfr0| Walk::lower(BOTH_HALVES, registers, mmfr0).unwrap().unwrap().root;
    assert_eq!([of(ALL_BITS), of(Mmfr0(5))], [Pa(0xf_0000_4001_0000), Pa(0x4001_0000)]);
}

#[test]
fn under_lpa2_the_shareability_is_that_of_tcr() {
    let lpa2 = Geometry::new(Granule::K4, 52, 52).unwrap();
    let base = tcr(lpa2, lpa2, false).unwrap() & !(3 << 12);
    let of = |tcr| {
        let registers = TableRegisters { tcr, ttbr0: 0, ttbr1: 0 };
        let lower = Walk::lower(BOTH_HALVES, registers, ALL_BITS).unwrap().unwrap();
        let upper = Walk::upper(BOTH_HALVES, registers, ALL_BITS).unwrap().unwrap();
        (lower.shareability, upper.shareability)
    };
    let inner = Some(Shareability::Inner);
    assert_eq!(of(base), (Some(Shareability::Non), inner));
    assert_eq!(of(base | 1 << 12), (None, inner), "reserved");
    assert_eq!(of(base | 2 << 12), (Some(Shareability::Outer), inner));
    assert_eq!(of(tcr(Geometry::K4_48, Geometry::K4_48, false).unwrap()), (None, None));
}

#[test]
fn what_is_reserved_or_has_no_support_is_an_error_by_name() {
    let base = tcr(Geometry::K4_48, Geometry::K4_48, false).unwrap();
    let of = |tcr| {
        let registers = TableRegisters { tcr, ttbr0: 0, ttbr1: 0 };
        let lower = Walk::lower(BOTH_HALVES, registers, ALL_BITS).err();
        (lower, Walk::upper(BOTH_HALVES, registers, ALL_BITS).err())
    };
    let size = Some(WalkError::PaSize { value: 7 });
    assert_eq!(of(base | 7 << 32), (size, size));
    assert_eq!(of(base | 3 << 14), (Some(WalkError::Granule { field: "TG0", value: 3 }), None));
    assert_eq!(of(base & !(3 << 30)), (None, Some(WalkError::Granule { field: "TG1", value: 0 })));
    let needs = Some(WalkError::NeedsDs { granule: Granule::K4, bits: 52 });
    assert_eq!(of(base & !0x3f | 12), (needs, None));
    let few = Some(WalkError::Geometry(GeometryError::VaBits { bits: 24 }));
    assert_eq!(of(base & !0x3f | 40), (few, None));
    let registers = TableRegisters { tcr: base, ttbr0: 0, ttbr1: 0 };
    assert_eq!(Walk::lower(Regime::Stage2(Stage2::Base), registers, ALL_BITS), Err(WalkError::Stage2));
}

//! The geometry of stage 2: start levels and concatenated roots (Arm ARM D8.2.2).

use linmap_vmsa::id::{Mmfr0, Mmfr1, Mmfr2};
use linmap_vmsa::{Geometry, GeometryError, Granule, Level, Pa, PaReach, Regime, Stage2, Va};

const fn guest(granule: Granule, ipa: u8, pa: u8) -> Geometry {
    match Geometry::stage_2(granule, ipa, pa, Stage2::Base) {
        Ok(geometry) => geometry,
        Err(_) => panic!("no such geometry"),
    }
}

/// Arm ARM D8.2.2 for each granule: the IPA sizes of the start levels with up to 16 tables.
#[test]
fn stage_2_concatenates_up_to_16_tables_to_save_a_level() {
    for (granule, ipa, level, tables) in [
        (Granule::K4, 25, 2, 1),
        (Granule::K4, 30, 2, 1),
        (Granule::K4, 31, 2, 2),
        (Granule::K4, 34, 2, 16),
        (Granule::K4, 35, 1, 1),
        (Granule::K4, 39, 1, 1),
        (Granule::K4, 40, 1, 2),
        (Granule::K4, 43, 1, 16),
        (Granule::K4, 44, 0, 1),
        (Granule::K4, 48, 0, 1),
        (Granule::K4, 49, 0, 2),
        (Granule::K4, 52, 0, 16),
        (Granule::K16, 25, 3, 1),
        (Granule::K16, 29, 3, 16),
        (Granule::K16, 30, 2, 1),
        (Granule::K16, 37, 2, 2),
        (Granule::K16, 40, 2, 16),
        (Granule::K16, 41, 1, 1),
        (Granule::K16, 48, 1, 2),
        (Granule::K16, 52, 0, 1),
        (Granule::K64, 30, 3, 2),
        (Granule::K64, 34, 2, 1),
        (Granule::K64, 46, 2, 16),
        (Granule::K64, 47, 1, 1),
        (Granule::K64, 52, 1, 1),
    ] {
        let g = guest(granule, ipa, 52);
        let found = (g.start_level().number(), g.root_tables());
        assert_eq!(found, (level, tables), "{granule:?} {ipa}");
        let reach = (g.entries(g.start_level()) * tables) as u64 * g.entry_bytes(g.start_level());
        assert_eq!(reach, 1 << ipa, "the root translates every IPA");
    }
}

#[test]
fn the_tables_of_a_root_divide_the_addresses_among_them() {
    let g = guest(Granule::K4, 40, 40);
    let root = Pa(0x4000_2000);
    assert_eq!(g.root_table(root, Va(0)), root);
    assert_eq!(g.root_table(root, Va((1 << 39) - 1)), root);
    assert_eq!(g.root_table(root, Va(1 << 39)), Pa(0x4000_3000));
    assert_eq!(g.index(Va(1 << 39 | 3 << 30), Level::L1), 3);
    assert_eq!(Geometry::K4_48.root_table(root, Va(u64::MAX)), root);
    assert_eq!((Geometry::K4_48.root_tables(), size_of::<Geometry>()), (1, 8));
}

#[test]
fn a_guest_has_no_more_address_bits_than_the_cpu() {
    let wide = Geometry::stage_2(Granule::K4, 41, 40, Stage2::Base);
    assert_eq!(wide, Err(GeometryError::IpaBits { bits: 41, pa_bits: 40 }));
    assert!(Geometry::stage_2(Granule::K4, 24, 40, Stage2::Base).is_err());
}

#[test]
fn stage_2_gets_the_sizes_that_the_cpu_has() {
    let max = Mmfr0(6 | 1 << 28 | 2 << 20 | 3 << 40 | 3 << 32 | 2 << 36);
    // LPA2 at stage 1 alone.
    let without = Mmfr0(6 | 1 << 28 | 2 << 40 | 1 << 32);
    let of = |granule, ipa, reach, mmfr0| {
        Geometry::stage_2_of_cpu(granule, ipa, reach, mmfr0, Mmfr1(1 << 28), Mmfr2(1 << 40))
    };
    let g = of(Granule::K4, 40, PaReach::Bits48, max).unwrap();
    assert_eq!((g.pa_bits(), g.lpa2(), g.regime()), (48, false, Regime::Stage2(Stage2::FwbXnx)));
    let g = of(Granule::K4, 52, PaReach::Bits48, max).unwrap();
    assert_eq!((g.pa_bits(), g.lpa2(), g.root_tables()), (52, true, 16));
    assert_eq!(of(Granule::K4, 48, PaReach::Whole, without).unwrap().pa_bits(), 48);
    let wide = Err(GeometryError::IpaBits { bits: 52, pa_bits: 48 });
    assert_eq!(of(Granule::K4, 52, PaReach::Whole, without), wide);
    assert_eq!(of(Granule::K64, 52, PaReach::Whole, without).unwrap().pa_bits(), 52);
    let none = Err(GeometryError::Granule { granule: Granule::K16 });
    assert_eq!(of(Granule::K16, 40, PaReach::Whole, without), none);
}

/// A start level that needs a larger PA size (44 bits for level 0 of 4K and level 1 of 64K, 42
/// for level 1 of 16K) is never chosen without it.
#[test]
fn the_start_level_is_one_that_the_pa_size_allows() {
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        for pa in [32, 36, 40, 42, 44, 48, 52] {
            for ipa in 25..=pa {
                let level = guest(granule, ipa, pa).start_level().number();
                let least = match (granule, level) {
                    (Granule::K4, ..=0) | (Granule::K64, ..=1) => 44,
                    (Granule::K16, ..=1) => 42,
                    _ => 0,
                };
                assert!(pa >= least, "{granule:?} {ipa} {pa}: level {level}");
                let lpa2 = guest(granule, ipa, pa).lpa2();
                assert!(lpa2 || !matches!((granule, level), (Granule::K16, 0) | (_, -1)));
            }
        }
    }
}

//! First maps of any regime and geometry against a list of pages.

use std::collections::BTreeMap;

use linmap_table::{BumpFrames, FirstMap, FirstMapError, LeafIter, MappingError, OffsetWindow};
use linmap_vmsa::registers::RegisterError;
use linmap_vmsa::{Attributes, Geometry, Granule, Level, MemoryType, Pa, PaRange, Regime, Va};
use proptest::prelude::*;

const REGIMES: [Regime; 4] = [Regime::El1And0, Regime::El2And0, Regime::El2, Regime::El3];

/// Host memory for tables.
struct Tables(Vec<u8>);

impl Tables {
    fn new() -> Self {
        Self(vec![0xa5; 4 << 20])
    }

    fn range(&self) -> PaRange {
        PaRange::from_len(Pa(self.0.as_ptr().expose_provenance() as u64), self.0.len() as u64).unwrap()
    }
}

/// A range of pages, at its own address or shifted, with one of the attributes.
type Call = (u64, u64, u64, usize);

const KINDS: [Attributes; 4] = [
    Attributes::KERNEL_DATA,
    Attributes::KERNEL_TEXT,
    Attributes::DEVICE,
    Attributes { memory: MemoryType::NormalNonCacheable, ..Attributes::KERNEL_RODATA },
];

fn geometries() -> impl Strategy<Value = Geometry> {
    let shapes =
        [(Granule::K4, 39, 48), (Granule::K4, 48, 48), (Granule::K16, 36, 48), (Granule::K64, 42, 52)];
    (0..shapes.len(), 0..REGIMES.len()).prop_map(move |(shape, regime)| {
        let (granule, va, pa) = shapes[shape];
        Geometry::new(granule, va, pa).unwrap().in_regime(REGIMES[regime])
    })
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let page = prop_oneof![0u64..64, 500u64..530, Just(512u64), 2040u64..2060];
    let len = prop_oneof![1u64..4, 1u64..600, Just(512u64), Just(1024u64)];
    prop::collection::vec((page, len, 0u64..2, 0..KINDS.len()), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn later_calls_are_carved_out_of_earlier_ones(
        geometry in geometries(), upper in any::<bool>(), calls in calls(),
    ) {
        let page = geometry.granule().bytes();
        let base = if upper { u64::MAX << geometry.va_bits() } else { 0 };
        let mut map = FirstMap::<32>::new(geometry);
        let mut pages = BTreeMap::new();
        for (first, count, shift, kind) in calls {
            let va = base + first * page;
            let pa = Pa((first + shift) * page);
            let range = PaRange::from_len(pa, count * page).unwrap();
            map.at(Va(va), range, KINDS[kind]).unwrap();
            for nth in 0..count {
                pages.insert(va + nth * page, (pa.0 + nth * page, KINDS[kind]));
            }
        }
        let tables = Tables::new();
        // SAFETY: the vector's memory is free, and reached at its own address.
        let mut frames = unsafe { BumpFrames::new(tables.range(), geometry) };
        let before = frames.left();
        // SAFETY: as above.
        let tree = unsafe { map.build(0, &mut frames) }.unwrap();
        let used = (frames.left().start.0 - before.start.0) / page;
        prop_assert_eq!(used, tree.built().tables, "a frame for each table");
        let mut found = BTreeMap::new();
        // SAFETY: as above.
        let mut window = unsafe { OffsetWindow::new(0) };
        // SAFETY: the window reaches all tables.
        let leaves = unsafe {
            LeafIter::new(geometry, tree.root(), geometry.start_level(), Va(base), &mut window)
        };
        for leaf in leaves {
            let attributes = leaf.descriptor.attributes(geometry, leaf.level).unwrap();
            let attributes = Attributes { contiguous: false, ..attributes };
            for offset in (0..geometry.entry_bytes(leaf.level)).step_by(page as usize) {
                found.insert(leaf.va.0 + offset, (leaf.pa.0 + offset, attributes));
            }
        }
        prop_assert_eq!(found, pages);
        match tree.registers() {
            Ok(registers) => {
                prop_assert_eq!(registers.ttbr0.is_some(), !upper);
                prop_assert!(!upper || geometry.regime().has_user_space());
            }
            Err(RegisterError::NoUpperHalf { .. }) => {
                prop_assert!(upper && !geometry.regime().has_user_space());
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn what_can_not_be_mapped_is_an_error_that_names_it() {
    let geometry = Geometry::K4_48.in_regime(Regime::El3);
    let tables = Tables::new();
    let range = |start, end| PaRange::new(Pa(start), Pa(end));
    let built = |at: PaRange, attributes| {
        let mut map = FirstMap::<1>::new(geometry);
        map.identity(at, attributes)?;
        // SAFETY: the vector's memory is free, and reached at its own address.
        unsafe { map.build(0, &mut BumpFrames::new(tables.range(), geometry)) }.map(|_| ())
    };
    let unaligned = built(range(0x800, 0x2000), Attributes::KERNEL_DATA);
    assert!(matches!(unaligned, Err(FirstMapError::Mapping(MappingError::Unaligned { .. }))));
    let empty = built(range(0x1000, 0x1000), Attributes::KERNEL_DATA);
    assert!(matches!(empty, Err(FirstMapError::Mapping(MappingError::Unaligned { .. }))));
    let user = Attributes { global: false, ..Attributes::KERNEL_DATA };
    let user = built(range(0x1000, 0x2000), user);
    assert!(user.unwrap_err().to_string().contains("EL3"), "it names the regime");
    let mut map = FirstMap::<2>::new(geometry);
    map.identity(range(0, 0x10_0000), Attributes::KERNEL_DATA).unwrap();
    let full = map.identity(range(0x1000, 0x2000), Attributes::KERNEL_TEXT);
    assert_eq!(full, Err(FirstMapError::Full { range: range(0x1000, 0x2000), capacity: 2 }));
    // SAFETY: the vector's memory is free, and reached at its own address.
    let mut none = unsafe { BumpFrames::new(range(0x1000, 0x1800), geometry) };
    // SAFETY: there is no frame.
    let out = unsafe { map.build(0, &mut none) };
    assert!(matches!(out, Err(FirstMapError::OutOfFrames(_))));
}

#[test]
fn a_build_that_fails_gives_all_frames_back() {
    let geometry = Geometry::K4_48;
    let tables = Tables::new();
    for frames in 1..5 {
        let mut map = FirstMap::<4>::new(geometry);
        for nth in 0..3 {
            let range = PaRange::from_len(Pa(nth << 39), 0x1000).unwrap();
            map.identity(range, Attributes::KERNEL_DATA).unwrap();
        }
        let start = tables.range().align_inward(0x1000).start;
        let memory = PaRange::from_len(start, frames * geometry.entry_bytes(Level::L3)).unwrap();
        // SAFETY: the vector's memory is free, and reached at its own address.
        let mut source = unsafe { BumpFrames::new(memory, geometry) };
        // SAFETY: as above.
        let tree = unsafe { map.build(0, &mut source) };
        assert!(matches!(tree, Err(FirstMapError::OutOfFrames(_))));
        assert_eq!(source.left(), memory, "{frames} frames");
    }
}

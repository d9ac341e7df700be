//! First maps of any regime and geometry against a list of pages.

use std::collections::{BTreeMap, BTreeSet};

use linmap_table::verify::{AccessFlag, Content, Expected, PortableLoop, Tree, Validity, verify_tree};
use linmap_table::{
    BumpFrames, DetachedTree, FirstMap, FirstMapError, FrameSource, LeafIter, Leaves, MappingError,
    OffsetWindow, OutOfFrames, ReachableFrames, Walk, walk,
};
use linmap_vmsa::registers::RegisterError;
use linmap_vmsa::{
    Access, Attributes, Execute, Geometry, Granule, Level, MemoryType, Pa, PaRange, Regime, Stage2,
    TablePermissions, Va, VmidSize,
};
use proptest::prelude::*;

/// Accesses and types of stage 2. With one bit for execution, EL1 and EL0 execute the same.
const GUEST_KINDS: [Attributes; 4] = [
    Attributes::GUEST_RAM,
    Attributes { access: Access::GuestReadOnly, execute: Execute::Never, ..Attributes::GUEST_RAM },
    Attributes::GUEST_DEVICE,
    Attributes {
        memory: MemoryType::NormalNonCacheable,
        access: Access::GuestWriteOnly,
        ..Attributes::GUEST_RAM
    },
];

const FEATURES: [Stage2; 4] = [Stage2::Base, Stage2::Fwb, Stage2::Xnx, Stage2::FwbXnx];

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

/// Every page that a tree translates from `base` on, with its address and attributes.
fn translated(tree: &DetachedTree, base: u64) -> BTreeMap<u64, (u64, Attributes)> {
    let geometry = tree.geometry();
    let mut found = BTreeMap::new();
    // SAFETY: the tables lie in a vector, reached at its own address.
    let mut window = unsafe { OffsetWindow::new(0) };
    // SAFETY: the window reaches all tables.
    let leaves =
        unsafe { LeafIter::new(geometry, tree.root(), geometry.start_level(), Va(base), &mut window) };
    for leaf in leaves {
        let attributes = leaf.descriptor.attributes(geometry, leaf.level).unwrap();
        let attributes = Attributes { contiguous: false, ..attributes };
        for offset in (0..geometry.entry_bytes(leaf.level)).step_by(geometry.granule().bytes() as usize) {
            found.insert(leaf.va.0 + offset, (leaf.pa.0 + offset, attributes));
        }
    }
    found
}

/// A source that knows which of its frames are in use.
struct Counted {
    frames: BumpFrames,
    page: u64,
    out: BTreeSet<u64>,
}

// SAFETY: passes on what the source does.
unsafe impl FrameSource for Counted {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let frame = self.frames.alloc()?;
        self.out.insert(frame.0);
        Ok(frame)
    }

    fn alloc_consecutive(&mut self, bytes: u64) -> Result<Pa, OutOfFrames> {
        let first = self.frames.alloc_consecutive(bytes)?;
        self.out.extend((0..bytes / self.page).map(|nth| first.0 + nth * self.page));
        Ok(first)
    }

    unsafe fn free(&mut self, frame: Pa) {
        assert!(self.out.remove(&frame.0), "{frame} was handed out");
        // SAFETY: the caller's.
        unsafe { self.frames.free(frame) };
    }
}

/// IPA sizes that the PA size allows, of every start level and number of tables.
fn stage_2_geometries() -> impl Strategy<Value = Geometry> {
    let granule = prop_oneof![Just(Granule::K4), Just(Granule::K16), Just(Granule::K64)];
    let pa = prop::sample::select(vec![32u8, 36, 40, 42, 44, 48, 52]);
    (granule, pa, 0u8..28, prop::sample::select(FEATURES.to_vec())).prop_map(
        |(granule, pa, less, features)| {
            Geometry::stage_2(granule, pa.saturating_sub(less).max(32), pa, features).unwrap()
        },
    )
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
        prop_assert_eq!(translated(&tree, base), pages);
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 600, ..ProptestConfig::default() })]

    /// Ranges lie about the ends of the tables of which the root consists.
    #[test]
    fn a_map_of_stage_2_translates_what_was_asked_whatever_its_root_consists_of(
        geometry in stage_2_geometries(),
        calls in prop::collection::vec((0u64..17, -3i64..3, 1u64..6, 0u64..2, 0..GUEST_KINDS.len()), 1..10),
    ) {
        let page = geometry.granule().bytes();
        let level = geometry.start_level();
        let roots = geometry.root_tables();
        let reach = geometry.entries(level) as u64 * geometry.entry_bytes(level);
        prop_assert!(roots <= 16 && reach * roots as u64 == 1 << geometry.va_bits());
        let all = 1u64 << geometry.va_bits();
        let mut map = FirstMap::<32>::new(geometry);
        let mut pages = BTreeMap::new();
        for (table, offset, count, shift, kind) in calls {
            let near = reach * (table % (roots as u64 + 1));
            let first = near.saturating_add_signed(offset * page as i64).min(all - page);
            let count = count.min((all - first) / page);
            let pa = Pa(first.saturating_sub(shift * page));
            map.at(Va(first), PaRange::from_len(pa, count * page).unwrap(), GUEST_KINDS[kind]).unwrap();
            for nth in 0..count {
                pages.insert(first + nth * page, (pa.0 + nth * page, GUEST_KINDS[kind]));
            }
        }
        let tables = Tables::new();
        // SAFETY: the vector's memory is free, and reached at its own address.
        let frames = unsafe { BumpFrames::new(tables.range(), geometry) };
        let mut frames = Counted { frames, page, out: BTreeSet::new() };
        // SAFETY: as above.
        let tree = unsafe { map.build(0, &mut frames) }.unwrap();
        prop_assert_eq!(tree.built().tables, frames.out.len() as u64, "a frame for each table");
        prop_assert_eq!(translated(&tree, 0), pages.clone());
        // Host memory lies higher than small PA sizes reach.
        let registers = tree.stage_2_registers(3, VmidSize::Bits8);
        prop_assert_eq!(registers.is_ok(), geometry.holds(tree.root()));
        prop_assert_eq!(tree.root().0 % (roots as u64 * page), 0, "aligned to all tables");
        // SAFETY: as above.
        let mut window = unsafe { OffsetWindow::new(0) };
        let expected = pages.iter().map(|(&va, &(pa, attributes))| {
            let (validity, leaves) = (Validity::Valid, Leaves::ContiguousBlocks);
            let content = Content::Leaves { pa: Pa(pa), attributes, validity, leaves };
            Expected { va: Va(va), len: page, content, tables: TablePermissions::UNRESTRICTED }
        });
        let tree_to_verify =
            Tree { geometry, root: tree.root(), base: Va(0), access_flag: AccessFlag::Software };
        // SAFETY: the window reaches all tables.
        let compared = unsafe {
            verify_tree(&tree_to_verify, expected, &mut window, |_, _, _| true, &PortableLoop)
        };
        prop_assert_eq!(compared.map(|compared| compared.tables), Ok(tree.built().tables));
        for (ipa, (pa, _)) in pages {
            // SAFETY: the window reaches all tables.
            let found = unsafe { walk(geometry, tree.root(), Va(ipa), &mut window) };
            let found_pa = if let Walk::Leaf { pa, .. } = found { Some(pa.0) } else { None };
            prop_assert_eq!(found_pa, Some(pa));
        }
        // SAFETY: the window reaches the frames of this source.
        tree.release(&mut unsafe { ReachableFrames::new(&mut window, &mut frames) });
        prop_assert_eq!(frames.out.len(), 0, "all frames came back");
    }
}

#[test]
fn a_root_of_several_tables_that_fails_gives_all_frames_back() {
    let geometry = Geometry::stage_2(Granule::K4, 43, 44, Stage2::Base).unwrap();
    let tables = Tables::new();
    let start = tables.range().align_inward(0x1_0000).start;
    for frames in 0..24 {
        // A frame beyond a multiple of what the root is aligned to.
        let memory = PaRange::from_len(Pa(start.0 + 0x1000), frames * 0x1000).unwrap();
        let mut map = FirstMap::<8>::new(geometry);
        for table in 0..5u64 {
            let range = PaRange::from_len(Pa(table << 39 | 0x1000), 0x1000).unwrap();
            map.identity(range, Attributes::GUEST_RAM).unwrap();
        }
        // SAFETY: the vector's memory is free, and reached at its own address.
        let mut source = unsafe { BumpFrames::new(memory, geometry) };
        // SAFETY: as above.
        let tree = unsafe { map.build(0, &mut source) };
        assert!(matches!(tree, Err(FirstMapError::OutOfFrames(_))), "{frames}");
        assert_eq!(source.left(), memory, "{frames} frames");
    }
}

#[test]
fn what_stage_2_can_not_say_is_refused() {
    let geometry = Geometry::stage_2(Granule::K4, 40, 40, Stage2::Base).unwrap();
    let tables = Tables::new();
    let built = |va: u64, attributes| {
        let mut map = FirstMap::<1>::new(geometry);
        map.at(Va(va), PaRange::new(Pa(0x1000), Pa(0x2000)), attributes)?;
        // SAFETY: the vector's memory is free, and reached at its own address.
        unsafe { map.build(0, &mut BumpFrames::new(tables.range(), geometry)) }
    };
    let tree = built(0x1000, Attributes::GUEST_RAM).unwrap();
    assert_eq!(tree.registers(), Err(RegisterError::Stage2));
    for (va, attributes) in [(0x1000, Attributes::KERNEL_DATA), (0x1000, Attributes::KERNEL_TEXT)] {
        let error = built(va, attributes).unwrap_err();
        assert!(matches!(error, FirstMapError::Mapping(MappingError::Attributes { .. })), "{error}");
    }
    // There is no upper half, and 2^40 is the first address beyond.
    for va in [u64::MAX << 40, 1 << 40] {
        let error = built(va, Attributes::GUEST_RAM).unwrap_err();
        assert!(matches!(error, FirstMapError::Mapping(MappingError::OutsideVaSpace { .. })), "{error}");
    }
    assert_eq!(
        DetachedTree::stage_2_registers(&first_map_at_el1(&tables), 0, VmidSize::Bits8),
        Err(RegisterError::NotStage2 { regime: Regime::El1And0 })
    );
}

/// The end of a walk through the bytes of tables that stand at `at`, by the layout of the
/// architecture for 4K and 48 bits.
fn walk_bytes(bytes: &[u8], at: u64, root: u64, va: u64) -> Option<u64> {
    let mut table = root;
    for shift in [39, 30, 21, 12] {
        let entry = (table - at + (va >> shift & 511) * 8) as usize;
        let entry = u64::from_le_bytes(bytes[entry..entry + 8].try_into().unwrap());
        let (address, span) = (entry & 0xffff_ffff_f000, 1u64 << shift);
        match (entry & 0b11, shift) {
            (0b11, 12) | (0b01, 21 | 30) => return Some((address & !(span - 1)) + (va & (span - 1))),
            (0b11, _) => table = address,
            _ => return None,
        }
    }
    None
}

#[test]
fn tables_in_an_image_are_those_of_its_address() {
    let range = |start, len| PaRange::from_len(Pa(start), len).unwrap();
    let at = 0x8_0000_0000 - 0x2000;
    for regime in [Regime::El1And0, Regime::El3, Regime::Stage2(Stage2::Base)] {
        let guest = regime.is_stage_2();
        let kind = |data, of_guest| if guest { of_guest } else { data };
        let (data, device) = (
            kind(Attributes::KERNEL_DATA, Attributes::GUEST_RAM),
            kind(Attributes::DEVICE, Attributes::GUEST_DEVICE),
        );
        let mut map = FirstMap::<4>::new(Geometry::K4_48.in_regime(regime));
        map.identity(range(0x4000_0000, 0x2000_3000), data).unwrap();
        map.at(Va(0x1000), range(0x900_0000, 0x1000), device).unwrap();
        // One frame more than the tables, however the vector is aligned.
        let mut room = vec![u64::MAX; 7 * 512];
        let image = map.image(Pa(at), &mut room).unwrap();
        let tables = image.tree().built().tables;
        assert_eq!((image.bytes().len() as u64, image.tree().root().0), (tables * 0x1000, at));
        let walked = |va| walk_bytes(image.bytes(), at, at, va);
        assert_eq!(walked(0x4000_1234), Some(0x4000_1234));
        assert_eq!(walked(0x6000_2ff8), Some(0x6000_2ff8));
        assert_eq!(walked(0x1008), Some(0x900_0008));
        assert_eq!([walked(0), walked(0x6000_3000), walked(1 << 40)], [None; 3]);
        // The same bytes wherever the room is.
        let bytes = image.bytes().to_vec();
        let mut other = vec![0; 8 * 512 + 3];
        assert_eq!(map.image(Pa(at), &mut other[3..]).unwrap().bytes(), bytes);
        let short = map.image(Pa(at), &mut other[..3 * 512]);
        assert!(matches!(short, Err(FirstMapError::OutOfFrames(_))));
        for at in [0, 0x1800, (1 << 48) - 0x1000] {
            let misplaced = map.image(Pa(at), &mut other);
            assert!(matches!(misplaced, Err(FirstMapError::Misplaced { .. })), "{at:#x}");
        }
    }
    // A root of several tables has an alignment of its own.
    let map = FirstMap::<1>::new(Geometry::stage_2(Granule::K4, 42, 44, Stage2::Base).unwrap());
    let mut room = vec![0; 10 * 512];
    assert!(matches!(
        map.image(Pa(0x1_1000), &mut room),
        Err(FirstMapError::Misplaced { align: 0x8000, .. })
    ));
    assert_eq!(map.image(Pa(0x1_8000), &mut room).unwrap().bytes().len(), 0x8000);
}

fn first_map_at_el1(tables: &Tables) -> DetachedTree {
    let geometry = Geometry::K4_48;
    // SAFETY: the vector's memory is free, and reached at its own address.
    unsafe { FirstMap::<1>::new(geometry).build(0, &mut BumpFrames::new(tables.range(), geometry)) }.unwrap()
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

//! Hierarchical permissions in trees: written by builders where asked, found by walks and listings,
//! and verified.

use linmap_table::verify::{
    AccessFlag, Content, Expected, PortableLoop, Tree, TreeError, Validity, verify_tree,
};
use linmap_table::{
    BumpFrames, DetachedTree, LeafIter, Leaves, Mapping, MappingError, Mappings, OffsetWindow,
    ReachableFrames, TableWindow, Walk, read, walk,
};
use linmap_vmsa::{
    Access, Attributes, Decoded, Descriptor, Execute, Geometry, Granule, Level, Pa, PaRange, Regime,
    TablePermissions, Va,
};
use proptest::prelude::*;

/// Host memory for tables, reached at its own address.
struct Arena(Vec<u8>);

impl Arena {
    fn new() -> Self {
        Self(vec![0xa5; 40 * PAGE as usize])
    }

    fn window(&self) -> OffsetWindow {
        // SAFETY: the vector lives as long as the tables, and only windows access it.
        unsafe { OffsetWindow::new(0) }
    }
}

const PAGE: u64 = 0x1000;

fn mapping(va: u64, len: u64, attributes: Attributes) -> Mapping {
    let pa = Pa(0x4000_0000 + (va & 0xfff_ffff));
    Mapping { va: Va(va), pa, len, attributes, leaves: Leaves::ContiguousBlocks }
}

/// Pages, a block and a page far away.
fn data() -> [Mapping; 3] {
    let data = Attributes::KERNEL_DATA;
    [mapping(0, 3 * PAGE, data), mapping(2 << 20, 4 << 20, data), mapping(5 << 30, PAGE, data)]
}

fn build(geometry: Geometry, list: &[Mapping], arena: &mut Arena) -> DetachedTree {
    let memory = Pa(arena.0.as_mut_ptr().expose_provenance() as u64);
    let memory = PaRange::from_len(memory, arena.0.len() as u64).unwrap();
    let mut window = arena.window();
    // SAFETY: the vector's memory is free.
    let mut frames = unsafe { BumpFrames::new(memory, geometry) };
    // SAFETY: the window reaches the arena's frames.
    let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
    DetachedTree::build(&Mappings::new(geometry, list).unwrap(), &mut memory).unwrap()
}

/// Calls `each` with all table descriptors below `table`, each with its place.
fn for_each_link(
    geometry: Geometry,
    arena: &Arena,
    (level, table): (Level, Pa),
    each: &mut impl FnMut(Level, Pa, usize, Descriptor),
) {
    let Some(next) = level.next() else { return };
    for index in 0..geometry.entries(level) {
        // SAFETY: a table of the tree, in the arena.
        let found = unsafe { read(&mut arena.window(), level, table, index) };
        if let Decoded::Table(below) = found.decode(geometry, level) {
            each(level, table, index, found);
            for_each_link(geometry, arena, (next, below), each);
        }
    }
}

fn poke(arena: &Arena, level: Level, table: Pa, index: usize, flip: u64) {
    // SAFETY: a table of the tree, in the arena.
    unsafe {
        let entry = arena.window().open(level, table).add(index);
        entry.write(entry.read() ^ flip);
    }
}

#[test]
fn all_new_tables_take_away_what_the_geometry_says() {
    for (granule, va, pa) in [(Granule::K4, 48, 48), (Granule::K4, 52, 52)] {
        for regime in [Regime::El1And0, Regime::El2, Regime::El3] {
            let plain = Geometry::new(granule, va, pa).unwrap().in_regime(regime);
            for tables in [TablePermissions::UNRESTRICTED, TablePermissions::NEVER_EXECUTE] {
                let geometry = plain.with_table_permissions(tables).unwrap();
                let mut arena = Arena::new();
                let tree = build(geometry, &data(), &mut arena);
                let mut links = 0;
                for_each_link(plain, &arena, (plain.start_level(), tree.root()), &mut |_, _, _, found| {
                    assert_eq!(found.0 >> 59, tables.bits(regime) >> 59, "{regime}");
                    links += 1;
                });
                assert_eq!(links, tree.built().tables - 1);
                // SAFETY: the window reaches the arena's tables.
                let found = unsafe { walk(plain, tree.root(), Va(PAGE), &mut arena.window()) };
                assert!(
                    matches!(found, Walk::Leaf { pa: Pa(0x4000_1000), tables: taken, .. } if taken == tables)
                );
            }
        }
    }
}

#[test]
fn a_mapping_that_the_tables_would_restrict_is_refused_by_name() {
    let tables = TablePermissions::NEVER_EXECUTE;
    let geometry = Geometry::K4_48.with_table_permissions(tables).unwrap();
    let list = [mapping(PAGE, PAGE, Attributes::KERNEL_DATA), mapping(0x8000, PAGE, Attributes::KERNEL_TEXT)];
    let error = Mappings::new(geometry, &list).unwrap_err();
    assert_eq!(error, MappingError::TakenByTables { va: Va(0x8000), tables });
    assert!(error.to_string().contains("PXN,UXN"), "{error}");
    assert!(Mappings::new(Geometry::K4_48, &list).is_ok());
    let read_only = Geometry::K4_48.with_table_permissions(TablePermissions::READ_ONLY).unwrap();
    assert!(Mappings::new(read_only, &list[..1]).is_err());
    assert!(Mappings::new(read_only, &list[1..]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Whatever the tables of a foreign tree take away, walks and listings say it.
    #[test]
    fn walks_and_listings_add_up_what_tables_take_away(bits in prop::collection::vec(0u64..16, 16)) {
        let geometry = Geometry::K4_48;
        let attributes = Attributes { access: Access::UserReadWrite, ..Attributes::KERNEL_DATA };
        let text = Attributes { execute: Execute::Both, ..Attributes::USER_RODATA };
        let list = [
            mapping(0, 3 * PAGE, attributes),
            mapping(2 << 20, 4 << 20, text),
            mapping(1 << 30, 1 << 30, attributes),
            mapping(5 << 30, PAGE, text),
            mapping(1 << 40, PAGE, text),
        ];
        let list = list.map(|mapping| Mapping { pa: Pa(mapping.va.0), ..mapping });
        let mut arena = Arena::new();
        let tree = build(geometry, &list, &mut arena);
        let mut bits = bits.into_iter().cycle();
        let top = (geometry.start_level(), tree.root());
        for_each_link(geometry, &arena, top, &mut |level, table, index, _| {
            poke(&arena, level, table, index, bits.next().unwrap() << 59);
        });
        let mut window = arena.window();
        // SAFETY: the window reaches the arena's tables.
        let leaves = unsafe { LeafIter::new(geometry, tree.root(), top.0, Va(0), &mut window) };
        let leaves: Vec<_> = leaves.collect();
        prop_assert_eq!(leaves.len(), 3 + 2 + 1 + 1 + 1);
        for leaf in leaves {
            let (mut level, mut table, mut plain) = (top.0, tree.root(), 0);
            while level != leaf.level {
                // SAFETY: as above.
                let found = unsafe { read(&mut window, level, table, geometry.index(leaf.va, level)) };
                plain |= found.0 >> 59 & 0xf;
                (level, table) = (level.next().unwrap(), found.next_table(geometry).unwrap());
            }
            prop_assert_eq!(leaf.tables.bits(Regime::El1And0) >> 59, plain);
            // SAFETY: as above.
            let walked = unsafe { walk(geometry, tree.root(), Va(leaf.va.0 + 8), &mut window) };
            prop_assert_eq!(walked.attributes(geometry), leaf.attributes(geometry));
            let own = leaf.descriptor.attributes(geometry, leaf.level).unwrap();
            prop_assert_eq!(leaf.attributes(geometry), Some(leaf.tables.restrict(own)));
        }
    }
}

fn expected(mapping: &Mapping, tables: TablePermissions) -> Expected {
    let Mapping { va, pa, len, attributes, leaves } = *mapping;
    let content = Content::Leaves { pa, attributes, validity: Validity::Valid, leaves };
    Expected { va, len, content, tables }
}

fn verify(geometry: Geometry, root: Pa, list: &[Expected], arena: &Arena) -> Result<(), TreeError> {
    let tree = Tree { geometry, root, base: Va(0), access_flag: AccessFlag::Software };
    let (list, mut window) = (list.iter().copied(), arena.window());
    // SAFETY: the window reaches the arena's tables, and only this test writes to them.
    unsafe { verify_tree(&tree, list, &mut window, |_, _, _| true, &PortableLoop) }.map(|_| ())
}

#[test]
fn a_tree_is_verified_against_what_its_tables_must_take_away_for_each_range() {
    let plain = Geometry::K4_48;
    let never = TablePermissions::NEVER_EXECUTE;
    let geometry = plain.with_table_permissions(never).unwrap();
    let mut arena = Arena::new();
    let tree = build(geometry, &data(), &mut arena);
    let list = data().map(|mapping| expected(&mapping, never));
    assert_eq!(verify(plain, tree.root(), &list, &arena), Ok(()));
    assert_eq!(verify(geometry, tree.root(), &list, &arena), Ok(()), "the list alone counts");
    let unaware = data().map(|mapping| expected(&mapping, TablePermissions::UNRESTRICTED));
    let error = verify(geometry, tree.root(), &unaware, &arena).unwrap_err();
    assert!(matches!(error, TreeError::TableBits { .. }), "{error}");
    // Every bit of every table descriptor counts.
    let mut links = Vec::new();
    let top = (plain.start_level(), tree.root());
    for_each_link(plain, &arena, top, &mut |level, table, index, _| links.push((level, table, index)));
    for (level, table, index) in links {
        for bit in 59..64 {
            poke(&arena, level, table, index, 1 << bit);
            let error = verify(plain, tree.root(), &list, &arena).unwrap_err();
            assert!(matches!(error, TreeError::TableBits { .. }), "{error}");
            poke(&arena, level, table, index, 1 << bit);
        }
    }
}

#[test]
fn ranges_below_one_table_that_want_different_tables_are_noticed() {
    let never = TablePermissions::NEVER_EXECUTE;
    let list = [mapping(0, PAGE, Attributes::KERNEL_DATA), mapping(0x4000, PAGE, Attributes::KERNEL_TEXT)];
    let mut arena = Arena::new();
    let tree = build(Geometry::K4_48, &list, &mut arena);
    let mut wanted = [expected(&list[0], never), expected(&list[1], TablePermissions::UNRESTRICTED)];
    let error = verify(Geometry::K4_48, tree.root(), &wanted, &arena).unwrap_err();
    assert!(matches!(error, TreeError::TableBits { .. }), "{error}");
    for_each_link(Geometry::K4_48, &arena, (Level::L0, tree.root()), &mut |level, table, index, _| {
        poke(&arena, level, table, index, never.bits(Regime::El1And0));
    });
    // The code would not execute.
    let error = verify(Geometry::K4_48, tree.root(), &wanted, &arena).unwrap_err();
    assert!(matches!(error, TreeError::Tables { found, .. } if found == never), "{error}");
    // Nor can one ask for that.
    wanted[1].tables = never;
    let error = verify(Geometry::K4_48, tree.root(), &wanted, &arena).unwrap_err();
    assert!(matches!(error, TreeError::List(MappingError::TakenByTables { .. })), "{error}");
}

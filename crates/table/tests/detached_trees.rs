//! Detached trees on host memory: every page translates as the list of mappings says, by leaves
//! that the architecture allows, and every frame is freed.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use linmap_table::{
    DetachedTree, LeafIter, Leaves, Mapping, MappingError, Mappings, OffsetWindow, Subtree, SubtreeError,
    TableWindow, Walk, walk,
};
use linmap_vmsa::{Access, Attributes, Geometry, Granule, Level, Pa, Va};
use proptest::prelude::*;

mod arena;

use arena::{Arena, OneSlotALevel, reachable};

/// A mapping list from (gap, length, physical page, leaves, read-only) tuples, counted in granules
/// of the geometry.
fn mappings(geometry: Geometry, base: u64, specs: &[(u64, u64, u64, u8, bool)]) -> Vec<Mapping> {
    let granule = geometry.granule().bytes();
    let mut va = base;
    let mut list = Vec::new();
    for &(gap, len, page, leaves, read_only) in specs {
        va += gap * granule;
        list.push(Mapping {
            va: Va(va),
            pa: Pa(page * granule),
            len: len * granule,
            attributes: if read_only { Attributes::KERNEL_RODATA } else { Attributes::KERNEL_DATA },
            leaves: [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks][leaves as usize],
        });
        va += len * granule;
    }
    list
}

fn check(geometry: Geometry, list: &[Mapping], tree: &DetachedTree, window: &mut OffsetWindow) {
    let granule = geometry.granule().bytes();
    let mut bytes = 0;
    for mapping in list {
        bytes += mapping.len;
        for offset in (0..mapping.len).step_by(granule as usize) {
            let va = Va(mapping.va.0 + offset);
            // SAFETY: the window reaches the arena, where all tables are.
            let found = unsafe { walk(geometry, tree.root(), va, window) };
            let Walk::Leaf { pa, level, descriptor, .. } = found else { panic!("{va} is not mapped") };
            assert_eq!(pa, Pa(mapping.pa.0 + offset), "{va}");
            let found = descriptor.attributes(geometry, level).expect("attributes that linmap writes");
            assert_eq!(Attributes { contiguous: false, ..found }, mapping.attributes);
            assert!(mapping.leaves != Leaves::Pages || level == Level::L3);
            assert!(mapping.leaves == Leaves::ContiguousBlocks || !found.contiguous);
        }
    }
    // SAFETY: as above.
    let leaves = unsafe { LeafIter::new(geometry, tree.root(), geometry.start_level(), Va(0), window) };
    let leaves: BTreeMap<u64, _> = leaves.map(|l| (l.va.0, l)).collect();
    let total: u64 = leaves.values().map(|leaf| geometry.entry_bytes(leaf.level)).sum();
    assert_eq!(total, bytes, "nothing else is mapped");
    assert_eq!(tree.built().entries, leaves.len() as u64);
    assert_eq!(tree.built().bytes, bytes);
    // A contiguous run: every entry of it has the bit, and VA and PA are aligned to the whole run.
    for leaf in leaves.values().filter(|leaf| leaf.descriptor.is_contiguous()) {
        let size = geometry.entry_bytes(leaf.level);
        let run = size * geometry.contiguous_entries(leaf.level).expect("a level with runs") as u64;
        let (first, first_pa) = (leaf.va.0 & !(run - 1), leaf.pa.0 & !(run - 1));
        assert_eq!(leaf.va.0 - first, leaf.pa.0 - first_pa, "a run with different offsets in VA and PA");
        for va in (first..first + run).step_by(size as usize) {
            let other = leaves.get(&va).expect("a whole run");
            assert!(other.descriptor.is_contiguous() && other.level == leaf.level);
        }
    }
}

fn geometries() -> impl Strategy<Value = Geometry> {
    prop_oneof![
        Just((Granule::K4, 48, 48)),
        Just((Granule::K4, 39, 48)),
        Just((Granule::K4, 33, 48)),
        Just((Granule::K4, 52, 52)),
        Just((Granule::K16, 47, 48)),
        Just((Granule::K16, 48, 52)),
        Just((Granule::K64, 42, 48)),
        Just((Granule::K64, 48, 52)),
    ]
    .prop_map(|(granule, va, pa)| Geometry::new(granule, va, pa).expect("a geometry of the architecture"))
}

fn specs() -> impl Strategy<Value = Vec<(u64, u64, u64, u8, bool)>> {
    // Gaps and physical pages at several alignments, so that blocks, runs and pages all occur.
    let count =
        |max: u64| prop_oneof![0..40u64, (0..max).prop_map(|n| n * 16), (0..4u64).prop_map(|n| n * 512)];
    let page = prop_oneof![
        0..0x10_0000u64,
        (0..0x1000u64).prop_map(|n| n * 16),
        (0..64u64).prop_map(|n| n * 0x4_0000)
    ];
    prop::collection::vec((count(64), count(80).prop_map(|n| n + 1), page, 0..3u8, any::<bool>()), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_tree_translates_exactly_what_its_mappings_say(geometry in geometries(), specs in specs()) {
        let list = mappings(geometry, 0, &specs);
        let checked = Mappings::new(geometry, &list).unwrap();
        let mut arena = Arena::new(geometry.granule(), 80);
        let before = arena.free.clone();
        let mut window = arena.window();
        let tree = DetachedTree::build(&checked, &mut reachable(&mut window, &mut arena)).unwrap();
        prop_assert_eq!(before.len() - arena.free.len(), tree.built().tables as usize);
        check(geometry, &list, &tree, &mut window);
        tree.release(&mut reachable(&mut window, &mut arena));
        prop_assert_eq!(arena.free, before);
    }

    #[test]
    fn running_out_of_frames_anywhere_returns_every_frame(
        geometry in geometries(),
        specs in specs(),
        allowed in 0..40usize,
    ) {
        let list = mappings(geometry, 0, &specs);
        let checked = Mappings::new(geometry, &list).unwrap();
        let mut arena = Arena::new(geometry.granule(), 80);
        let before = arena.free.clone();
        let mut window = OneSlotALevel::new(arena.window());
        arena.allowed = allowed;
        let built = DetachedTree::build(&checked, &mut reachable(&mut window, &mut arena));
        match built {
            Ok(tree) => {
                prop_assert!(tree.built().tables as usize <= allowed);
                tree.release(&mut reachable(&mut window, &mut arena));
            }
            Err(error) => prop_assert_eq!(error.wanted, geometry.granule().bytes()),
        }
        prop_assert_eq!(window.open, [false; 5]);
        prop_assert_eq!(arena.free, before);
    }
}

#[test]
fn the_largest_leaves_that_alignment_allows_are_used() {
    let geometry = Geometry::K4_48;
    let list = [Mapping {
        va: Va((1 << 30) - (32 << 20) - (64 << 10) - 0x1000),
        pa: Pa((5 << 30) - (32 << 20) - (64 << 10) - 0x1000),
        len: 0x1000 + (64 << 10) + (32 << 20) + (1 << 30) + (2 << 20) + 0x2000,
        attributes: Attributes { access: Access::KernelReadOnly, ..Attributes::KERNEL_DATA },
        leaves: Leaves::ContiguousBlocks,
    }];
    let checked = Mappings::new(geometry, &list).unwrap();
    let mut arena = Arena::new(Granule::K4, 16);
    let mut window = arena.window();
    let tree = DetachedTree::build(&checked, &mut reachable(&mut window, &mut arena)).unwrap();
    check(geometry, &list, &tree, &mut window);
    let mut sizes: Vec<(i8, bool, usize)> = Vec::new();
    // SAFETY: the window reaches the arena, where all tables are.
    for leaf in unsafe { LeafIter::new(geometry, tree.root(), Level::L0, Va(0), &mut window) } {
        let kind = (leaf.level.number(), leaf.descriptor.is_contiguous());
        match sizes.last_mut() {
            Some((level, contiguous, count)) if (*level, *contiguous) == kind => *count += 1,
            _ => sizes.push((kind.0, kind.1, 1)),
        }
    }
    assert_eq!(
        sizes,
        [(3, false, 1), (3, true, 16), (2, true, 16), (1, false, 1), (2, false, 1), (3, false, 2)],
        "a page, a contiguous 64K, a contiguous 32M, a 1G block, a 2M block, two pages"
    );
    tree.release(&mut reachable(&mut window, &mut arena));
}

/// A window that counts how often it opens a table.
struct Counting<'w>(&'w mut OffsetWindow, usize);

// SAFETY: that of the window it passes everything on to.
unsafe impl TableWindow for Counting<'_> {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        self.1 += 1;
        // SAFETY: the caller's promise.
        unsafe { self.0.open(level, table) }
    }

    fn close(&mut self, level: Level) {
        self.0.close(level);
    }
}

/// An open may cost a store to a fixmap slot and a TLBI.
#[test]
fn the_invalid_entries_between_two_leaves_are_read_in_one_opening() {
    let geometry = Geometry::K4_48;
    let list = [mapping(0x1000, 0x1000), mapping(0x1f_f000, 0x1000), mapping(1 << 40, 0x1000)];
    let mappings = Mappings::new(geometry, &list).unwrap();
    let mut arena = Arena::new(Granule::K4, 16);
    let mut window = arena.window();
    let tree = DetachedTree::build(&mappings, &mut reachable(&mut window, &mut arena)).unwrap();
    let mut counting = Counting(&mut window, 0);
    // SAFETY: the window reaches the arena, where all tables are.
    let mut leaves = unsafe { LeafIter::new(geometry, tree.root(), Level::L0, Va(0), &mut counting) };
    assert_eq!(leaves.by_ref().map(|leaf| leaf.va.0).collect::<Vec<_>>(), [0x1000, 0x1f_f000, 1 << 40]);
    let tables = leaves.tables() as usize;
    assert_eq!(tables, 7);
    // Each table once, and again after each leaf or table in it that is not its last entry.
    assert_eq!(counting.1, tables + list.len() + tables - 1 - 1);
    tree.release(&mut reachable(&mut window, &mut arena));
}

fn mapping(va: u64, len: u64) -> Mapping {
    let (attributes, leaves) = (Attributes::KERNEL_DATA, Leaves::Blocks);
    Mapping { va: Va(va), pa: Pa(va & 0xffff_ffff_f000), len, attributes, leaves }
}

#[test]
fn a_tree_of_the_upper_half_begins_there_without_being_told() {
    let geometry = Geometry::K4_48;
    let list = [mapping(0xffff_8000_4020_0000, 2 << 20), mapping(0xffff_ffff_ffe0_0000, 2 << 20)];
    let mappings = Mappings::new(geometry, &list).unwrap();
    let mut arena = Arena::new(Granule::K4, 16);
    let mut window = arena.window();
    let tree = DetachedTree::build(&mappings, &mut reachable(&mut window, &mut arena)).unwrap();
    assert_eq!(tree.built().bytes, 4 << 20);
    for mapping in list {
        // SAFETY: the window reaches the arena, where all tables are.
        let found = unsafe { walk(geometry, tree.root(), mapping.va, &mut window) };
        assert!(matches!(found, Walk::Leaf { pa, .. } if pa == mapping.pa), "{found:?}");
    }
    tree.release(&mut reachable(&mut window, &mut arena));
}

#[test]
fn mappings_in_both_halves_are_refused() {
    let list = [mapping(0x4020_0000, 2 << 20), mapping(0xffff_8000_4020_0000, 2 << 20)];
    let error = Mappings::new(Geometry::K4_48, &list).unwrap_err();
    assert!(matches!(error, MappingError::OutsideVaSpace { .. }), "{error}");
}

#[test]
fn a_subtree_is_the_lowest_table_that_translates_all_its_mappings() {
    let geometry = Geometry::K4_48;
    let mut arena = Arena::new(Granule::K4, 16);
    let mut window = arena.window();
    for (list, level, base) in [
        (vec![mapping(0x4020_3000, 0x1000), mapping(0x403f_f000, 0x1000)], Level::L3, 0x4020_0000),
        (vec![mapping(0x4020_3000, 0x1000), mapping(0x4040_0000, 0x1000)], Level::L2, 0x4000_0000),
        (vec![mapping(0x3fff_f000, 0x2000)], Level::L1, 0),
    ] {
        let mappings = Mappings::new(geometry, &list).unwrap();
        let tree = Subtree::lowest(&mappings, &mut reachable(&mut window, &mut arena)).unwrap();
        assert_eq!((tree.level(), tree.base()), (level, Va(base)));
        assert_eq!(tree.built().bytes, list.iter().map(|mapping| mapping.len).sum::<u64>());
        tree.release(&mut reachable(&mut window, &mut arena));
    }
    let far = [mapping(0x4020_3000, 0x1000), mapping(0x7f_ffff_f000, 0x2000)];
    let mappings = Mappings::new(geometry, &far).unwrap();
    let error = Subtree::lowest(&mappings, &mut reachable(&mut window, &mut arena)).unwrap_err();
    assert!(matches!(error, SubtreeError::TooFarApart { .. }), "{error}");
    let none = Mappings::new(geometry, &[]).unwrap();
    let error = Subtree::lowest(&none, &mut reachable(&mut window, &mut arena)).unwrap_err();
    assert_eq!(error, SubtreeError::NoMappings);
}

#[test]
fn no_table_is_built_where_no_entry_leads_to_one() {
    let list = [mapping(0x4020_0000, 0x20_0000)];
    let geometry = Geometry::new(Granule::K4, 39, 48).unwrap();
    let mappings = Mappings::new(geometry, &list).unwrap();
    let mut arena = Arena::new(Granule::K4, 16);
    let mut window = arena.window();
    for level in [Level::L0, Level::L3] {
        let mut cursor = mappings.cursor();
        let error = Subtree::below(&mut cursor, level, &mut reachable(&mut window, &mut arena)).unwrap_err();
        assert_eq!(error, SubtreeError::NoTableBelow { level, start: Level::L1 });
    }
    assert_eq!(arena.free.len(), 16);
}

//! Verification of trees on host memory: a built tree is as its list says, and any other bit in any
//! entry of any table is noticed.

use std::collections::BTreeSet;

use linmap_table::verify::{
    AccessFlag, Compared, Content, Expected, PortableLoop, Tree, TreeError, Validity, WantedEntry,
    verify_tree,
};
use linmap_table::{DetachedTree, FrameSource, Leaves, Mapping, MappingError, Mappings, TableWindow, read};
use linmap_vmsa::{
    Access, Attributes, Decoded, Descriptor, Execute, Geometry, Granule, Level, Pa, TablePermissions, Va,
};
use proptest::prelude::*;

mod arena;

use arena::{Arena, OneSlotALevel, RAM, reachable};

/// A tree in host memory, and what it must translate.
struct Built {
    arena: Arena,
    root: Pa,
    tree: Tree,
    list: Vec<Expected>,
}

/// An entry: its level, table and index.
type At = (Level, Pa, usize);

impl Built {
    fn new(geometry: Geometry, base: Va, list: &[Mapping]) -> Self {
        let mut arena = Arena::new(geometry.granule(), 120);
        let mappings = Mappings::new(geometry, list).unwrap();
        let mut window = arena.window();
        let root = DetachedTree::build(&mappings, &mut reachable(&mut window, &mut arena)).unwrap().root();
        let list = list.iter().map(expected).collect();
        let tree = Tree { geometry, root, base, access_flag: AccessFlag::Software };
        Self { arena, root, tree, list }
    }

    fn verify(&mut self) -> Result<Compared, TreeError> {
        let mut window = OneSlotALevel::new(self.arena.window());
        let Self { arena, tree, list, .. } = self;
        let is_table = |_, _, frame: Pa| {
            (RAM..RAM + 120 * tree.geometry.granule().bytes()).contains(&frame.0)
                && !arena.free.contains(&frame.0)
        };
        // SAFETY: all frames of the arena are in the window, and nothing else runs.
        unsafe { verify_tree(tree, list.iter().copied(), &mut window, is_table, &PortableLoop) }
    }

    /// All entries of all tables.
    fn entries(&mut self) -> Vec<At> {
        let mut all = Vec::new();
        let start = self.tree.geometry.start_level();
        self.entries_below(start, self.root, &mut all);
        all
    }

    fn entries_below(&mut self, level: Level, table: Pa, all: &mut Vec<At>) {
        let geometry = self.tree.geometry;
        for index in 0..geometry.entries(level) {
            all.push((level, table, index));
            let entry = self.read((level, table, index));
            if let (Decoded::Table(below), Some(next)) = (entry.decode(geometry, level), level.next()) {
                self.entries_below(next, below, all);
            }
        }
    }

    fn read(&mut self, (level, table, index): At) -> Descriptor {
        // SAFETY: a table of the tree, in the arena.
        unsafe { read(&mut self.arena.window(), level, table, index) }
    }

    fn flip(&mut self, at: At, bits: u64) {
        let value = self.read(at).0 ^ bits;
        // SAFETY: as for `read`.
        unsafe { self.arena.window().open(at.0, at.1).add(at.2).write(value) };
    }

    /// The entry on the way to `va` at `level`.
    fn on_the_way(&mut self, va: u64, level: Level) -> At {
        let geometry = self.tree.geometry;
        let (mut at, mut table) = (geometry.start_level(), self.root);
        while at != level {
            let entry = self.read((at, table, geometry.index(Va(va), at)));
            table = entry.next_table(geometry).expect("a table on the way");
            at = at.next().unwrap();
        }
        (level, table, geometry.index(Va(va), level))
    }

    #[track_caller]
    fn is_noticed(&mut self, at: At, bits: u64) {
        self.flip(at, bits);
        let result = self.verify();
        self.flip(at, bits);
        assert!(result.is_err(), "{bits:#x} flipped in {at:?}, {:?}", self.read(at));
    }
}

fn expected(mapping: &Mapping) -> Expected {
    let Mapping { va, pa, len, attributes, leaves } = *mapping;
    Expected {
        va,
        len,
        content: Content::Leaves { pa, attributes, validity: Validity::Valid, leaves },
        tables: TablePermissions::UNRESTRICTED,
    }
}

const BASE: u64 = 0xffff_0000_0000_0000;

/// A small kernel's half: a linear map with a block, a run of blocks, a run of pages, single pages,
/// read-only and executable memory, a hole, and an image far behind.
fn small_half() -> Built {
    let mapping =
        |va, pa, len, attributes, leaves| Mapping { va: Va(BASE + va), pa: Pa(pa), len, attributes, leaves };
    let (data, contiguous) = (Attributes::KERNEL_DATA, Leaves::ContiguousBlocks);
    let list = [
        mapping(0, 0x4000_0000, 0x1000, data, contiguous),
        mapping(0x1000, 0x4000_1000, 0x1_f000, Attributes::KERNEL_RODATA, contiguous),
        mapping(0x2_0000, 0x4002_0000, 0x1e_0000, data, contiguous),
        mapping(0x20_0000, 0x4020_0000, 0x20_0000, Attributes::KERNEL_RODATA, Leaves::Blocks),
        mapping(0x40_0000, 0x4040_0000, 0x3c0_0000, data, contiguous),
        mapping(1 << 30, 0x8000_0000, 1 << 30, data, contiguous),
        mapping(0x8000_8000_0000, 0x4020_0000, 0x3000, Attributes::KERNEL_TEXT, Leaves::Pages),
        mapping(0x8000_8000_4000, 0x4020_4000, 0x2000, data, Leaves::Pages),
    ];
    Built::new(Geometry::K4_48, Va(BASE), &list)
}

#[test]
fn a_built_tree_is_right_and_all_of_its_entries_are_read_once() {
    let mut built = small_half();
    let entries = built.entries().len() as u64;
    assert_eq!(built.verify(), Ok(Compared { tables: entries / 512, entries }));
}

#[test]
fn any_flipped_bit_in_any_entry_of_any_table_is_noticed() {
    let mut built = small_half();
    for at in built.entries() {
        for bit in 0..64 {
            built.is_noticed(at, 1 << bit);
        }
    }
    assert!(built.verify().is_ok());
}

#[test]
fn what_a_mistake_or_an_attacker_would_write_is_noticed() {
    let mut built = small_half();
    let leaf = |pa, attributes| Descriptor::page(Geometry::K4_48, Pa(pa), attributes).0;
    // Another page, a page that is writable and executable, a writable alias of text, an invalid
    // page whose other bits stay.
    let page = built.on_the_way(BASE + 0x2000, Level::L3);
    let right = built.read(page).0;
    let both = Attributes { execute: Execute::Kernel, ..Attributes::KERNEL_DATA };
    for wrong in
        [leaf(0x4000_3000, Attributes::KERNEL_RODATA), leaf(0x4000_2000, both), right & !1, right ^ 1 << 7]
    {
        built.is_noticed(page, right ^ wrong);
    }
    // A 1 GiB alias of all memory, far behind the map.
    let alias =
        Descriptor::leaf(Geometry::K4_48, Level::L1, Pa(0x4000_0000), Attributes::KERNEL_DATA).unwrap();
    let far = built.on_the_way(BASE + (300 << 30), Level::L1);
    built.is_noticed(far, alias.0);
    // A block in place of the table that it overlaps, and an unused table.
    let block =
        Descriptor::leaf(Geometry::K4_48, Level::L2, Pa(0x4000_0000), Attributes::KERNEL_DATA).unwrap().0;
    let table = built.on_the_way(BASE, Level::L2);
    let found = built.read(table).0;
    built.is_noticed(table, found ^ block);
    let empty = built.arena.alloc().unwrap();
    // SAFETY: the frame is the arena's.
    let zeros = unsafe { built.arena.window().open(Level::L3, empty) };
    // SAFETY: a frame of the arena.
    unsafe { zeros.cast::<[u64; 512]>().write([0; 512]) };
    let unused = built.on_the_way(BASE + (200 << 20), Level::L2);
    built.is_noticed(unused, Descriptor::table(Geometry::K4_48, empty).0);
}

#[test]
fn a_table_in_a_frame_that_is_no_table_is_never_read() {
    let mut built = small_half();
    let at = built.on_the_way(BASE, Level::L2);
    let found = built.read(at).0;
    let elsewhere = Descriptor::table(Geometry::K4_48, Pa(0x7_0000_0000)).0;
    built.flip(at, found ^ elsewhere);
    let error = built.verify().unwrap_err();
    assert!(matches!(error, TreeError::NotTable { frame: Pa(0x7_0000_0000), .. }), "{error}");
}

#[test]
fn the_error_names_the_entry_and_what_it_should_be() {
    let mut built = small_half();
    let at = built.on_the_way(BASE + (1 << 30), Level::L1);
    built.flip(at, 1 << 7);
    let text = format!(
        "0xffff000040000000: entry 1 of the level 1 table at {} is 0x0060000080000781 instead of \
         0x0060000080000701",
        at.1
    );
    assert_eq!(built.verify().unwrap_err().to_string(), text);
}

#[test]
fn smaller_leaves_than_a_mapping_allows_are_right_and_larger_ones_are_not() {
    let mut built = small_half();
    let blocks = built.list.clone();
    for range in &mut built.list {
        if let Content::Leaves { leaves, .. } = &mut range.content {
            *leaves = Leaves::ContiguousBlocks;
        }
    }
    assert!(built.verify().is_ok());
    for allowed in [Leaves::Blocks, Leaves::Pages] {
        let mut list = blocks.clone();
        if let Content::Leaves { leaves, .. } = &mut list[4].content {
            *leaves = allowed;
        }
        built.list = list;
        let error = built.verify().unwrap_err();
        assert!(matches!(error, TreeError::Entry { .. }), "{error}");
    }
}

#[test]
fn a_mapping_that_two_ranges_of_the_list_describe_may_be_one_leaf() {
    let mut built = small_half();
    let whole = built.list[5];
    let Content::Leaves { pa, attributes, validity, leaves } = whole.content else { unreachable!() };
    let half = whole.len / 2;
    let upper = Content::Leaves { pa: Pa(pa.0 + half), attributes, validity, leaves };
    built.list[5].len = half;
    built.list.insert(
        6,
        Expected {
            va: Va(whole.va.0 + half),
            len: half,
            content: upper,
            tables: TablePermissions::UNRESTRICTED,
        },
    );
    assert!(built.verify().is_ok());
    // With other attributes it may not.
    let other = Attributes { access: Access::KernelReadOnly, ..attributes };
    built.list[6].content = Content::Leaves { pa: Pa(pa.0 + half), attributes: other, validity, leaves };
    let error = built.verify().unwrap_err();
    assert!(matches!(error, TreeError::Entry { wanted: WantedEntry::Table, .. }), "{error}");
}

#[test]
fn an_invalid_range_has_its_leaves_without_the_valid_bit() {
    let mut built = small_half();
    let Content::Leaves { pa, attributes, leaves, .. } = built.list[4].content else { unreachable!() };
    built.list[4].content = Content::Leaves { pa, attributes, validity: Validity::Invalid, leaves };
    assert!(built.verify().is_err());
    for va in (0x40_0000..0x400_0000).step_by(2 << 20) {
        let at = built.on_the_way(BASE + va, Level::L2);
        built.flip(at, 1);
    }
    assert!(built.verify().is_ok());
    let at = built.on_the_way(BASE + 0x40_0000, Level::L2);
    for bit in 0..64 {
        built.is_noticed(at, 1 << bit);
    }
}

#[test]
fn free_slots_have_a_table_of_unused_entries() {
    let mut built = small_half();
    let at = built.on_the_way(BASE + 0x8000_8000_0000, Level::L3);
    for index in 0..512 {
        let value = built.read((at.0, at.1, index)).0;
        built.flip((at.0, at.1, index), value);
    }
    let slots = Expected {
        va: Va(BASE + 0x8000_8000_0000),
        len: 2 << 20,
        content: Content::FreeSlots,
        tables: TablePermissions::UNRESTRICTED,
    };
    built.list.truncate(6);
    assert!(built.verify().is_err(), "nothing is mapped there, so no table is right");
    built.list.push(slots);
    assert!(built.verify().is_ok());
    for index in [0, 17, 511] {
        built.is_noticed((at.0, at.1, index), 1 << 40);
    }
    let link = built.on_the_way(BASE + 0x8000_8000_0000, Level::L2);
    for bit in 0..64 {
        built.is_noticed(link, 1 << bit);
    }
    let value = built.read(link).0;
    built.is_noticed(link, value);
}

#[test]
fn hardware_may_set_an_access_flag_and_nothing_else() {
    let mut built = small_half();
    for at in [0, 4, 5] {
        let Content::Leaves { pa, attributes, validity, leaves } = built.list[at].content else {
            unreachable!()
        };
        let attributes = Attributes { accessed: false, ..attributes };
        built.list[at].content = Content::Leaves { pa, attributes, validity, leaves };
    }
    assert!(built.verify().is_err());
    built.tree.access_flag = AccessFlag::Hardware;
    assert!(built.verify().is_ok());
    // In the midst of a contiguous run, too.
    let at = built.on_the_way(BASE + 0x240_0000, Level::L2);
    built.flip(at, 1 << 10);
    assert!(built.verify().is_ok());
    for bit in (0..64).filter(|bit| *bit != 10) {
        built.is_noticed(at, 1 << bit);
    }
    // Nothing clears a flag that software set, and no linmap leaf has DBM.
    let set = built.on_the_way(BASE + 0x1000, Level::L3);
    built.is_noticed(set, 1 << 10);
    built.is_noticed(set, 1 << 51);
    built.is_noticed(set, 1 << 51 | 1 << 7);
}

#[test]
fn a_list_that_breaks_a_rule_is_refused() {
    let mut built = small_half();
    let list = built.list.clone();
    let mut refused = |change: fn(&mut Vec<Expected>)| {
        built.list.clone_from(&list);
        change(&mut built.list);
        match built.verify() {
            Err(TreeError::List(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused(|list| list.swap(0, 1)), MappingError::OutOfOrder { .. }));
    assert!(matches!(refused(|list| list[2].len -= 1), MappingError::Unaligned { .. }));
    assert!(matches!(refused(|list| list[0].len = 0), MappingError::Unaligned { .. }));
    assert!(matches!(refused(|list| list[7].len = 1 << 48), MappingError::OutsideVaSpace { .. }));
    assert!(matches!(refused(|list| list[0].va = Va(0)), MappingError::OutsideVaSpace { .. }));
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

/// Gaps, lengths and kinds of mappings.
fn specs() -> impl Strategy<Value = Vec<(u64, u64, u8, u8)>> {
    let count =
        |max: u64| prop_oneof![0..40u64, (0..max).prop_map(|n| n * 16), (0..4u64).prop_map(|n| n * 512)];
    prop::collection::vec((count(64), count(80).prop_map(|n| n + 1), 0..3u8, 0..3u8), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_flipped_bit_is_noticed_in_every_geometry(
        geometry in geometries(),
        specs in specs(),
        high in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..64u32), 64),
    ) {
        let granule = geometry.granule().bytes();
        let base = if high { u64::MAX << geometry.va_bits() } else { 0 };
        let (mut at, mut list) = (0, Vec::new());
        for (gap, len, leaves, attributes) in specs {
            at += gap * granule;
            list.push(Mapping {
                va: Va(base + at),
                // No memory twice: two tables that are equal would be as good as one another.
                pa: Pa(0x4000_0000 + at),
                len: len * granule,
                attributes: [
                    Attributes::KERNEL_DATA,
                    Attributes::KERNEL_RODATA,
                    Attributes { global: false, ..Attributes::KERNEL_TEXT },
                ][attributes as usize],
                leaves: [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks][leaves as usize],
            });
            at += len * granule;
        }
        let mut built = Built::new(geometry, Va(base), &list);
        let compared = built.verify().expect("a tree as it was built");
        let entries = built.entries();
        prop_assert_eq!(compared.entries, entries.len() as u64);
        let tables: BTreeSet<u64> = entries.iter().map(|at| at.1.0).collect();
        prop_assert_eq!(compared.tables, tables.len() as u64);
        for (at, bit) in flips {
            let at = *at.get(&entries);
            built.flip(at, 1 << bit);
            prop_assert!(built.verify().is_err(), "bit {} of {:?}", bit, at);
            built.flip(at, 1 << bit);
        }
    }
}

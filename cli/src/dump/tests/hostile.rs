//! Memory that leads anywhere.

use linmap_vmsa::{Attributes, Descriptor, Geometry, Granule, HardwareUpdates, Level, Pa, Regime, Stage2};
use proptest::prelude::*;

use super::machine::{Machine, RAM, geometries, root};

use crate::dump::judgement::{self, ReadTree};
use crate::dump::reading::Bounds;
use crate::dump::segments::Segments;
use crate::dump::summary::Summary;
use crate::dump::tree::Row;
use crate::dump::{diff, runs};

const G: Geometry = Geometry::K4_48;

#[test]
fn a_table_reached_through_every_entry_is_read_once() {
    // Four tables, each of which leads through all its entries to the next: 2^36 paths.
    let mut machine = Machine::new(5 << 12);
    for table in 0..4u64 {
        for index in 0..512 {
            let next = Pa(RAM + ((table + 1) << 12));
            let word = match table {
                3 => Descriptor::page(G, next, Attributes::KERNEL_DATA),
                _ => Descriptor::table(G, next),
            };
            machine.set(RAM + (table << 12) + 8 * index, word.0);
        }
    }
    let root = root(G, Pa(RAM));
    let tree = machine.read_tree(&root);
    assert_eq!(machine.reads, 4);
    // Pages of one frame don't fold; every other entry of the three upper tables does.
    assert_eq!(tree.rows.len(), 512 + 3);
    assert_eq!(tree.translate(0xffff_ffff_f123), Some(RAM + 0x4123));
    let summary = Summary::of(&root, &tree);
    assert_eq!((summary.mapped, summary.table_bytes), (1 << 48, 4 << 12));
    assert_eq!(tree.frames[&(RAM + 0x1000)].times, 512);
}

#[test]
fn a_self_map_is_named_and_read_at_each_level_once() {
    let mut machine = Machine::new(4 << 12);
    machine.set(RAM, Descriptor::table(G, Pa(RAM + 0x1000)).0);
    machine.set(RAM + 8 * 510, Descriptor::table(G, Pa(RAM)).0);
    machine.set(RAM + 0x1000, Descriptor::table(G, Pa(RAM + 0x2000)).0);
    machine.set(RAM + 0x2000, Descriptor::table(G, Pa(RAM + 0x3000)).0);
    machine.set(RAM + 0x3000, Descriptor::page(G, Pa(RAM), Attributes::KERNEL_DATA).0);
    let root = root(G, Pa(RAM));
    let found = machine.findings(std::slice::from_ref(&root));
    let cycle = found.iter().find(|(kind, _)| *kind == "table-cycle").unwrap();
    assert!(cycle.1.contains("entry 510 of table 0x40000000"), "{}", cycle.1);
    assert!(machine.reads <= 4 * 4, "{}", machine.reads);
    // The tables appear as pages, as a self-map wants it.
    let tree = machine.read_tree(&root);
    let self_map = 510 << 39 | 510 << 30 | 510 << 21 | 510 << 12;
    assert_eq!(tree.translate(self_map), Some(RAM));
    machine.set(RAM + 8 * 510, 0);
    assert!(!machine.findings(&[root]).iter().any(|(kind, _)| *kind == "table-cycle"));
}

#[test]
fn a_root_of_several_tables_may_be_led_to_as_well() {
    let g = Geometry::stage_2(Granule::K4, 40, 40, Stage2::Base).unwrap();
    assert_eq!((g.root_tables(), g.start_level()), (2, Level::L1));
    let mut machine = Machine::new(4 << 12);
    machine.set(RAM + 0x1000 + 8 * 5, Descriptor::table(g, Pa(RAM + 0x1000)).0);
    let root = root(g, Pa(RAM));
    let tree = machine.read_tree(&root);
    // As a table at level 2, and from there as one at level 3.
    assert_eq!(tree.flaws.counts, [0, 2, 0, 0]);
    let found = tree.flaws.held[0];
    assert!(format!("{found:x?}").contains("index: 205"), "{found:x?}");
}

#[test]
fn reading_ends_where_the_rows_end() {
    let mut machine = Machine::new(2 << 12);
    for index in 0..512 {
        machine
            .set(RAM + 8 * index, Descriptor::page(G, Pa(RAM + ((index * 7) << 12)), Attributes::DEVICE).0);
    }
    let g = Geometry::new(Granule::K4, 30, 48).unwrap();
    machine.set(RAM + 0x1000, Descriptor::table(g, Pa(RAM)).0);
    let root = root(g, Pa(RAM + 0x1000));
    let tree = machine.read_in(&root, Bounds { range: (0, u64::MAX), rows: 100 });
    assert_eq!((tree.rows.len(), tree.is_cut), (100, true));
}

/// Words as a table could hold them, most of them valid.
fn word() -> impl Strategy<Value = u64> {
    let bits = prop_oneof![Just(0u64), any::<u64>(), (0u64..16).prop_map(|software| software << 55)];
    let frame = prop_oneof![0u64..24, 0u64..24, any::<u64>()];
    (bits, frame, 0u64..4, 0u64..1 << 10).prop_map(|(bits, frame, kind, low)| {
        let frame = RAM + (frame << 12 & 0xffff_ffff_f000);
        let attributes = bits & 0xfff8_0000_0000_0000;
        match kind {
            0 => frame | attributes | 0b11,
            1 => frame | attributes | low << 2 | 0b11,
            2 => frame & !0x1f_ffff | attributes | low << 2 | 0b01,
            _ => bits,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_memory_is_read_in_bounds_and_judged(
        nth in 0..geometries().len(),
        words in prop::collection::vec(word(), 1..400),
        fill in prop::collection::vec((0u64..24, 0u64..512, 1u64..512, 0usize..400), 1..24),
        updates in 0..3,
    ) {
        let geometry = geometries()[nth];
        let frames = 24 * (geometry.granule().bytes() >> 12).min(16);
        let mut machine = Machine::new((frames as usize) << 12);
        for (frame, first, count, from) in fill {
            for index in first..(first + count).min(512) {
                let at = RAM + (frame << 12) + 8 * index;
                machine.set(at, words[(from + index as usize) % words.len()]);
            }
        }
        let align = geometry.granule().bytes() * geometry.root_tables() as u64;
        prop_assume!(align <= frames << 12);
        let mut root = root(geometry, Pa(RAM));
        root.updates = match updates {
            0 => HardwareUpdates::Off,
            1 => HardwareUpdates::Accessed,
            _ => HardwareUpdates::AccessedAndDirty,
        };
        let tree = machine.read_tree(&root);
        // Each frame once at each level below each combination of permissions.
        prop_assert!(machine.reads <= 1 + frames * 4 * 16, "{}", machine.reads);
        let ascending = tree.rows.windows(2).all(|pair| pair[0].va() < pair[1].va());
        prop_assert!(ascending);
        prop_assert!(Summary::of(&root, &tree).mapped <= 1 << geometry.va_bits());
        let segments = Segments::of(&root, &tree);
        prop_assert_eq!(segments.list.len(), runs::of(&tree).count());
        diff::diff(&segments, &segments, |change| Err(format!("{change:?}"))).unwrap();
        let trees = [ReadTree { root: root.clone(), tree: tree.clone() }, ReadTree { root, tree }];
        let found = judgement::findings(&trees, std::slice::from_ref(&(RAM..RAM + 0x4000)));
        for findings in found {
            prop_assert!(findings.total > 0, "{findings:?}");
            prop_assert!(findings.findings.len() <= 2 * 3 * 256);
        }
    }
}

#[test]
fn a_root_outside_memory_is_no_tree() {
    use crate::dump::frames::{Frames, Through};
    let mut machine = Machine::new(1 << 12);
    let bounds = Bounds { range: (0, u64::MAX), rows: 1 };
    let bar = indicatif::ProgressBar::hidden();
    for at in [0, RAM + 0x1000, RAM - 0x1000, 0xffff_ffff_f000] {
        let root = root(G.in_regime(Regime::El2), Pa(at));
        let read = super::super::reading::read(
            &root,
            &mut Frames::new(&mut machine),
            Through::Nothing,
            bounds,
            &bar,
        );
        assert!(read.unwrap().is_none());
    }
}

#[test]
fn a_row_of_a_shared_table_is_reached_through_each_entry() {
    let mut machine = Machine::new(4 << 12);
    let g = Geometry::new(Granule::K4, 30, 48).unwrap();
    for (index, table) in [(3, 1), (4, 1), (5, 2), (7, 1)] {
        machine.set(RAM + 8 * index, Descriptor::table(g, Pa(RAM + (table << 12))).0);
    }
    machine.set(RAM + 0x1000 + 8 * 9, Descriptor::page(g, Pa(RAM), Attributes::KERNEL_DATA).0);
    machine.set(RAM + 0x2000 + 8 * 9, Descriptor::page(g, Pa(RAM), Attributes::KERNEL_DATA).0);
    let root = root(g, Pa(RAM));
    let tree = machine.read_tree(&root);
    for (block, expected) in [(3, true), (4, true), (5, true), (6, false), (7, true)] {
        let found = tree.translate((block << 21) + 0x9abc);
        assert_eq!(found, expected.then_some(RAM + 0xabc), "{block}");
    }
    assert!(matches!(tree.rows[1], Row::Again { count: 1, table: 1, .. }), "{:?}", tree.rows);
    assert_eq!(Summary::of(&root, &tree).mapped, 4 << 12);
}

//! Trees with more ranges than a memory map has room for.

use std::cell::Cell;

use linmap_fdt::parse_dtb;
use linmap_memblock::{EarlyStorage, FdtError, Growth, Memblock, PA_LIMIT, RegionError};
use linmap_vmsa::{Pa, PaRange};

use crate::tree::{Map, Tree, range, string, wide};

const PAGE: u64 = 0x1000;
const MIB: u64 = 1 << 20;

fn reach(storage: PaRange) -> Option<&'static mut [PaRange]> {
    Some(vec![range(0x123, 0x456); storage.len() as usize / size_of::<PaRange>()].leak())
}

/// Fills a map of 32 ranges a list. Returns it with the storage that was asked for.
fn fill<'a>(dtb: &'a [u8], in_use: &[PaRange]) -> Result<(Box<Map>, Option<PaRange>), FdtError<'a>> {
    let (mut map, asked) = (Box::new(Map::new()), Cell::new(None));
    let reach = |storage| {
        asked.set(Some(storage));
        reach(storage)
    };
    let early = EarlyStorage { in_use, align: 4 * PAGE, reach };
    map.fill_from_fdt_of_any_length(parse_dtb(dtb).unwrap(), early)?;
    assert_eq!(map.storage(), asked.get());
    Ok((map, asked.get()))
}

/// `count` regions of a page each, two pages apart, in descending order, and one of 2 MiB at 1 GiB.
fn many(count: u64) -> Tree {
    let regions = (0..count).rev().flat_map(|nth| [(8 << 30) + nth * 3 * PAGE, PAGE]);
    Tree::new(2, 2, &[(0x4000_0000, 16 * PAGE)])
        .memory("memory@200000000", wide(&regions.collect::<Vec<_>>()))
        .memory("memory@40000000", wide(&[0x4000_0000, 2 * MIB]))
}

#[test]
fn any_number_of_regions_is_read_into_memory_that_nothing_else_has() {
    let dtb = many(1500)
        .reserved_memory(&[(
            "firmware@40010000",
            &[("reg", wide(&[0x4001_0000, 0x1800])), ("no-map", vec![])],
        )])
        .node(
            "chosen",
            &[
                ("linux,initrd-start", wide(&[0x4001_4000])),
                ("linux,initrd-end", wide(&[0x4001_8001])),
                ("linux,elfcorehdr", wide(&[0x4002_0000, 0x100])),
            ],
        )
        .blob();
    let image = range(0x4004_0000, 0x8000);
    let (map, storage) = fill(&dtb, &[image]).unwrap();
    let storage = storage.unwrap();
    // Below the image, there is no room between what the tree reserves.
    assert_eq!(storage.start, image.end);
    assert!(map.is_reserved(storage.start) && storage.end.0.is_multiple_of(4 * PAGE));
    assert_eq!(map.regions().count(), 1500 + 3);
    assert_eq!(map.memory_len(), 1500 * PAGE + 2 * MIB);
    // There is room for an allocation in each.
    let mut map = map;
    for _ in 0..1500 {
        let place = map.alloc(PAGE, PAGE, range(8 << 30, 1 << 30)).unwrap();
        assert!(place >= Pa(8 << 30));
    }
    assert_eq!(map.reserved().len(), 1500 + 4);
}

#[test]
fn the_order_of_reservations_and_a_crash_kernels_memory_are_respected() {
    let node = |nth: u64| (format!("firmware@{nth}"), wide(&[0x4000_0000 + nth * 8 * PAGE, PAGE]));
    let nodes: Vec<_> = (0..200).rev().map(node).collect();
    let properties: Vec<_> = nodes.iter().map(|(_, reg)| [("reg", reg.clone())]).collect();
    let children: Vec<_> =
        nodes.iter().zip(&properties).map(|((name, _), reg)| (name.as_str(), reg.as_slice())).collect();
    let tree = |usable: &[u64]| {
        Tree::new(2, 2, &[])
            .node(
                "memory@0",
                &[
                    ("device_type", string("memory")),
                    ("reg", wide(&[0x4000_0000, 64 * MIB, 0, 0, 0x4000_0000, MIB])),
                ],
            )
            .reserved_memory(&children)
            .node("chosen", &[("linux,usable-memory-range", wide(usable))])
            .blob()
    };
    let dtb = tree(&[]);
    let (map, storage) = fill(&dtb, &[]).unwrap();
    assert_eq!(storage.unwrap().start, Pa(0x4000_0000 + (199 * 8 + 4) * PAGE));
    assert_eq!(map.reserved().len(), 201);
    let dtb = tree(&[0x4100_0000, 16 * MIB]);
    let (map, storage) = fill(&dtb, &[]).unwrap();
    assert_eq!(storage.unwrap().start, Pa(0x4100_0000));
    assert_eq!(map.memory_len(), 16 * MIB);
}

#[test]
fn the_storage_lies_as_near_to_the_image_as_there_is_room() {
    let dtb = Tree::new(2, 2, &[(0x7ff0_0000, 15 * MIB)])
        .memory("memory@40000000", wide(&[0x4000_0000, 1024 * MIB, 8 << 30, 1024 * MIB]))
        .memory(
            "memory@400000000",
            wide(&(0..200).flat_map(|nth| [(16 << 30) + nth * 8 * PAGE, PAGE]).collect::<Vec<_>>()),
        )
        .blob();
    let near = |image: PaRange| fill(&dtb, &[image]).unwrap().1.unwrap();
    let low = range(0x5000_0000, 2 * MIB);
    assert!([low.end, Pa(low.start.0 - near(low).len())].contains(&near(low).start));
    // Right above it the tree has reserved memory, and then there is none.
    let last = range(0x7fe0_0000, MIB);
    assert_eq!(near(last).end, last.start);
    let high = range((9 << 30) - 2 * MIB, 2 * MIB);
    assert_eq!(near(high).end, high.start);
}

#[test]
fn a_tree_that_fits_asks_for_no_storage() {
    let dtb = many(20).blob();
    assert_eq!(fill(&dtb, &[]).unwrap().1, None);
}

#[test]
fn no_memory_for_longer_lists_is_an_error_that_names_the_range_without_room() {
    let dtb = many(33).blob();
    let node = "memory@200000000";
    let first_without = range(8 << 30, PAGE);
    let bytes = (35 * 4 + 64) * 48_u64;
    let source = RegionError::NoStorage {
        list: "memory",
        range: first_without,
        capacity: 32,
        bytes: bytes.next_multiple_of(4 * PAGE),
        limit: PaRange::new(Pa(0), PA_LIMIT),
    };
    let none = FdtError::Regions { node, source };
    assert_eq!(fill(&dtb, &[range(0x4000_0000, 2 * MIB)]).unwrap_err(), none);
    let mut map = Map::new();
    let early = EarlyStorage { in_use: &[], align: 4 * PAGE, reach: |_| None };
    let error = map.fill_from_fdt_of_any_length(parse_dtb(&dtb).unwrap(), early).unwrap_err();
    assert_eq!(error, none);
    assert_eq!(map, Map::new());
}

#[test]
fn lists_move_to_another_address_of_the_same_memory_and_grow_there() {
    let dtb = many(1500).blob();
    let (mut map, storage) = fill(&dtb, &[]).unwrap();
    let before: Vec<_> = map.regions().collect();
    let growth = Growth { limit: range(0x4000_0000, 2 * MIB), reach };
    let none = Growth { reach: |_| None, ..growth };
    assert!(matches!(map.move_lists(none), Err(RegionError::NoStorage { .. })));
    map.move_lists(growth).unwrap();
    assert_eq!((map.storage(), map.regions().collect::<Vec<_>>()), (storage, before));
    for nth in 0..20_000 {
        map.mark_no_map(range((16 << 30) + nth * 2 * PAGE, PAGE)).unwrap();
    }
    assert_ne!(map.storage(), storage);
}

#[test]
fn a_map_in_lent_room_has_the_capacity_of_the_room() {
    let mut map = Memblock::<4>::new_in(reach(range(0, 30 * 16)).unwrap());
    for nth in 0..10 {
        map.add(range(nth * 2 * PAGE, PAGE)).unwrap();
        map.reserve(range(nth * 2 * PAGE, PAGE)).unwrap();
    }
    let full = RegionError::Full { list: "memory", range: range(MIB, PAGE), capacity: 10 };
    assert_eq!(map.add(range(MIB, PAGE)), Err(full));
}

//! Lists that grow: beyond the capacity of the memory map, into memory of its own.

use linmap_memblock::{Growth, Memblock, PA_LIMIT, RegionError};
use linmap_vmsa::{Pa, PaRange};

const GIB: u64 = 1 << 30;
const PAGE: u64 = 0x1000;
const LIMIT: PaRange = PaRange::new(Pa(GIB), Pa(2 * GIB));

fn reach(range: PaRange) -> Option<&'static mut [PaRange]> {
    let len = range.len() as usize / size_of::<PaRange>();
    Some(Box::leak(vec![PaRange::default(); len].into_boxed_slice()))
}

fn range(start: u64, len: u64) -> PaRange {
    PaRange::from_len(Pa(start), len).unwrap()
}

/// Regions of a page each, far apart, above one of a gigabyte.
fn small(nth: u64) -> PaRange {
    range(4 * GIB + nth * 16 * PAGE, PAGE)
}

fn map() -> Box<Memblock<1024>> {
    let mut map = Box::new(Memblock::new());
    map.add(LIMIT).unwrap();
    map
}

#[test]
fn the_1025th_region_finds_room_in_memory_of_the_map_itself() {
    let mut map = map();
    map.allow_growth(Growth { limit: LIMIT, reach });
    for nth in 0..5000 {
        map.add(small(nth)).unwrap();
        map.mark_no_map(range(small(nth).start.0 + PAGE, PAGE)).unwrap();
        map.reserve(range(small(nth).start.0 + 4 * PAGE, PAGE)).unwrap();
    }
    assert_eq!(map.regions().count(), 5001);
    let storage = map.storage().unwrap();
    assert!(LIMIT.covers(storage) && map.is_reserved(storage.start));
    assert_eq!(map.reserved().len(), 5001, "only the last storage is reserved");
    assert_eq!(map.free(storage), Err(RegionError::HoldsLists { range: storage, storage }));
    assert_eq!(map.remove(LIMIT), Err(RegionError::HoldsLists { range: LIMIT, storage }));
    let frame = map.alloc(PAGE, PAGE, LIMIT).unwrap();
    assert!(!storage.contains(frame));
}

#[test]
fn no_memory_for_the_1025th_region_is_an_error_that_says_what_is_missing() {
    let mut map = map();
    for nth in 0..1023 {
        map.add(small(nth)).unwrap();
    }
    let range = small(1023);
    let full = RegionError::Full { list: "memory", range, capacity: 1024 };
    assert_eq!(map.add(range), Err(full));
    map.reserve(LIMIT).unwrap();
    let before = map.copy().unwrap();
    let bytes = 3 * 2048 * 16;
    let none = RegionError::NoStorage { list: "memory", range, capacity: 1024, bytes, limit: LIMIT };
    map.allow_growth(Growth { limit: LIMIT, reach });
    assert_eq!(map.add(range), Err(none));
    map.free(LIMIT).unwrap();
    map.allow_growth(Growth { limit: LIMIT, reach: |_| None });
    assert_eq!(map.add(range), Err(none), "free, but out of reach");
    map.allow_growth(Growth { limit: LIMIT, reach: |_| Some(&mut []) });
    assert_eq!(map.add(range), Err(none), "too short");
    map.reserve(LIMIT).unwrap();
    assert_eq!(*map, before);
    assert_eq!(
        none.to_string(),
        "no room for 0x1003ff0000..0x1003ff1000: all 1024 ranges of the memory list are in use, and no \
         0x18000 bytes inside 0x40000000..0x80000000 are free and in reach for a longer one"
            .replace("0x1003ff0000..0x1003ff1000", &range.to_string())
    );
}

#[test]
fn a_copy_restores_what_was_allocated_since_although_the_lists_have_grown() {
    let mut map = Memblock::<4>::new();
    map.add(LIMIT).unwrap();
    map.allow_growth(Growth { limit: LIMIT, reach });
    let before = map.copy().unwrap();
    for nth in 0..100 {
        map.reserve(small(nth)).unwrap();
    }
    assert!(map.copy().is_err(), "101 ranges do not fit into 4");
    map.restore(&before);
    assert_eq!(map.reserved(), [map.storage().unwrap()]);
    let before = map.copy().unwrap();
    for nth in 0..1000 {
        map.reserve(small(nth)).unwrap();
    }
    map.restore(&before);
    assert_eq!(map.reserved(), [map.storage().unwrap()]);
    assert_eq!(map.memory_len(), GIB);
}

#[test]
fn allocations_go_on_through_the_growth_of_their_own_list() {
    let mut map = Memblock::<2>::new();
    map.add(range(GIB, GIB)).unwrap();
    map.allow_growth(Growth { limit: PaRange::new(Pa(0), PA_LIMIT), reach });
    let mut seen = Vec::new();
    // Every other page stays free, so that each is a range of its own.
    for _ in 0..500 {
        let pair = map.alloc(2 * PAGE, PAGE, LIMIT).unwrap();
        map.free(range(pair.0 + PAGE, PAGE)).unwrap();
        seen.push(pair);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 500);
    assert!(seen.iter().all(|pa| map.is_reserved(*pa) && !map.storage().unwrap().contains(*pa)));
}

#[test]
fn an_emptied_map_has_its_first_capacity_and_grows_no_more() {
    let mut map = Memblock::<2>::new();
    map.add(range(GIB, GIB)).unwrap();
    map.allow_growth(Growth { limit: LIMIT, reach });
    for nth in 0..10 {
        map.add(small(nth)).unwrap();
    }
    map.clear();
    assert_eq!((map.storage(), map.memory_len(), map.reserved()), (None, 0, [].as_slice()));
    for nth in 0..2 {
        map.add(small(nth)).unwrap();
    }
    let full = RegionError::Full { list: "memory", range: small(2), capacity: 2 };
    assert_eq!(map.add(small(2)), Err(full));
}

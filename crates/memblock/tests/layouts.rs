//! Memory layouts of real boards, and the edges of the address space.

use linmap_memblock::{AllocError, Memblock, MemoryRegion, PA_LIMIT, RegionError};
use linmap_vmsa::{Pa, PaRange};

const ANYWHERE: PaRange = PaRange::new(Pa(0), PA_LIMIT);

/// Base and length of each region.
const HIKEY: &[(u64, u64)] = &[
    (0, 0x05e0_0000),
    (0x05f0_0000, 0x1000),
    (0x05f0_2000, 0x00ef_d000),
    (0x06e0_0000, 0x0060_f000),
    (0x0741_0000, 0x1aaf_0000),
    (0x2200_0000, 0x1c00_0000),
];
const RTD1861B: &[(u64, u64)] = &[
    (0x0005_0000, 0x7ffb_0000),
    (0x8a10_0000, 0x0def_0000),
    (0x9870_0000, 0x0790_0000),
    (0xa060_0000, 0x5ea0_0000),
    (0x1_0000_0000, 0xa000_0000),
    (0x1_a060_0000, 0x5fa0_0000),
];
const EXYNOS990: &[(u64, u64)] = &[
    (0x8000_0000, 0x3ab0_0000),
    (0xc120_0000, 0x1ee0_0000),
    (0xe190_0000, 0x1e70_0000),
    (0x8_8000_0000, 0x1_7ec0_0000),
];
const VERSAL: &[(u64, u64)] = &[(0, 0x8000_0000), (0x8_0000_0000, 0x1_8000_0000)];

fn range((base, len): (u64, u64)) -> PaRange {
    PaRange::from_len(Pa(base), len).unwrap()
}

fn board(layout: &[(u64, u64)]) -> Memblock<32> {
    let mut map = Memblock::new();
    // The order in which firmware lists regions does not matter.
    for &region in layout.iter().rev() {
        map.add(range(region)).unwrap();
    }
    map
}

#[test]
fn real_boards_keep_every_region_and_every_byte() {
    for layout in [HIKEY, RTD1861B, EXYNOS990, VERSAL] {
        let map = board(layout);
        let regions: Vec<_> = map.regions().collect();
        let wanted: Vec<_> =
            layout.iter().map(|&region| MemoryRegion { range: range(region), no_map: false }).collect();
        assert_eq!(regions, wanted);
        assert_eq!(map.memory_len(), layout.iter().map(|(_, len)| len).sum::<u64>());
        assert_eq!(map.memory_end(), range(*layout.last().unwrap()).end);
    }
}

#[test]
fn a_board_is_handed_out_to_the_last_frame_and_is_whole_again_after_giving_back() {
    for frame in [0x1000, 0x4000, 0x1_0000] {
        let mut map = board(HIKEY);
        let before = map.copy().unwrap();
        let mut taken = Vec::new();
        let mut lowest = map.memory_end();
        let error = loop {
            match map.alloc(frame, frame, ANYWHERE) {
                Ok(start) => {
                    assert!(start < lowest, "frames come from the top downwards");
                    lowest = start;
                    taken.push(start);
                }
                Err(error) => break error,
            }
        };
        // Whole aligned frames in each region; the page at 0 is not among them.
        let first = |base: u64| base.max(0x1000).next_multiple_of(frame);
        let frames = |&(base, len): &(u64, u64)| (base + len).saturating_sub(first(base)) / frame;
        assert_eq!(taken.len() as u64, HIKEY.iter().map(frames).sum::<u64>());
        assert!(matches!(error, AllocError::NoSpace { largest, .. } if largest < 2 * frame));
        if frame == 0x1000 {
            assert_eq!(map.free_ranges(ANYWHERE).collect::<Vec<_>>(), [range((0, 0x1000))]);
            assert!(taken.contains(&Pa(0x05f0_0000)), "the region of one page is used");
        }
        for &start in taken.iter().rev() {
            map.free(range((start.0, frame))).unwrap();
        }
        assert_eq!(map, before);
    }
}

#[test]
fn allocations_stay_inside_the_limit_and_take_the_highest_place() {
    let mut map = board(VERSAL);
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(0x9_7fff_f000)));
    let low = PaRange::new(Pa(0), Pa(0x7000_0001));
    assert_eq!(map.alloc(0x4000, 0x4000, low), Ok(Pa(0x6fff_c000)));
    assert_eq!(map.alloc(0x4000, 0x4000, low), Ok(Pa(0x6fff_8000)));
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(0x9_7fff_e000)));
    assert_eq!(
        map.alloc(0x1_0000_0000, 0x1000, low),
        Err(AllocError::NoSpace {
            len: 0x1_0000_0000,
            align: 0x1000,
            limit: low,
            largest: 0x6fff_8000 - 0x1000
        })
    );
}

#[test]
fn a_frame_given_back_above_the_last_one_is_taken_next() {
    let mut map = board(VERSAL);
    let first = map.alloc(0x1000, 0x1000, ANYWHERE).unwrap();
    let second = map.alloc(0x1000, 0x1000, ANYWHERE).unwrap();
    let third = map.alloc(0x1000, 0x1000, ANYWHERE).unwrap();
    map.free(range((first.0, 0x1000))).unwrap();
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(first));
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(third.0 - 0x1000)));
    assert!(map.is_reserved(second));
}

#[test]
fn a_reservation_made_between_two_requests_is_respected() {
    let mut map = board(VERSAL);
    let first = map.alloc(0x1000, 0x1000, ANYWHERE).unwrap();
    map.reserve(range((first.0 - 0x3000, 0x2000))).unwrap();
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(first.0 - 0x1000)));
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(first.0 - 0x4000)));
    map.mark_no_map(range((first.0 - 0x5000, 0x1000))).unwrap();
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(first.0 - 0x6000)));
    map.remove(range((first.0 - 0x7000, 0x1000))).unwrap();
    assert_eq!(map.alloc(0x1000, 0x1000, ANYWHERE), Ok(Pa(first.0 - 0x8000)));
}

#[test]
fn memory_that_is_only_page_0_hands_out_nothing() {
    let mut map = Memblock::<4>::new();
    map.add(range((0, 0x1000))).unwrap();
    assert_eq!(
        map.alloc(0x1000, 0x1000, ANYWHERE),
        Err(AllocError::NoSpace { len: 0x1000, align: 0x1000, limit: ANYWHERE, largest: 0 })
    );
    assert_eq!(map.mappable(0x1000).collect::<Vec<_>>(), [range((0, 0x1000))]);
}

#[test]
fn the_last_page_below_the_address_limit_is_usable_and_nothing_above_it() {
    let mut map = Memblock::<4>::new();
    let last = PaRange::new(Pa(PA_LIMIT.0 - 0x1000), PA_LIMIT);
    map.add(last).unwrap();
    let everything = PaRange::new(Pa(0), Pa(u64::MAX));
    assert_eq!(map.alloc(0x1000, 0x1000, everything), Ok(last.start));
    let above = PaRange::new(Pa(0), Pa(PA_LIMIT.0 + 1));
    let refused = Err(RegionError::AbovePaLimit { range: above });
    let before = map.copy().unwrap();
    assert_eq!(map.add(above), refused);
    assert_eq!(map.mark_no_map(above), refused);
    assert_eq!(map.reserve(above), refused);
    assert_eq!(map, before);
}

#[test]
fn senseless_requests_are_refused() {
    let mut map = board(HIKEY);
    for (len, align) in [(0, 0x1000), (0x1000, 0), (0x1000, 0x3000), (0, 0)] {
        assert_eq!(map.alloc(len, align, ANYWHERE), Err(AllocError::Invalid { len, align }));
    }
    assert!(matches!(map.alloc(u64::MAX, 1 << 63, ANYWHERE), Err(AllocError::NoSpace { .. })));
}

#[test]
fn freeing_twice_is_an_error_that_names_the_first_free_byte() {
    let mut map = board(HIKEY);
    let start = map.alloc(0x4000, 0x1000, ANYWHERE).unwrap();
    map.free(range((start.0 + 0x1000, 0x1000))).unwrap();
    let before = map.copy().unwrap();
    let all = range((start.0, 0x4000));
    assert_eq!(map.free(all), Err(RegionError::NotReserved { range: all, first_free: Pa(start.0 + 0x1000) }));
    assert_eq!(map, before);
}

#[test]
fn empty_ranges_change_nothing() {
    let mut map = board(HIKEY);
    let before = map.copy().unwrap();
    let empty = range((0x0010_0000, 0));
    map.add(empty).unwrap();
    map.remove(empty).unwrap();
    map.mark_no_map(empty).unwrap();
    map.reserve(empty).unwrap();
    map.free(empty).unwrap();
    assert_eq!(map, before);
}

#[test]
fn errors_have_the_range_and_the_limit() {
    let mut map = Memblock::<1>::new();
    map.add(range((0x4000_0000, 0x1000_0000))).unwrap();
    let other = range((0x8000_0000, 0x1000));
    let full = RegionError::Full { list: "memory", range: other, capacity: 1 };
    assert_eq!(map.add(other), Err(full));
    let not_reserved = range((0x4000_0000, 0x1000));
    let first_free = Pa(0x4000_0000);
    assert_eq!(map.free(not_reserved), Err(RegionError::NotReserved { range: not_reserved, first_free }));
    let (len, align, largest) = (0x2000_0000, 0x1000, 0x1000_0000);
    assert_eq!(
        map.alloc(len, align, ANYWHERE),
        Err(AllocError::NoSpace { len, align, limit: ANYWHERE, largest })
    );
}

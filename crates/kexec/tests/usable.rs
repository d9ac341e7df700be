//! Whatever memory is like, a payload is placed on nothing that outlives the running kernel or that
//! the hand-over needs.

use linmap_kexec::{Image, Initrd, PayloadPlacement, PlacementFlag, fill_with_usable};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;

const PAGE: u64 = 0x1000;
const MIB: u64 = 0x10_0000;
const EVERYWHERE: PaRange = PaRange::new(Pa(0), Pa(u64::MAX));

fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}

/// The pages that a part of a payload writes to.
fn pages(range: PaRange) -> PaRange {
    range.align_outward(PAGE).unwrap()
}

/// A range near the start of memory: most often short.
fn taken() -> impl Strategy<Value = (u64, u64)> {
    (0..96 * MIB, prop_oneof![4 => 1..3 * PAGE, 1 => 1..8 * MIB])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_destination_is_no_map_firmware_kept_or_control(
        // Gap before it and its length; ends anywhere.
        memory in prop::collection::vec((1..8 * MIB, 1..80 * MIB), 1..5),
        no_map in prop::collection::vec(taken(), 0..4),
        firmware in prop::collection::vec(taken(), 0..4),
        preserved in prop::collection::vec((0..96 * MIB / PAGE, 1..64u64), 0..3),
        control in 0..96 * MIB / PAGE,
        image_size in 1..24 * MIB,
        old in any::<bool>(),
        initrd in prop::option::of(1..16 * MIB),
        stays in prop::option::of(0..64 * MIB),
        dtb_len in 1..2 * MIB,
    ) {
        let mut memblock = Memblock::<64>::new();
        let mut end = 0x4000_0000;
        for (gap, len) in memory {
            memblock.add(range(end + gap, len)).unwrap();
            end += gap + len;
        }
        let there = |&(start, len): &(u64, u64)| range(0x4000_0000 + start, len);
        let no_map: Vec<PaRange> = no_map.iter().map(there).collect();
        for range in &no_map {
            memblock.mark_no_map(*range).unwrap();
        }
        // What the running kernel uses says nothing.
        memblock.reserve(range(0x4000_0000, 40 * MIB)).unwrap();
        let mut not: Vec<PaRange> = firmware.iter().map(there).collect();
        not.extend(preserved.iter().map(|&(page, pages)| there(&(page * PAGE, pages * PAGE))));
        not.push(there(&(control * PAGE, 2 * PAGE)));
        let mut usable = Memblock::new();
        fill_with_usable(&mut usable, &memblock, not.iter().copied()).unwrap();
        let free: Vec<PaRange> = usable.free_ranges(EVERYWHERE).collect();

        let placement = if old { PlacementFlag::NearDramBase } else { PlacementFlag::Anywhere };
        let text_offset = if old { 0x8_0000 } else { 0 };
        let image = Image { text_offset, image_size, page_size: None, placement };
        let initrd = match (initrd, stays) {
            (Some(len), Some(at)) => Initrd::At(range(0x4000_0000 + at, len)),
            (Some(len), None) => Initrd::Len(len),
            (None, _) => Initrd::Absent,
        };
        let Ok(placed) = PayloadPlacement::lowest(free.iter().copied(), &image, initrd, dtb_len) else {
            return Ok(());
        };
        let moved = placed.initrd.filter(|_| matches!(initrd, Initrd::Len(_)));
        for part in [Some(placed.image), moved, Some(placed.dtb)].into_iter().flatten().map(pages) {
            let is_mapped = memblock.mappable(PAGE).any(|mapped| mapped.covers(part));
            prop_assert!(is_mapped, "{part} is not mapped memory");
            let hit = no_map.iter().chain(&not).find(|range| range.overlaps(part));
            prop_assert!(hit.is_none(), "{part} overlaps {}", hit.unwrap());
        }
        let parts = [Some(placed.image), placed.initrd, Some(placed.dtb)];
        let parts: Vec<PaRange> = parts.into_iter().flatten().map(pages).collect();
        for (nth, part) in parts.iter().enumerate() {
            prop_assert!(!parts[..nth].iter().any(|other| other.overlaps(*part)), "{parts:?} overlap");
        }
    }
}

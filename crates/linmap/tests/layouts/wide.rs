//! Memory of petabytes, and memory above 48 bits.

use linmap::{Builder, ImageParts, MappingLists};
use linmap_table::Leaves;
use linmap_vmsa::{Geometry, Granule, Pa, PaRange};

use crate::rules::build::{Built, Outcome, Wanted, build};
use crate::rules::host::Host;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const PIB: u64 = 1 << 50;

/// Maps `memory` by each builder and by blocks with and without runs, and returns what each built.
fn built(granule: Granule, va_bits: u8, memory: &[PaRange], builders: &[Builder]) -> Vec<Option<Built>> {
    let geometry = Geometry::new(granule, va_bits, 52).expect("a shape that there is");
    let (mut host, mut lists) = (Host::new(), Box::new(MappingLists::new()));
    let mut all = Vec::new();
    for &builder in builders {
        for leaves in [Leaves::Blocks, Leaves::ContiguousBlocks] {
            let image = ImageParts::default();
            let wanted = Wanted { geometry, leaves, builder, memory, image, pages: &[] };
            all.push(match build(&wanted, &mut host, &mut lists) {
                Ok(Outcome::Built(built)) => Some(built),
                Ok(Outcome::TooWide) => None,
                Err(error) => panic!("{error}\n{wanted:x?}"),
            });
        }
    }
    all
}

/// Ranges that follow each other, each after a gap: gaps and lengths in bytes.
fn ranges(start: u64, parts: &[(u64, u64)]) -> Vec<PaRange> {
    let mut next = start;
    let range = |&(gap, len): &(u64, u64)| {
        let start = next + gap;
        next = start + len;
        PaRange::new(Pa(start), Pa(next))
    };
    parts.iter().map(range).collect()
}

#[test]
fn three_pebibytes_are_mapped_by_blocks_in_52_bits() {
    // Blocks of 512 GiB, 64 GiB and 4 TiB.
    for (granule, blocks) in [(Granule::K4, 6144), (Granule::K16, 49_152), (Granule::K64, 768)] {
        let page = granule.bytes();
        let memory = ranges(128 * TIB, &[(0, PIB), (4 * TIB, PIB), (page, PIB - 4 * TIB), (page, 4 * TIB)]);
        for built in built(granule, 52, &memory, &Builder::ALL) {
            let built = built.expect("it is in reach");
            assert_eq!(built.bytes, 3 * PIB);
            // At most two blocks of each gap are split.
            assert!(built.leaves.blocks > blocks - 4 && built.table_bytes < 1 << 20, "{built:?}");
        }
    }
}

#[test]
fn sparse_memory_all_over_the_linear_region_of_52_bits_takes_few_tables() {
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        let page = granule.bytes();
        let parts: Vec<_> = (0..55).map(|nth| (64 * TIB - GIB, GIB + (nth & 1) * page)).collect();
        let memory = ranges(GIB, &parts);
        for built in built(granule, 52, &memory, &Builder::ALL) {
            let built = built.expect("it is in reach");
            assert_eq!(built.bytes, memory.iter().map(|range| range.len()).sum::<u64>());
            assert!(built.table_bytes <= 55 * 6 * page, "{built:?}");
        }
    }
}

#[test]
fn memory_that_begins_above_48_bits_is_built_through_a_1_to_1_map_that_reaches_it() {
    for (granule, va_bits) in [(Granule::K4, 48), (Granule::K4, 39), (Granule::K16, 47), (Granule::K16, 52)] {
        let page = granule.bytes();
        for start in [1 << 48, (1 << 49) - GIB, (1 << 51) + 5 * GIB, (1 << 52) - 64 * GIB] {
            let memory = ranges(start, &[(page, 2 * GIB), (GIB, 30 * GIB), (page, 27 * GIB)]);
            for built in built(granule, va_bits, &memory, &[Builder::Identity]) {
                assert_eq!(
                    built.map(|built| built.bytes),
                    Some(59 * GIB),
                    "{granule:?} {va_bits} {start:#x}"
                );
            }
        }
    }
}

#[test]
fn the_64k_granule_has_a_1_to_1_map_above_48_bits_only_with_the_va_size_for_it() {
    let memory = ranges(1 << 48, &[(0x1_0000, 32 * GIB)]);
    let builders = [Builder::Identity];
    assert!(built(Granule::K64, 52, &memory, &builders).iter().all(Option::is_some));
    assert!(built(Granule::K64, 48, &memory, &builders).iter().all(Option::is_none));
    // A builder without a 1:1 map does not need it.
    assert!(built(Granule::K64, 48, &memory, &Builder::ALL[..5]).iter().all(Option::is_some));
}

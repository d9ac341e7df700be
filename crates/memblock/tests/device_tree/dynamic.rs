//! Nodes of `/reserved-memory` that ask for memory.

use linmap_fdt::parse_dtb;
use linmap_memblock::{AllocError, DynamicError, DynamicReservation};
use linmap_vmsa::{Pa, PaRange};

use crate::tree::{Map, Property, Tree, cells, range, string, wide};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 0x1000;

/// What becomes of the nodes in a gigabyte at 1 GiB and one at 8 GiB.
fn placed(
    children: &[(&str, &[Property])],
    see: impl FnOnce(&Map, Vec<Result<DynamicReservation, DynamicError>>),
) {
    let tree = Tree::new(2, 2, &[]);
    let dtb = tree
        .memory("memory@40000000", wide(&[0x4000_0000, 1024 * MIB, 8 << 30, 1024 * MIB]))
        .reserved_memory(children)
        .blob();
    let mut map = Map::new();
    let fdt = parse_dtb(&dtb).unwrap();
    map.fill_from_fdt(fdt).unwrap();
    let mut all = Vec::new();
    map.place_dynamic(fdt, PAGE, &mut |result| all.push(result));
    see(&map, all);
}

#[test]
fn a_node_gets_the_highest_memory_that_it_may_have() {
    let no_map = ("no-map", vec![]);
    placed(
        &[
            ("fixed@7ff00000", &[("reg", wide(&[0x7ff0_0000, MIB]))]),
            ("cma", &[("size", wide(&[64 * MIB])), ("reusable", vec![])]),
            (
                "low",
                &[
                    ("size", cells(&[0x1001])),
                    ("alignment", wide(&[2 * MIB])),
                    ("alloc-ranges", wide(&[0x4000_0000, 1024 * MIB])),
                    no_map.clone(),
                ],
            ),
            ("second", &[("size", wide(&[PAGE])), ("alloc-ranges", wide(&[0, PAGE, 0x4000_0000, 16 * MIB]))]),
            ("off", &[("size", wide(&[MIB])), ("status", string("disabled"))]),
        ],
        |map, all| {
            let node =
                |node, range, no_map, reusable| Ok(DynamicReservation { node, range, no_map, reusable });
            let low = range(0x7fe0_0000, 2 * PAGE);
            assert_eq!(
                all,
                [
                    node("cma", range((9 << 30) - 64 * MIB, 64 * MIB), false, true),
                    node("low", low, true, false),
                    node("second", range(0x4100_0000 - PAGE, PAGE), false, false),
                ]
            );
            assert!(map.is_no_map(low.start) && !map.is_reserved(low.start));
            assert!(map.is_reserved(Pa((9 << 30) - 1)));
            assert_eq!(map.mappable(PAGE).map(PaRange::len).sum::<u64>(), 2048 * MIB - 2 * PAGE);
        },
    );
}

#[test]
fn a_node_that_can_not_be_served_is_named_and_the_others_are() {
    let size = ("size", wide(&[MIB]));
    placed(
        &[
            ("huge", &[("size", wide(&[4096 * MIB]))]),
            ("nothing", &[("size", wide(&[0]))]),
            ("endless", &[("size", wide(&[u64::MAX]))]),
            ("short", &[("size", vec![1, 2, 3])]),
            ("odd", &[size.clone(), ("alignment", wide(&[3 * MIB]))]),
            ("half", &[size.clone(), ("alloc-ranges", wide(&[0x4000_0000]))]),
            ("nowhere", &[size.clone(), ("alloc-ranges", vec![])]),
            ("elsewhere", &[size.clone(), ("alloc-ranges", wide(&[u64::MAX, u64::MAX]))]),
            ("fits", &[size]),
        ],
        |map, all| {
            let text: Vec<_> = all
                .iter()
                .map(|node| node.map_or_else(|error| error.to_string(), |node| node.range.to_string()))
                .collect();
            let says = [
                "node huge: no 0x100000000 free bytes",
                "node nothing: size is not a size of memory",
                "node endless: size is not",
                "node short: size is not",
                "node odd: alignment is not a power of two",
                "alloc-ranges of node half has 8 bytes, not a multiple of 16",
                "node nowhere: no 0x100000 free bytes",
                "node elsewhere: no 0x100000 free bytes",
                "0x23ff00000..0x240000000",
            ];
            assert_eq!(text.len(), says.len());
            for (text, says) in text.iter().zip(says) {
                assert!(text.contains(says), "{text:?} does not say {says:?}");
            }
            assert!(matches!(
                all[0],
                Err(DynamicError::Memory { node: "huge", source: AllocError::NoSpace { .. } })
            ));
            assert_eq!(map.reserved().len(), 1);
        },
    );
}

//! The next kernel finds the memory that a kernel preserves, and does not use it.

use crate::tree::{Node, Property, memory, reserved_memory, root, wide};
use linmap_fdt::{Fdt, parse_dtb};
use linmap_kexec::{MAX_PRESERVED, NextTree, PreservedError, PreservedRange, SpinTable};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;

pub type Memory = Memblock<64>;

const PRESERVED: [PreservedRange<'static>; 3] = [
    PreservedRange { label: "pages of the guest", range: PaRange::new(Pa(0x9000_0000), Pa(0x9400_0000)) },
    PreservedRange { label: "log", range: PaRange::new(Pa(0x8900_1000), Pa(0x8900_2000)) },
    // They touch: the memory map has them as one range.
    PreservedRange { label: "log", range: PaRange::new(Pa(0x8900_2000), Pa(0x8900_4000)) },
];
const PEN: PaRange = PaRange::new(Pa(0x8900_0000), Pa(0x8900_1000));

/// The ranges that `fdt` preserves in `memory`.
pub fn read_all<'a>(
    fdt: Fdt<'a>,
    memory: &Memory,
    in_use: &[PaRange],
) -> Result<Vec<PreservedRange<'a>>, PreservedError<'a>> {
    let all = PreservedRange::read_all(fdt, memory.mappable(0x1000), memory.reserved(), in_use)?;
    Ok(all.to_vec())
}

/// The tree with the pen and these preserved ranges, as a blob.
fn preserving(preserved: &[PreservedRange<'_>], source: &[u8]) -> Vec<u8> {
    let spin_table = Some(SpinTable { pen: PEN, release: PEN.start, cpus: &[] });
    let next = NextTree { spin_table, preserved, ..NextTree::default() };
    let mut output = vec![0; next.measure(source).unwrap()];
    next.rewrite(source, &mut output).unwrap();
    output
}

fn filled(blob: &[u8]) -> Memory {
    let mut memory = Memory::new();
    memory.fill_from_fdt(parse_dtb(blob).unwrap()).unwrap();
    memory
}

fn read<'a>(blob: &'a [u8], in_use: &[PaRange]) -> Result<Vec<PreservedRange<'a>>, PreservedError<'a>> {
    read_all(parse_dtb(blob).unwrap(), &filled(blob), in_use)
}

/// A node as a writer without checks makes it.
fn kept_node(start: u64, len: u64) -> Node {
    let properties = vec![
        Property::string("compatible", "linmap,preserved"),
        Property::cells("reg", &wide(start, len)),
        Property::string("label", "any"),
    ];
    Node::new(&format!("linmap-preserved@{start:x}"), properties)
}

fn tree_with(nodes: impl IntoIterator<Item = Node>) -> Vec<u8> {
    root(2).with([memory(), reserved_memory(2).with(nodes)]).blob()
}

#[test]
fn what_is_preserved_is_found_again_generation_after_generation() {
    let mut blob = tree_with([]);
    for _ in 0..10 {
        let next = preserving(&PRESERVED, &blob);
        assert_eq!(read(&next, &[]).unwrap(), PRESERVED);
        blob = next;
    }
    assert_eq!(read(&preserving(&[], &blob), &[]).unwrap(), []);
}

#[test]
fn the_memory_map_reserves_and_maps_what_is_preserved_and_the_pen() {
    let memory = filled(&preserving(&PRESERVED, &tree_with([])));
    for range in PRESERVED.map(|preserved| preserved.range).into_iter().chain([PEN]) {
        assert!(memory.reserved().iter().any(|reserved| reserved.covers(range)), "{range}");
        assert!(memory.mappable(0x1000).any(|mapped| mapped.covers(range)), "{range}");
        assert!(memory.free_ranges(range).next().is_none(), "{range}");
    }
}

#[test]
fn a_tree_that_keeps_nothing_has_no_preserved_ranges() {
    for blob in [root(2).with([memory()]).blob(), tree_with([])] {
        assert_eq!(read(&blob, &[]).unwrap(), []);
    }
}

#[test]
fn ranges_outside_mapped_memory_are_refused() {
    let no_map = reserved_memory(2).children.remove(0);
    let start = 0x8800_0000;
    assert_eq!(no_map.name, "firmware@88000000");
    for (start, len) in
        [(0x4000_0000, 0x1000), (0xbfff_f000, 0x2000), (start, 0x1000), (start - 0x1000, 0x3000)]
    {
        let blob = tree_with([kept_node(start, len)]);
        let node = &*format!("linmap-preserved@{start:x}");
        let range = PaRange::new(Pa(start), Pa(start + len));
        assert_eq!(read(&blob, &[]), Err(PreservedError::NotMapped { node, range }));
    }
}

#[test]
fn a_range_that_the_memory_map_does_not_reserve_is_refused() {
    let mut node = kept_node(0x9000_0000, 0x1000);
    node.properties.push(Property::string("status", "disabled"));
    let blob = tree_with([node]);
    let range = PaRange::new(Pa(0x9000_0000), Pa(0x9000_1000));
    assert_eq!(
        read(&blob, &[]),
        Err(PreservedError::NotReserved { node: "linmap-preserved@90000000", range })
    );
}

#[test]
fn ranges_that_are_no_pages_overlap_or_are_in_use_are_refused() {
    for (start, len) in [(0x9000_0800, 0x1000), (0x9000_0000, 0x1001), (0x9000_0000, 0)] {
        let blob = tree_with([kept_node(start, len)]);
        let range = PaRange::new(Pa(start), Pa(start + len));
        assert_eq!(
            read(&blob, &[]),
            Err(PreservedError::Unaligned { node: &format!("linmap-preserved@{start:x}"), range })
        );
    }
    let blob = tree_with([kept_node(0x9000_1000, 0x2000), kept_node(0x9000_0000, 0x2000)]);
    let range = PaRange::new(Pa(0x9000_0000), Pa(0x9000_2000));
    let other = PaRange::new(Pa(0x9000_1000), Pa(0x9000_3000));
    assert_eq!(
        read(&blob, &[]),
        Err(PreservedError::Overlap { node: "linmap-preserved@90000000", range, other })
    );
    let image = PaRange::new(Pa(0x9000_2fff), Pa(0x9020_0000));
    let in_use = PreservedError::InUse { node: "linmap-preserved@90001000", range: other, other: image };
    assert_eq!(read(&blob, &[image]), Err(in_use));
}

#[test]
fn nodes_without_a_proper_reg_or_label_are_refused() {
    let with = |property: Property| {
        let mut node = kept_node(0x9000_0000, 0x1000);
        node.properties.retain(|old| old.name != property.name);
        node.properties.push(property);
        tree_with([node])
    };
    let node = "linmap-preserved@90000000";
    let two = [wide(0x9000_0000, 0x1000), wide(0x9100_0000, 0x1000)].concat();
    for blob in [with(Property::cells("reg", &two)), with(Property::new("reg", []))] {
        assert_eq!(read(&blob, &[]), Err(PreservedError::Reg { node }));
    }
    let blob = with(Property::new("label", b"\xff\0"));
    assert_eq!(read(&blob, &[]), Err(PreservedError::Label { node }));
    let without = |name: &str| {
        let mut bare = kept_node(0x9000_0000, 0x1000);
        bare.properties.retain(|property| property.name != name);
        tree_with([bare])
    };
    assert_eq!(read(&without("label"), &[]), Err(PreservedError::Label { node }));
    assert_eq!(read(&without("reg"), &[]), Err(PreservedError::Reg { node }));
}

#[test]
fn a_label_ends_at_its_first_nul() {
    for (label, said) in [(&b"any"[..], "any"), (b"any\0\0", "any"), (b"any\0\xff", "any"), (b"", "")] {
        let mut node = kept_node(0x9000_0000, 0x1000);
        node.properties.retain(|property| property.name != "label");
        node.properties.push(Property::new("label", label));
        assert_eq!(read(&tree_with([node]), &[]).unwrap()[0].label, said);
    }
}

#[test]
fn a_range_that_wraps_or_has_other_cells_is_refused_without_the_memory_map() {
    let blob = tree_with([kept_node(0xffff_ffff_ffff_f000, 0x2000)]);
    let error = read_all(parse_dtb(&blob).unwrap(), &Memory::new(), &[]).unwrap_err();
    let (node, address) = ("linmap-preserved@fffffffffffff000", Pa(0xffff_ffff_ffff_f000));
    assert_eq!(error, PreservedError::Wraps { node, address, size: 0x2000 });
    let mut parent = reserved_memory(2).with([kept_node(0x9000_0000, 0x1000)]);
    for cells in [0, 3, u32::MAX] {
        parent.properties[0] = Property::cells("#address-cells", &[cells]);
        let blob = root(2).with([parent.clone()]).blob();
        let error = read_all(parse_dtb(&blob).unwrap(), &Memory::new(), &[]).unwrap_err();
        assert_eq!(error, PreservedError::Reg { node: "linmap-preserved@90000000" });
    }
}

#[test]
fn more_ranges_than_there_is_room_for_are_refused() {
    let nodes = |count| (0..count).map(|page| kept_node(0x9000_0000 + page * 0x2000, 0x1000));
    let blob = tree_with(nodes(MAX_PRESERVED as u64));
    assert_eq!(read(&blob, &[]).unwrap().len(), MAX_PRESERVED);
    let blob = tree_with(nodes(MAX_PRESERVED as u64 + 1));
    assert_eq!(read(&blob, &[]), Err(PreservedError::TooMany { node: "linmap-preserved@90040000" }));
}

#[test]
fn no_flipped_byte_does_harm() {
    let mut blob = preserving(&PRESERVED, &tree_with([]));
    for at in 0..blob.len() {
        for flip in [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff] {
            blob[at] ^= flip;
            let mut memory = Memory::new();
            if let Ok(fdt) = parse_dtb(&blob)
                && memory.fill_from_fdt(fdt).is_ok()
                && let Ok(preserved) = read_all(fdt, &memory, &[])
            {
                for PreservedRange { range, .. } in preserved {
                    assert!(memory.mappable(0x1000).any(|mapped| mapped.covers(range)));
                    assert!(memory.free_ranges(range).next().is_none());
                }
            }
            blob[at] ^= flip;
        }
    }
}

proptest! {
    #[test]
    fn any_ranges_in_memory_are_read_back(
        // Gap before it, and its length, in pages: together below the 0x3_0000 pages that are left.
        ranges in prop::collection::vec((0u64..0x800, 1u64..0x800, "\\PC{0,12}"), 0..=MAX_PRESERVED),
    ) {
        let mut end = 0x9000_0000u64;
        let preserved: Vec<PreservedRange<'_>> = ranges
            .iter()
            .map(|(gap, len, label)| {
                let start = end + (gap << 12);
                end = start + (len << 12);
                PreservedRange { label, range: PaRange::new(Pa(start), Pa(end)) }
            })
            .take_while(|preserved| preserved.range.end <= Pa(0xc000_0000))
            .collect();
        let blob = preserving(&preserved, &tree_with([]));
        prop_assert_eq!(read(&blob, &[]).unwrap(), preserved);
    }
}

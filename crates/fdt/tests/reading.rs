//! Reading a checked tree: what it says is what dtoolkit, another reader, finds in the same blob.

use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use linmap_fdt::{Cells, DeviceTree, Fdt, FdtNode, RegLength, Status, parse_dtb};
use proptest::prelude::*;
use vm_fdt::FdtWriter;

/// A blob with these contents of its root.
fn tree(fill: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    let mut fdt = FdtWriter::new().unwrap();
    let root = fdt.begin_node("").unwrap();
    fill(&mut fdt);
    fdt.end_node(root).unwrap();
    fdt.finish().unwrap()
}

fn node(fdt: &mut FdtWriter, name: &str, fill: impl FnOnce(&mut FdtWriter)) {
    let node = fdt.begin_node(name).unwrap();
    fill(fdt);
    fdt.end_node(node).unwrap();
}

fn names(fdt: Fdt<'_>) -> Vec<(usize, &str)> {
    fdt.root().descendants().map(|(depth, node)| (depth, node.name())).collect()
}

/// Expects that both readers find the same below a node.
fn expect_equal(ours: FdtNode<'_>, theirs: &dtoolkit::fdt::FdtNode<'_>) {
    assert_eq!(ours.name(), theirs.name());
    assert_eq!(ours.name_without_address(), theirs.name_without_address());
    let properties: Vec<_> = theirs.properties().collect();
    let properties: Vec<_> = properties.iter().map(|property| (property.name(), property.value())).collect();
    assert!(ours.properties().eq(properties.iter().copied()));
    for (name, _) in &properties {
        let first = properties.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        assert_eq!(ours.property(name), first);
    }
    assert_eq!(ours.property("no such name"), None);
    let cells = ours.cells();
    if let (Ok(address), Ok(size)) = (theirs.address_cells(), theirs.size_cells()) {
        assert_eq!(cells, Cells { address, size });
        for (ours, theirs) in ours.children().zip(theirs.children()) {
            let (Ok(Some(theirs)), Ok(ours)) = (theirs.reg(), ours.reg(cells)) else { continue };
            let numbers = theirs.map(|reg| (reg.address::<u64>().ok(), reg.size::<u64>().ok()));
            // An address of no cells is none; dtoolkit takes it for 0.
            let address = |address: Option<u64>| address.filter(|_| cells.address > 0);
            assert!(
                ours.map(|reg| (reg.address(), reg.size())).eq(numbers.map(|(at, size)| (address(at), size)))
            );
        }
    }
    assert_eq!(ours.children().count(), theirs.children().count());
    for (ours, theirs) in ours.children().zip(theirs.children()) {
        expect_equal(ours, &theirs);
    }
}

fn expect_read_alike(blob: &[u8]) {
    let ours = parse_dtb(blob).unwrap();
    let theirs = dtoolkit::fdt::Fdt::new_unchecked(blob);
    expect_equal(ours.root(), &theirs.root());
    let entries = theirs.memory_reservations().map(|entry| (entry.address(), entry.size()));
    assert!(ours.memory_reservations().eq(entries));
    for (ours, path) in [
        (ours.chosen(), "/chosen"),
        (ours.aliases(), "/aliases"),
        (ours.cpus(), "/cpus"),
        (ours.reserved_memory(), "/reserved-memory"),
    ] {
        let theirs = theirs.find_node(path);
        assert_eq!(ours.map(FdtNode::name), theirs.map(|node| node.name()), "{path}");
    }
}

#[test]
fn trees_of_real_machines_are_read_as_another_reader_reads_them() {
    for blob in [
        &include_bytes!("../../platform/tests/trees/virt-gicv2.dtb")[..],
        include_bytes!("../../platform/tests/trees/virt-gicv3-200-cpus.dtb"),
        include_bytes!("../../platform/tests/trees/virt-el2.dtb"),
    ] {
        expect_read_alike(blob);
    }
}

#[test]
fn nodes_are_found_by_path_with_and_without_their_unit_address() {
    let blob = tree(|fdt| {
        node(fdt, "soc@0", |fdt| {
            node(fdt, "serial-x@1", |_| ());
            node(fdt, "serial@2", |fdt| fdt.property_u32("a", 2).unwrap());
            node(fdt, "serial@3", |fdt| fdt.property_u32("a", 3).unwrap());
        });
        node(fdt, "chosen@0", |fdt| fdt.property_u32("a", 4).unwrap());
        node(fdt, "chosen", |_| ());
    });
    let fdt = parse_dtb(&blob).unwrap();
    let a = |path: &str| fdt.find_node(path).and_then(|node| node.number("a"));
    assert_eq!((a("/soc/serial"), a("/soc@0/serial@3"), a("soc//serial@2/")), (Some(2), Some(3), Some(2)));
    assert_eq!((a("/soc/serial@4"), a("/serial"), a("/soc/ser")), (None, None, None));
    assert_eq!(fdt.chosen().and_then(|node| node.number("a")), Some(4));
    assert!(fdt.cpus().is_none());
    expect_read_alike(&blob);
}

#[test]
fn a_walk_leaves_out_what_it_is_told_to() {
    let blob = tree(|fdt| {
        node(fdt, "a", |fdt| node(fdt, "b", |fdt| node(fdt, "c", |_| ())));
        node(fdt, "d", |fdt| node(fdt, "e", |_| ()));
    });
    let fdt = parse_dtb(&blob).unwrap();
    assert_eq!(names(fdt), [(1, "a"), (2, "b"), (3, "c"), (1, "d"), (2, "e")]);
    let mut walk = fdt.root().descendants();
    let mut seen = Vec::new();
    while let Some((depth, node)) = walk.next() {
        seen.push((depth, node.name()));
        if node.name() == "b" || node.name() == "d" {
            walk.skip_below();
        }
    }
    assert_eq!(seen, [(1, "a"), (2, "b"), (1, "d")]);
    let below_a = fdt.find_node("/a").unwrap();
    assert_eq!(below_a.descendants().count(), 2, "a walk ends with its node");
}

#[test]
fn the_status_of_a_node_is_one_of_the_specifications() {
    for (value, status) in [
        (None, Status::Okay),
        (Some(&b"okay\0"[..]), Status::Okay),
        (Some(b"ok\0\0\0"), Status::Okay),
        (Some(b"disabled\0"), Status::Disabled),
        (Some(b"fail\0"), Status::Failed),
        (Some(b"fail-ecc\0"), Status::Failed),
        (Some(b"failure\0"), Status::Reserved),
        (Some(b"reserved\0"), Status::Reserved),
        (Some(b"\0"), Status::Reserved),
    ] {
        assert_eq!(Status::of_value(value), status, "{value:?}");
    }
}

#[test]
fn a_reg_that_is_not_whole_entries_is_refused() {
    let blob = tree(|fdt| fdt.property("reg", &[0; 20]).unwrap());
    let root = parse_dtb(&blob).unwrap().root();
    let reg = |address, size| root.reg(Cells { address, size });
    assert_eq!(reg(2, 2).unwrap_err(), RegLength { len: 20, entry: 16 });
    assert_eq!(reg(0, 0).unwrap_err(), RegLength { len: 20, entry: 0 });
    assert!(reg(u32::MAX, u32::MAX).is_err());
    let entries = |address, size| {
        let entries = reg(address, size).unwrap();
        entries.map(|entry| (entry.address(), entry.size())).collect::<Vec<_>>()
    };
    assert_eq!(entries(3, 2), [(None, Some(0))]);
    assert_eq!(entries(0, 5), [(None, None)]);
    assert_eq!(entries(1, 0), [(Some(0), Some(0)); 5]);
}

proptest! {
    #[test]
    fn no_damage_that_the_check_accepts_makes_the_readers_differ(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut blob = include_bytes!("../../platform/tests/trees/virt-el2.dtb").to_vec();
        for (at, value) in changes {
            *at.get_mut(&mut blob) = value;
        }
        if parse_dtb(&blob).is_ok() {
            expect_read_alike(&blob);
        }
    }
}

const PEEKED: [&str; 3] = ["bootargs", "kaslr-seed", "none"];

#[test]
fn a_little_is_read_of_a_tree_before_it_is_checked() {
    let blob = tree(|fdt| {
        fdt.property_string("bootargs", "the root's").unwrap();
        node(fdt, "memory@0", |fdt| fdt.property_u64("kaslr-seed", 1).unwrap());
        node(fdt, "cpus", |fdt| node(fdt, "chosen", |fdt| fdt.property_u64("kaslr-seed", 2).unwrap()));
        node(fdt, "chosen-not", |fdt| fdt.property_u64("kaslr-seed", 3).unwrap());
        node(fdt, "chosen", |fdt| {
            fdt.property_u64("kaslr-seed", 0x0102).unwrap();
            fdt.property_string("bootargs", "quiet").unwrap();
            node(fdt, "below", |fdt| fdt.property_null("none").unwrap());
        });
    });
    let peeked = DeviceTree::parse(&blob).unwrap().peek("chosen", PEEKED);
    let checked = parse_dtb(&blob).unwrap().chosen().unwrap().values(PEEKED);
    assert_eq!(peeked, checked);
    assert_eq!(peeked, [Some(&b"quiet\0"[..]), Some(&[0, 0, 0, 0, 0, 0, 1, 2]), None]);
    let [.., nothing] = DeviceTree::parse(&blob).unwrap().peek("absent", PEEKED);
    assert_eq!(nothing, None);
}

proptest! {
    #[test]
    fn a_damaged_tree_may_be_peeked_at(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let blob = &include_bytes!("../../platform/tests/trees/virt-gicv2.dtb")[..];
        let mut blob = blob.to_vec();
        for (at, byte) in changes {
            // The header stays: then there is a tree to look at.
            let at = 64 + at.index(blob.len() - 64);
            blob[at] = byte;
        }
        let inside = blob.as_ptr_range();
        if let Ok(tree) = DeviceTree::parse(&blob) {
            for value in tree.peek("chosen", PEEKED).into_iter().flatten() {
                let value = value.as_ptr_range();
                prop_assert!(inside.start <= value.start && value.end <= inside.end);
            }
        }
    }
}

//! What was reserved for the running kernel's tree and initrd alone does not reach the next kernel.

use crate::next_tree::rewritten;
use crate::tree::{Node, Property, memory, reserved_memory, root, wide};
use linmap_fdt::parse_dtb;
use linmap_kexec::NextTree;
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

#[test]
fn reservations_of_the_old_tree_and_initrd_end_with_the_kernel_that_had_them() {
    let old =
        [PaRange::new(Pa(0x8300_0000), Pa(0x8300_6789)), PaRange::new(Pa(0x8400_0000), Pa(0x8520_0123))];
    // As U-Boot lists them, or rounded to pages.
    let gone = [(0x8300_0000, 0x6789), (0x8400_0000, 0x120_0123)];
    let rounded = (0x8400_0000, 0x120_1000);
    // The firmware's: beside them, around the initrd, in it.
    let beside = [(0x8000_0000, 0x1_0000), (0x8520_1000, 0x1000)];
    let (around, inside) = ((0x8400_0000, 0x200_0000), (0x8500_0000, 0x1000));
    let node = |name: &str, (start, len): (u64, u64), more: &[Property]| {
        let reg = Property::cells("reg", &wide(start, len));
        Node::new(name, [&[reg], more].concat())
    };
    let kept = [
        node("secure@84000000", gone[1], &[Property::new("no-map", [])]),
        node("pool@84000000", gone[1], &[Property::string("compatible", "shared-dma-pool")]),
        node("named@84000000", gone[1], &[Property::cells("phandle", &[1])]),
        node("more@84000000", around, &[]),
    ];
    let dropped = [node("initrd@84000000", gone[1], &[]), node("tree@83000000", gone[0], &[])];
    let of = |nodes: &[Node]| root(2).with([memory(), reserved_memory(2).with(nodes.to_vec())]);
    let source = of(&[&dropped[..1], &kept, &dropped[1..]].concat());
    let next = NextTree { vacated: &old, ..NextTree::default() };
    let reserved = |entries: &[(u64, u64)]| -> Vec<_> {
        let result = rewritten(&next, &source.blob_reserving(entries));
        parse_dtb(&result).unwrap().memory_reservations().collect()
    };
    assert_eq!(reserved(&[&gone[..], &beside].concat()), beside);
    assert_eq!(reserved(&[rounded]), []);
    for firmware in [around, inside] {
        assert_eq!(reserved(&[firmware]), [firmware]);
    }
    let names = |node: &Node| node.child("reserved-memory").unwrap().children.clone();
    assert_eq!(names(&Node::read(&rewritten(&next, &source.blob()))), names(&of(&kept)));
    // The tree does not reserve what the next kernel reserves by itself: its own blob and initrd.
    let mut reserved = Memblock::<64>::new();
    reserved.fill_from_reservations(parse_dtb(&source.blob_reserving(&gone)).unwrap(), &old).unwrap();
    let of_nodes = [PaRange::new(Pa(0x8400_0000), Pa(0x8600_0000))];
    assert_eq!(reserved.reserved(), of_nodes);
    // Without a word of what is vacated everything stays.
    let result = rewritten(&NextTree::default(), &source.blob_reserving(&gone));
    assert!(parse_dtb(&result).unwrap().memory_reservations().eq(gone));
    assert_eq!(names(&Node::read(&result)), names(&source));
}

//! Reading and editing the device tree given by `--dtb`: where it says memory is, and its /chosen
//! node.

use std::ops::Range;

use linmap_fdt::{Cells, FdtNode, first_string, parse_dtb};
use linmap_kexec::{NextTree, PreservedRange};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};

/// Regions of memory that a tree may have for its preserved ranges to be read, as in the kernel.
const REGIONS: usize = 256;

/// The tree with its /chosen filled in and all else as it was; `None` where it is too broken to be
/// edited.
pub fn with_chosen(tree: &[u8], bootargs: &str, initrd: Option<&Range<u64>>) -> Option<Vec<u8>> {
    let initrd = initrd.map(|range| PaRange::new(Pa(range.start), Pa(range.end)));
    // The ranges that the tree preserves stay preserved. linmap ignores malformed ones too.
    let fdt = parse_dtb(tree).ok()?;
    let mut memory = Memblock::<REGIONS>::new();
    let filled = memory.fill_from_fdt(fdt).is_ok();
    let preserved = PreservedRange::read_all(fdt, memory.mappable(0x1000), memory.reserved(), &[])
        .ok()
        .filter(|_| filled)
        .unwrap_or_default();
    let next = NextTree { bootargs, initrd, preserved: &preserved, ..NextTree::default() };
    let mut edited = vec![0; next.measure(tree).ok()?];
    next.rewrite(tree, &mut edited).ok()?;
    Some(edited)
}

/// The ranges of all memory nodes; none where the tree can't be read. Ranges that are empty or wrap
/// are left out.
pub fn memory(tree: &[u8]) -> Vec<Range<u64>> {
    let Ok(fdt) = parse_dtb(tree) else { return Vec::new() };
    let is_memory = |node: &FdtNode<'_>| {
        node.name_without_address() == "memory"
            || node.property("device_type").is_some_and(|kind| first_string(kind) == b"memory")
    };
    let cells = fdt.root().cells();
    fdt.root().children().filter(is_memory).flat_map(|node| ranges(node, cells)).collect()
}

/// What memory reservations and /reserved-memory reserve; none where the tree can't be read.
pub fn reserved(tree: &[u8]) -> Vec<Range<u64>> {
    let Ok(fdt) = parse_dtb(tree) else { return Vec::new() };
    let listed = fdt.memory_reservations().filter_map(|(address, size)| range(address, size));
    let parent = fdt.reserved_memory().into_iter();
    let nodes =
        parent.flat_map(|parent| parent.children().flat_map(move |node| ranges(node, parent.cells())));
    listed.chain(nodes).collect()
}

fn ranges(node: FdtNode<'_>, cells: Cells) -> Vec<Range<u64>> {
    let Ok(reg) = node.reg(cells) else { return Vec::new() };
    reg.filter_map(|entry| range(entry.address()?, entry.size()?)).collect()
}

fn range(start: u64, size: u64) -> Option<Range<u64>> {
    start.checked_add(size).filter(|_| size > 0).map(|end| start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::memreserve::MemoryReservation;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    /// A name of 34 characters, from the tree that QEMU makes for xlnx-versal-virt. The
    /// specification allows 31.
    const LONG_NAME: &str = "snps,quirk-frame-length-adjustment";
    const BOOTARGS: &str = "linmap.payload=none a=b";
    const INITRD: Range<u64> = 0x4400_0000..0x4400_1234;

    fn node(name: &str, properties: &[(&str, &[u64])]) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new(name).unwrap();
        for (name, cells) in properties {
            let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
            node.add_property(DeviceTreeProperty::new_unchecked(*name, value));
        }
        node
    }

    fn tree(children: Vec<DeviceTreeNode>) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        for name in ["#address-cells", "#size-cells"] {
            tree.root.add_property(DeviceTreeProperty::new(name, 2u32).unwrap());
        }
        children.into_iter().for_each(|child| tree.root.add_child(child));
        tree.memory_reservations.push(MemoryReservation::new(0x4800_0000, 0x1000));
        tree.to_dtb()
    }

    fn value(tree: &[u8], path: &str, name: &str) -> Vec<u8> {
        parse_dtb(tree).unwrap().find_node(path).unwrap().property(name).unwrap().to_vec()
    }

    #[test]
    fn chosen_is_filled_and_everything_else_kept() {
        let mut old = node("chosen", &[("linux,initrd-start", &[7, 7, 7])]);
        old.add_property(DeviceTreeProperty::new("stdout-path", "/pl011@9000000").unwrap());
        let memory_node =
            || node("memory@40000000", &[("reg", &[0x4000_0000, 0x1000_0000]), (LONG_NAME, &[])]);
        let reserved_node = || node("reserved-memory", &[]);
        for children in [vec![memory_node(), old, reserved_node()], vec![memory_node(), reserved_node()]] {
            let edited = with_chosen(&tree(children), BOOTARGS, Some(&INITRD)).unwrap();
            assert_eq!(value(&edited, "/chosen", "bootargs"), b"linmap.payload=none a=b\0");
            assert_eq!(value(&edited, "/chosen", "linux,initrd-start"), 0x4400_0000u64.to_be_bytes());
            assert_eq!(value(&edited, "/chosen", "linux,initrd-end"), 0x4400_1234u64.to_be_bytes());
            assert_eq!(memory(&edited), [0x4000_0000..0x5000_0000]);
            assert_eq!(reserved(&edited), [0x4800_0000..0x4800_1000]);
        }
    }

    #[test]
    fn what_chosen_held_before_stays_unless_it_is_ours() {
        let mut old = node("chosen", &[("linux,initrd-start", &[7, 7, 7])]);
        old.add_property(DeviceTreeProperty::new("stdout-path", "/pl011@9000000").unwrap());
        let edited = with_chosen(&tree(vec![old]), "", None).unwrap();
        assert_eq!(value(&edited, "/chosen", "stdout-path"), b"/pl011@9000000\0");
        assert_eq!(value(&edited, "/chosen", "bootargs"), b"\0");
    }

    #[test]
    fn memory_that_the_tree_keeps_stays_kept() {
        let mut memory = node("memory@40000000", &[("reg", &[0x4000_0000, 0x1000_0000])]);
        memory.add_property(DeviceTreeProperty::new("device_type", "memory").unwrap());
        let preserved =
            PreservedRange { label: "bytes", range: PaRange::new(Pa(0x4900_0000), Pa(0x4900_2000)) };
        let first = NextTree { preserved: &[preserved], ..NextTree::default() };
        let tree = tree(vec![memory]);
        let mut with_kept = vec![0; first.measure(&tree).unwrap()];
        first.rewrite(&tree, &mut with_kept).unwrap();
        let edited = with_chosen(&with_kept, BOOTARGS, Some(&INITRD)).unwrap();
        assert_eq!(reserved(&edited), [0x4800_0000..0x4800_1000, 0x4900_0000..0x4900_2000]);
    }

    #[test]
    fn the_address_of_the_initrd_does_not_change_the_trees_size() {
        let tree = tree(vec![]);
        let there = |start: u64| with_chosen(&tree, BOOTARGS, Some(&(start..start + 9))).unwrap().len();
        assert_eq!(there(0), there(u64::MAX - 9));
    }

    #[test]
    fn all_memory_nodes_count_and_impossible_ranges_do_not() {
        let tree = tree(vec![
            node("memory@0", &[("reg", &[0, 0x8000_0000, u64::MAX, 2, 0x10, 0])]),
            node("memory@800000000", &[("reg", &[0x8_0000_0000, 0x1_8000_0000])]),
        ]);
        assert_eq!(memory(&tree), [0..0x8000_0000, 0x8_0000_0000..0x9_8000_0000]);
    }

    #[test]
    fn a_broken_tree_has_no_memory_and_is_not_edited() {
        let whole = tree(vec![node("memory@0", &[("reg", &[0, 0x8000_0000])])]);
        for broken in [&b""[..], b"\xd0\x0d\xfe\xed", &whole[..whole.len() - 8], &[0; 64]] {
            assert_eq!(with_chosen(broken, BOOTARGS, Some(&INITRD)), None);
            assert!(memory(broken).is_empty() && reserved(broken).is_empty());
        }
    }
}

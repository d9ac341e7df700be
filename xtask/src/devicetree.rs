//! Reading and editing the device tree given by `--dtb`: where it says memory is, and its /chosen node.

use std::ops::Range;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::fdt_mut::FdtMut;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};

/// What a boot loader writes into /chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The command line.
    pub bootargs: String,
    /// Where the initrd is, physical addresses.
    pub initrd: Option<Range<u64>>,
}

/// The tree with its /chosen filled in and all else as it was; `None` where it is too broken to be edited.
pub fn with_chosen(tree: &[u8], chosen: &Chosen) -> Option<Vec<u8>> {
    let fdt = Fdt::new(tree).ok()?;
    let properties = properties(chosen)?;
    if fdt.find_node("/chosen").is_some() {
        // Edited in place, so that whatever else is odd about the tree stays so.
        let mut edited = tree.to_vec();
        let mut in_place = FdtMut::new(&mut edited).ok()?;
        let mut node = in_place.find_node_mut("/chosen")?;
        for (name, value) in properties {
            node.remove_property(name);
            node.add_property(name, value).ok()?;
        }
        return Some(edited);
    }
    let mut model = DeviceTree::from_fdt(&fdt);
    let mut node = DeviceTreeNode::new("chosen").ok()?;
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(name, value).ok()?);
    }
    model.root.add_child(node);
    Some(model.to_dtb())
}

fn properties(chosen: &Chosen) -> Option<Vec<(&'static str, Vec<u8>)>> {
    if chosen.bootargs.contains('\0') {
        return None;
    }
    let mut bootargs = chosen.bootargs.clone().into_bytes();
    bootargs.push(0);
    let mut properties = vec![("bootargs", bootargs)];
    if let Some(initrd) = &chosen.initrd {
        properties.push(("linux,initrd-start", initrd.start.to_be_bytes().to_vec()));
        properties.push(("linux,initrd-end", initrd.end.to_be_bytes().to_vec()));
    }
    Some(properties)
}

/// The ranges of all memory nodes; none where the tree can't be read. Ranges that are empty or wrap are left out.
pub fn memory(tree: &[u8]) -> Vec<Range<u64>> {
    let Ok(fdt) = Fdt::new(tree) else { return Vec::new() };
    let is_memory = |node: &FdtNode<'_>| {
        node.name_without_address() == "memory"
            || node.property("device_type").is_some_and(|kind| kind.value() == b"memory\0")
    };
    fdt.root().children().filter(is_memory).flat_map(ranges).collect()
}

/// What memory reservations and /reserved-memory keep from use; none where the tree can't be read.
pub fn reserved(tree: &[u8]) -> Vec<Range<u64>> {
    let Ok(fdt) = Fdt::new(tree) else { return Vec::new() };
    let listed = fdt.memory_reservations().filter_map(|entry| range(entry.address(), entry.size()));
    let nodes = fdt.reserved_memory().into_iter().flatten().flat_map(|node| ranges(*node));
    listed.chain(nodes).collect()
}

fn ranges(node: FdtNode<'_>) -> Vec<Range<u64>> {
    let Ok(Some(reg)) = node.reg() else { return Vec::new() };
    reg.filter_map(|entry| range(entry.address().ok()?, entry.size().ok()?)).collect()
}

fn range(start: u64, size: u64) -> Option<Range<u64>> {
    start.checked_add(size).filter(|_| size > 0).map(|end| start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::memreserve::MemoryReservation;

    fn node(name: &str, properties: &[(&str, &[u64])]) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new(name).unwrap();
        for (name, cells) in properties {
            let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
            node.add_property(DeviceTreeProperty::new(*name, value).unwrap());
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

    fn chosen() -> Chosen {
        Chosen { bootargs: "linmap.payload=none a=b".into(), initrd: Some(0x4400_0000..0x4400_1234) }
    }

    fn value(tree: &[u8], path: &str, name: &str) -> Vec<u8> {
        Fdt::new(tree).unwrap().find_node(path).unwrap().property(name).unwrap().value().to_vec()
    }

    #[test]
    fn chosen_is_filled_and_everything_else_kept() {
        let mut old = node("chosen", &[("linux,initrd-start", &[7, 7, 7])]);
        old.add_property(DeviceTreeProperty::new("stdout-path", "/pl011@9000000").unwrap());
        let memory_node = || node("memory@40000000", &[("reg", &[0x4000_0000, 0x1000_0000])]);
        let reserved_node = || node("reserved-memory", &[]);
        for children in [vec![memory_node(), old, reserved_node()], vec![memory_node(), reserved_node()]] {
            let edited = with_chosen(&tree(children), &chosen()).unwrap();
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
        let without_initrd = Chosen { bootargs: String::new(), initrd: None };
        let edited = with_chosen(&tree(vec![old]), &without_initrd).unwrap();
        assert_eq!(value(&edited, "/chosen", "stdout-path"), b"/pl011@9000000\0");
        assert_eq!(value(&edited, "/chosen", "bootargs"), b"\0");
    }

    #[test]
    fn the_address_of_the_initrd_does_not_change_the_trees_size() {
        let tree = tree(vec![]);
        let there = |start: u64| Chosen { initrd: Some(start..start + 9), ..chosen() };
        assert_eq!(
            with_chosen(&tree, &there(0)).unwrap().len(),
            with_chosen(&tree, &there(u64::MAX - 9)).unwrap().len()
        );
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
            assert_eq!(with_chosen(broken, &chosen()), None);
            assert!(memory(broken).is_empty() && reserved(broken).is_empty());
        }
    }
}
